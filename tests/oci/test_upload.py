from __future__ import annotations

import io
import json

import pytest
from oci.served import USER

from kmm.contract import Forbidden, Unavailable
from kmm.embedded.registry_fault import RegistryFault, Trouble
from kmm.oci import manifest

CONTENT = bytes(range(256)) * 4000  # 1 MB
FILES = {"/opt/x.ko": b"driver"}


def fault(served, kind, **filters):
    served.registry.faults.add(RegistryFault(kind=kind, **filters))


def uploads(served):
    return [(entry.method, entry.status) for entry in served.registry.log if entry.kind == "upload"]


def pulled(served, digest, content=CONTENT):
    descriptor = manifest.Descriptor(media_type="", digest=digest, size=len(content))
    with served.client(USER).blob("new", descriptor) as blob:
        return b"".join(blob)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("auth", ["none", "basic", "bearer"])
@pytest.mark.parametrize("chunk_bytes", [0, 300_000, 5_000_000])
def test_a_blob_is_uploaded_at_once_or_in_pieces(serve, auth, relative, chunk_bytes):
    served = serve(auth=auth, relative=relative)
    client = served.client(USER)
    digest = client.upload("new", io.BytesIO(CONTENT), chunk_bytes=chunk_bytes)
    assert digest == manifest.digest_of(CONTENT)
    assert client.has_blob("new", digest)
    assert pulled(served, digest) == CONTENT


def test_a_blob_at_once_is_two_requests_and_in_pieces_one_more_for_each(served):
    served.client().upload("new", CONTENT)
    assert uploads(served) == [("POST", 202), ("PUT", 201)]
    served.client().upload("new", CONTENT, chunk_bytes=600_000)
    assert uploads(served)[2:] == [("POST", 202), ("PATCH", 202), ("PATCH", 202), ("PUT", 201)]


@pytest.mark.parametrize("content", [b"", b"1"])
@pytest.mark.parametrize("chunk_bytes", [0, 1])
def test_the_smallest_blobs_are_uploaded(served, content, chunk_bytes):
    digest = served.client().upload("new", content, chunk_bytes=chunk_bytes)
    assert pulled(served, digest, content) == content


def test_a_digest_that_does_not_fit_is_noticed_before_anything_is_sent(served):
    with pytest.raises(ValueError, match="does not have the digest that was given"):
        served.client().upload("new", CONTENT, digest="sha256:" + "0" * 64)
    assert served.registry.log == []


@pytest.mark.parametrize("chunk_bytes", [0, 300_000])
@pytest.mark.parametrize(
    ("kind", "filters"),
    [
        (Trouble.INTERRUPT, {"after_bytes": 400_000}),
        (Trouble.INTERRUPT, {"after_bytes": 0}),
        (Trouble.LOSE, {"methods": ("PATCH",)}),
        (Trouble.RESET, {"methods": ("PATCH", "PUT")}),
        (Trouble.RESET, {"methods": ("PATCH", "PUT"), "times": 3}),
    ],
)
def test_an_upload_that_breaks_off_is_taken_up_again(served, kind, filters, chunk_bytes):
    fault(served, kind, on=("upload",), **filters)
    digest = served.client().upload("new", CONTENT, chunk_bytes=chunk_bytes)
    assert pulled(served, digest) == CONTENT


def test_what_was_sent_is_not_sent_again(served):
    fault(served, Trouble.INTERRUPT, on=("upload",), after_bytes=700_000)
    served.client().upload("new", CONTENT)
    assert [method for method, _ in uploads(served)] == ["POST", "PUT", "GET", "PUT"]


@pytest.mark.parametrize(
    ("kind", "filters", "error"),
    [
        (Trouble.REFUSE, {"code": 500}, Unavailable),
        (Trouble.REFUSE, {"code": 403}, Forbidden),
        (Trouble.RESET, {}, Unavailable),
        (Trouble.HANG, {}, Unavailable),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [0, 300_000])
def test_an_upload_that_fails_is_cancelled(served, kind, filters, error, chunk_bytes):
    fault(served, kind, on=("upload",), methods=("PUT", "PATCH"), times=None, **filters)
    with pytest.raises(error):
        served.client(deadline_s=2 if kind is Trouble.HANG else 30).upload("new", CONTENT, chunk_bytes=chunk_bytes)
    assert uploads(served)[-1] == ("DELETE", 204)


def test_a_blob_is_mounted_from_another_repository(serve):
    served = serve(auth="bearer")
    served.registry.push_image("a:1", FILES)
    client = served.client(USER)
    layer = client.manifest(served.reference("a:1")).manifest.layers[0]
    assert client.mount("a", "new", layer.digest)
    assert client.has_blob("new", layer.digest)
    assert not client.has_blob("other", layer.digest)


def test_a_mount_that_is_answered_with_an_upload_is_cancelled(served):
    served.registry.push_image("a:1", FILES)
    client = served.client()
    layer = client.manifest(served.reference("a:1")).manifest.layers[0]
    fault(served, Trouble.UNMOUNTED)
    assert client.mount("a", "new", layer.digest) is False
    assert uploads(served) == [("POST", 202), ("DELETE", 204)]


def test_an_image_is_copied_with_an_index(serve):
    served = serve(auth="bearer")
    served.registry.push_image("a:1", FILES)
    client = served.client(USER)
    found = client.manifest(served.reference("a:1"))
    for each in (found.manifest.config, *found.manifest.layers):
        client.mount("a", "new", each.digest)
    digest = client.push_manifest("new", found.data, found.media_type)
    assert digest == found.digest
    entry = {"mediaType": found.media_type, "digest": digest, "size": len(found.data)}
    platform = {"os": "linux", "architecture": "arm64"}
    index = {"schemaVersion": 2, "manifests": [{**entry, "platform": platform}]}
    client.push_manifest("new", json.dumps(index).encode(), manifest.OCI_INDEX, "all")
    assert client.resolve(served.reference("new:all")).architectures == ("arm64",)


def test_a_manifest_that_the_registry_refuses_is_told_of_by_its_code(served):
    with pytest.raises(Unavailable, match=r"answered 4\d\d \(MANIFEST_\w+\)"):
        served.client().push_manifest("new", b'{"schemaVersion": 2}', manifest.OCI_MANIFEST, "1")
