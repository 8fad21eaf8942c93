"""The toolkit's client, against the embedded registry and a real one."""

from __future__ import annotations

import io
from functools import partial

import pytest
from registry.running import READER, params

from kmm.contract import Access, Credential, Forbidden, Tls
from kmm.oci import layers, manifest
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.client import Client
from kmm.oci.reference import parse
from kmm.oci.session import Session

CONTENT = bytes(range(256)) * 4000
FILES = {"/opt/x.ko": b"driver"}


@pytest.fixture
def session():
    made = Session(Addresses(allowed=parse_networks(["127.0.0.0/8", "::1"])), environ={})
    yield made
    made.close()


@pytest.fixture
def client(registry, session):
    wrong = Credential(username=READER, password="wr0ng")
    right = Credential(username=registry.user, password=registry.password)
    access = Access(
        credentials=(wrong, right) if registry.user else (),
        tls=Tls(insecure=not registry.ca_pem),
        ca_pem=registry.ca_pem or None,
    )
    return Client(registry.host, access, session=session, deadline_s=60)


def test_what_is_there_is_told_from_what_is_not(registry, repository, client):
    digest = registry.push_image(f"{repository}:1", FILES)
    index = registry.push_index(f"{repository}:all", {"amd64": digest, "arm64": digest})
    found = client.resolve(parse(f"{registry.host}/{repository}:all"))
    assert (found.digest, found.architectures) == (index, ("amd64", "arm64"))
    assert client.resolve(parse(f"{registry.host}/{repository}@{digest}")).digest == digest
    assert client.resolve(parse(f"{registry.host}/{repository}:none")) is None
    assert client.manifest(parse(f"{registry.host}/{repository}:none")) is None
    assert client.resolve(parse(f"{registry.host}/{repository}-none:1")) is None


def test_a_file_is_found_in_an_image(registry, repository, client):
    registry.push_image(f"{repository}:1", FILES)
    image = client.manifest(parse(f"{registry.host}/{repository}:1"))
    openers = [partial(client.blob, repository, layer) for layer in image.manifest.layers]
    assert layers.find(openers, ["/opt/x.ko"]) == FILES


@pytest.mark.parametrize("chunk_bytes", [0, 300_000])
def test_a_blob_is_uploaded_and_read(repository, client, chunk_bytes):
    digest = client.upload(repository, io.BytesIO(CONTENT), chunk_bytes=chunk_bytes)
    assert client.has_blob(repository, digest)
    blob = manifest.Descriptor(media_type="", digest=digest, size=len(CONTENT))
    with client.blob(repository, blob) as stream:
        assert b"".join(stream) == CONTENT


@pytest.mark.parametrize("content", [b"", b"1"])
@pytest.mark.parametrize("chunk_bytes", [0, 1])
def test_the_smallest_blobs_are_uploaded(repository, client, content, chunk_bytes):
    assert client.has_blob(repository, client.upload(repository, content, chunk_bytes=chunk_bytes))


def test_an_image_is_copied_by_mounting_it(registry, repository, client):
    digest = registry.push_image(f"{repository}:1", FILES)
    image = client.manifest(parse(f"{registry.host}/{repository}:1"))
    for each in (image.manifest.config, *image.manifest.layers):
        assert client.mount(repository, f"{repository}-copy", each.digest)
    assert client.push_manifest(f"{repository}-copy", image.data, image.media_type, "1") == digest
    assert client.resolve(parse(f"{registry.host}/{repository}-copy:1")).digest == digest


def test_a_mount_of_what_is_not_there_is_none(repository, client):
    assert client.mount(f"{repository}-none", repository, manifest.digest_of(repository.encode())) is False


@pytest.mark.parametrize("registry", params("basic", "bearer"), indirect=True)
def test_whoever_has_no_credentials_is_refused(registry, repository, session):
    access = Access(tls=Tls(insecure=not registry.ca_pem), ca_pem=registry.ca_pem or None)
    stranger = Client(registry.host, access, session=session, deadline_s=60)
    with pytest.raises(Forbidden, match=r"was refused anonymously$"):
        stranger.resolve(parse(f"{registry.host}/{repository}:1"))
