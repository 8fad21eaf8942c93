from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.oci import manifest
from kmm.oci.manifest import Index, Manifest, ManifestError, Platform, parse

SHA = "sha256:" + "0123456789abcdef" * 4
BLOB = {"mediaType": "a/b", "digest": SHA, "size": 7}
IMAGE = {"schemaVersion": 2, "config": BLOB, "layers": [BLOB, BLOB]}


def entry(os, architecture, variant="", **more):
    platform = {"os": os, "architecture": architecture} | ({"variant": variant} if variant else {})
    return {**BLOB, "platform": platform, **more}


def index(*entries, **more):
    return {"schemaVersion": 2, "manifests": list(entries), **more}


def read(body, content_type=""):
    return parse(json.dumps(body).encode(), content_type)


@pytest.mark.parametrize("kind", [manifest.OCI_MANIFEST, manifest.DOCKER_MANIFEST])
def test_an_image_is_read_in_both_forms(kind):
    found = read({**IMAGE, "mediaType": kind, "annotations": {"a": "b"}})
    assert isinstance(found, Manifest)
    assert (found.media_type, len(found.layers), found.config.size) == (kind, 2, 7)
    assert found.annotations == {"a": "b"}


@pytest.mark.parametrize("kind", [manifest.OCI_INDEX, manifest.DOCKER_LIST])
def test_an_index_is_read_in_both_forms(kind):
    found = read(index(entry("linux", "arm64", "v8"), mediaType=kind))
    assert isinstance(found, Index)
    assert found.media_type == kind
    assert found.manifests[0].platform == Platform(os="linux", architecture="arm64", variant="v8")


@pytest.mark.parametrize(
    ("body", "header", "kind"),
    [
        (IMAGE, "", manifest.OCI_MANIFEST),
        (IMAGE, "application/json", manifest.OCI_MANIFEST),
        (IMAGE, manifest.DOCKER_MANIFEST + "; charset=utf-8", manifest.DOCKER_MANIFEST),
        (IMAGE, manifest.OCI_INDEX, manifest.OCI_MANIFEST),
        ({**IMAGE, "mediaType": manifest.OCI_MANIFEST}, manifest.DOCKER_LIST, manifest.OCI_MANIFEST),
        (index(), "text/html", manifest.OCI_INDEX),
        (index(), manifest.OCI_MANIFEST, manifest.OCI_INDEX),
        (index(), manifest.DOCKER_LIST, manifest.DOCKER_LIST),
        (index(mediaType=""), "", manifest.OCI_INDEX),
    ],
)
def test_the_body_decides_what_it_is_and_the_header_only_what_the_body_leaves_open(body, header, kind):
    assert read(body, header).media_type == kind


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, "old schema 1"),
        ({"schemaVersion": 2, "signatures": []}, "old schema 1"),
        ({}, "has no schemaVersion 2"),
        ({**IMAGE, "schemaVersion": True}, "has no schemaVersion 2"),
        ({**IMAGE, "schemaVersion": "2"}, "has no schemaVersion 2"),
        ({"schemaVersion": 2}, "neither an image nor an index"),
        ({**IMAGE, "manifests": []}, "both an image and an index"),
        ({**IMAGE, "mediaType": manifest.OCI_INDEX}, "its mediaType is another one"),
        (index(mediaType=manifest.DOCKER_MANIFEST), "its mediaType is another one"),
        ({**IMAGE, "mediaType": "secret"}, "its mediaType is another one"),
        ({**IMAGE, "mediaType": 7}, "a mediaType that is no text"),
        ({**IMAGE, "config": []}, "lacks a descriptor"),
        ({**IMAGE, "layers": {}}, "no list"),
        ({**IMAGE, "layers": [{**BLOB, "size": -1}]}, "without a size"),
        ({**IMAGE, "layers": [{**BLOB, "size": 1.0}]}, "without a size"),
        ({**IMAGE, "layers": [{**BLOB, "size": True}]}, "without a size"),
        ({**IMAGE, "layers": [{**BLOB, "digest": "sha256:secret"}]}, "neither sha256 nor sha512"),
        ({**IMAGE, "layers": [{**BLOB, "digest": SHA.upper()}]}, "neither sha256 nor sha512"),
        ({**IMAGE, "layers": [{**BLOB, "mediaType": "a" * 300}]}, "no short text"),
        ({**IMAGE, "annotations": {"a": 1}}, "an annotation that is no text"),
        ({**IMAGE, "annotations": []}, "annotations that are no object"),
        (index({**BLOB, "platform": "linux"}), "a platform that is no object"),
        (index(*[BLOB] * 2001), "more than 2,000 entries"),
        ([], "no JSON object"),
    ],
)
def test_what_is_no_manifest_says_why_and_repeats_nothing_of_it(body, said):
    with pytest.raises(ManifestError, match=said) as raised:
        read(body)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b" " * (manifest.SIZE_MOST + 1)],
)
def test_what_is_no_json_is_one_error(data):
    with pytest.raises(ManifestError):
        parse(data)


def test_architectures_are_those_of_linux_and_attestations_are_none():
    found = read(
        index(
            entry("linux", "arm64", "v8"),
            entry("linux", "amd64"),
            entry("linux", "amd64", "v3"),
            entry("windows", "s390x"),
            entry("unknown", "unknown", annotations={"vnd.docker.reference.type": "attestation-manifest"}),
            entry("linux", "unknown"),
            BLOB,
        )
    )
    assert found.architectures == ("amd64", "arm64")


def test_a_platform_is_chosen_by_architecture_then_variant():
    digests = [f"sha256:{n:064x}" for n in range(5)]
    found = read(
        index(
            entry("windows", "amd64", digest=digests[0]),
            entry("linux", "arm", "v6", digest=digests[1]),
            entry("linux", "arm", "v7", digest=digests[2]),
            entry("linux", "amd64", "v3", digest=digests[3]),
            entry("linux", "amd64", digest=digests[4]),
        )
    )
    assert found.choose("amd64").digest == digests[4]
    assert found.choose("amd64", "v3").digest == digests[3]
    assert found.choose("arm").digest == digests[1]
    assert found.choose("arm", "v7").digest == digests[2]
    assert found.choose("s390x") is None


def test_digests_are_of_two_kinds():
    assert manifest.is_digest(manifest.digest_of(b"a"))
    assert manifest.is_digest(manifest.digest_of(b"a", "sha512"))
    assert not manifest.is_digest(SHA + "\n")
    assert not manifest.is_digest("md5:" + "0" * 32)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(SHA),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "platform", "os"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_json_ends_in_anything_but_a_manifest_or_its_error(value):
    for body in (value, {"schemaVersion": 2, "layers": value}, {"schemaVersion": 2, "manifests": value}):
        try:
            found = read(body)
        except ManifestError:
            continue
        assert isinstance(found, Manifest | Index)


@given(st.binary(max_size=40))
def test_no_bytes_end_in_anything_but_its_error(data):
    with pytest.raises(ManifestError):
        parse(data)
