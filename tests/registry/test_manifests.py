"""Manifests and indexes: what may be pushed, how it is found, how it goes."""

from __future__ import annotations

import json

import pytest
from registry.client import ACCEPTED, codes

from kmm.embedded.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, digest_of, image, index

FILES = {"/opt/lib/modules/6.1.0/x.ko": b"x" * 5_000}
NOWHERE = f"sha256:{'0' * 64}"


@pytest.fixture
def pushed(client, repository):
    """An image, its blobs and its manifest pushed under the tag `1`."""
    made = image([FILES], annotations={"org.example.kernel": "6.1.0"})
    answer = client.push(repository, "1", made)
    assert answer.status == 201, answer.data
    return made


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_an_image_is_answered_as_it_was_pushed(client, repository, docker):
    made = image([FILES, {"/opt/y": b"y"}], docker=docker)
    put = client.push(repository, "1", made)
    assert (put.status, put.headers["Docker-Content-Digest"]) == (201, made.digest)
    assert put.headers["Location"] == f"{client.url}/v2/{repository}/manifests/{made.digest}"
    for reference in ("1", made.digest):
        got = client.manifest(repository, reference)
        assert (got.status, got.data) == (200, made.manifest)
        assert got.headers["Content-Type"] == (DOCKER_MANIFEST if docker else OCI_MANIFEST) == made.media_type
        assert got.headers["Docker-Content-Digest"] == made.digest
        assert got.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        head = client.manifest(repository, reference, method="HEAD")
        assert (head.status, head.data) == (200, b"")
        assert int(head.headers["Content-Length"]) == len(made.manifest)
        assert head.headers["Docker-Content-Digest"] == made.digest


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_an_index_names_images_of_its_repository(registry, client, repository, docker):
    digests = {
        architecture: registry.push_image(repository, FILES, architecture=architecture, docker=docker)
        for architecture in ("amd64", "arm/v7")
    }
    digest = registry.push_index(f"{repository}:all", digests, docker=docker)
    got = client.manifest(repository, "all")
    assert got.headers["Content-Type"] == (DOCKER_INDEX if docker else OCI_INDEX)
    assert got.headers["Docker-Content-Digest"] == digest == digest_of(got.data)
    assert [(each["digest"], each["platform"]) for each in got.json()["manifests"]] == [
        (digests["amd64"], {"architecture": "amd64", "os": "linux"}),
        (digests["arm/v7"], {"architecture": "arm", "os": "linux", "variant": "v7"}),
    ]


def test_a_tag_moves(client, repository, pushed):
    other = image([{"/other": b""}])
    client.push(repository, "1", other)
    assert client.manifest(repository, "1").data == other.manifest
    assert client.manifest(repository, pushed.digest).data == pushed.manifest


def test_what_was_asked_for_before_need_not_be_sent_again(client, repository, pushed):
    etag = client.manifest(repository, "1").headers["Etag"]
    headers = {"If-None-Match": etag}
    again = client.ask("GET", f"/v2/{repository}/manifests/1", accept=ACCEPTED, headers=headers)
    assert (again.status, again.data) == (304, b"")


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", OCI_INDEX, DOCKER_MANIFEST])
def test_a_manifest_is_found_only_by_who_accepts_its_media_type(client, repository, pushed, accept):
    for reference in ("1", pushed.digest):
        answer = client.manifest(repository, reference, accept=accept)
        assert (answer.status, codes(answer)) == (404, ["MANIFEST_UNKNOWN"])
    assert client.manifest(repository, "1", accept=OCI_MANIFEST).status == 200
    assert client.manifest(repository, "1", accept=f"text/plain, {OCI_MANIFEST};q=0.5").status == 200


def test_a_media_type_may_have_parameters(client, repository, pushed):
    answer = client.put_manifest(repository, "2", pushed.manifest, f"{OCI_MANIFEST}; charset=utf-8")
    assert answer.status == 201
    assert client.manifest(repository, "2").headers["Content-Type"] == OCI_MANIFEST


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"no JSON", OCI_MANIFEST),
        (b"", OCI_MANIFEST),
        (b"[]", OCI_MANIFEST),
        (None, ""),
        (None, "text/plain"),
        (None, OCI_INDEX),
        (None, DOCKER_MANIFEST),
    ],
)
def test_what_is_no_manifest_of_its_media_type_is_refused(client, repository, pushed, body, kind):
    answer = client.put_manifest(repository, "2", pushed.manifest if body is None else body, kind)
    assert (answer.status, codes(answer)) == (400, ["MANIFEST_INVALID"])
    assert client.manifest(repository, "2").status == 404


def test_an_oci_manifest_need_not_say_its_media_type(client, repository, pushed):
    silent = {name: value for name, value in json.loads(pushed.manifest).items() if name != "mediaType"}
    body = json.dumps(silent).encode()
    assert client.put_manifest(repository, "2", body, OCI_MANIFEST).status == 201
    assert client.manifest(repository, "2").headers["Content-Type"] == OCI_MANIFEST


@pytest.mark.parametrize("part", ["config", "layers"])
def test_blobs_come_before_the_manifest_that_names_them(client, repository, pushed, part):
    body = json.loads(pushed.manifest)
    (body["config"] if part == "config" else body["layers"][0])["digest"] = NOWHERE
    answer = client.put_manifest(repository, "2", json.dumps(body).encode(), OCI_MANIFEST)
    assert (answer.status, codes(answer)) == (400, ["MANIFEST_BLOB_UNKNOWN"])
    assert answer.json()["errors"][0]["detail"] == NOWHERE


def test_blobs_of_another_repository_do_not_count(client, repository, pushed):
    answer = client.put_manifest(f"{repository}/other", "1", pushed.manifest, OCI_MANIFEST)
    assert (answer.status, set(codes(answer))) == (400, {"MANIFEST_BLOB_UNKNOWN"})


def test_images_come_before_the_index_that_names_them(client, repository, pushed):
    made = index({"amd64": (pushed.digest, len(pushed.manifest), OCI_MANIFEST), "arm64": (NOWHERE, 1, OCI_MANIFEST)})
    answer = client.push(repository, "all", made)
    assert (answer.status, codes(answer)) == (400, ["MANIFEST_BLOB_UNKNOWN"])
    assert answer.json()["errors"][0]["detail"] == NOWHERE
    there = index({"amd64": (pushed.digest, len(pushed.manifest), OCI_MANIFEST)})
    assert client.push(f"{repository}/other", "all", there).status == 400
    assert client.push(repository, "all", there).status == 201


def test_an_empty_index_is_one(client, repository):
    assert client.push(repository, "none", index({})).status == 201


def test_a_digest_that_a_manifest_does_not_have_is_refused(client, repository, pushed):
    answer = client.put_manifest(repository, NOWHERE, pushed.manifest, OCI_MANIFEST)
    assert (answer.status, codes(answer)) == (400, ["DIGEST_INVALID"])


def test_a_manifest_of_more_than_4_mib_is_refused(client, repository, pushed):
    padded = pushed.manifest[:-1].ljust(4 << 20) + b"}"
    path = f"/v2/{repository}/manifests/2"
    # The real one hangs up on who sends so much and may not: the credentials come first.
    first = client.ask("PUT", path, authorization="")
    known = client.authorization(first.headers["WWW-Authenticate"]) if first.status == 401 else None
    answer = client.ask("PUT", path, padded, kind=OCI_MANIFEST, authorization=known)
    assert (answer.status, codes(answer)) == (400, ["MANIFEST_INVALID"])


def test_a_deleted_manifest_takes_its_tags_along(client, repository, pushed):
    client.put_manifest(repository, "2", pushed.manifest, OCI_MANIFEST)
    kept = image([{"/kept": b""}])
    client.push(repository, "kept", kept)
    assert client.ask("DELETE", f"/v2/{repository}/manifests/{pushed.digest}").status == 202
    for reference in ("1", "2", pushed.digest):
        assert client.manifest(repository, reference).status == 404
    assert client.ask("GET", f"/v2/{repository}/tags/list").json()["tags"] == ["kept"]
    again = client.ask("DELETE", f"/v2/{repository}/manifests/{pushed.digest}")
    assert (again.status, codes(again)) == (404, ["MANIFEST_UNKNOWN"])


def test_a_tag_alone_is_deleted_by_the_embedded_registry_alone(registry, client, repository, pushed):
    answer = client.ask("DELETE", f"/v2/{repository}/manifests/1")
    if registry.embedded:
        assert answer.status == 202
        assert client.manifest(repository, "1").status == 404
    else:
        assert (answer.status, codes(answer)) == (400, ["DIGEST_INVALID"])
    assert client.manifest(repository, pushed.digest).status == 200


def test_tags_are_listed(registry, client, repository, pushed):
    for tag in ("b", "a", "c"):
        client.put_manifest(repository, tag, pushed.manifest, OCI_MANIFEST)
    answer = client.ask("GET", f"/v2/{repository}/tags/list")
    assert (answer.status, answer.json()["name"]) == (200, repository)
    assert sorted(answer.json()["tags"]) == ["1", "a", "b", "c"]


def test_a_repository_without_tags_is_not_known_and_one_that_had_some_lists_none(client, repository):
    made = image([FILES])
    client.push(repository, made.digest, made)
    answer = client.ask("GET", f"/v2/{repository}/tags/list")
    assert (answer.status, codes(answer)) == (404, ["NAME_UNKNOWN"])
    client.put_manifest(repository, "1", made.manifest, OCI_MANIFEST)
    client.ask("DELETE", f"/v2/{repository}/manifests/{made.digest}")
    assert client.ask("GET", f"/v2/{repository}/tags/list").json() == {"name": repository, "tags": None}


def test_tags_come_in_pages_from_the_embedded_registry_alone(registry, client, repository, pushed):
    for tag in ("b", "a", "c"):
        client.put_manifest(repository, tag, pushed.manifest, OCI_MANIFEST)
    answer = client.ask("GET", f"/v2/{repository}/tags/list?n=3")
    if registry.embedded:
        assert answer.json()["tags"] == ["1", "a", "b"]
        after = answer.headers["Link"].removeprefix("<").removesuffix('>; rel="next"')
        rest = client.ask("GET", after)
        assert (rest.json()["tags"], "Link" in rest.headers) == (["c"], False)
    else:
        assert (len(answer.json()["tags"]), "Link" in answer.headers) == (4, False)


def test_there_are_no_referrers(client, repository, pushed):
    assert client.ask("GET", f"/v2/{repository}/referrers/{pushed.digest}").status == 404


def test_a_manifest_may_refer_to_what_is_not_there(client, repository, pushed):
    subject = {"mediaType": OCI_MANIFEST, "digest": NOWHERE, "size": 1}
    body = json.dumps({**json.loads(pushed.manifest), "subject": subject}).encode()
    answer = client.put_manifest(repository, "signature", body, OCI_MANIFEST)
    assert (answer.status, "OCI-Subject" in answer.headers) == (201, False)
