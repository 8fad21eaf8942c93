"""Blobs: whole, in parts, mounted, deleted."""

from __future__ import annotations

import pytest
import urllib3
from registry.client import codes

from kmm.embedded.image import digest_of

CONTENT = bytes(range(256)) * 4
DIGEST = digest_of(CONTENT)


@pytest.fixture
def blob(client, repository):
    """The path of a blob that is there."""
    assert client.upload(repository, CONTENT, DIGEST).status == 201
    return f"/v2/{repository}/blobs/{DIGEST}"


def test_a_blob_is_answered_as_it_was_pushed(client, blob):
    got, head = client.ask("GET", blob), client.ask("HEAD", blob)
    assert (got.status, got.data, head.status, head.data) == (200, CONTENT, 200, b"")
    for answer in (got, head):
        assert answer.headers["Content-Length"] == str(len(CONTENT))
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Docker-Content-Digest"] == DIGEST
        assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    ("said", "part", "answered"),
    [
        ("bytes=10-19", slice(10, 20), "bytes 10-19/1024"),
        ("bytes=0-0", slice(0, 1), "bytes 0-0/1024"),
        ("bytes=1000-", slice(1000, None), "bytes 1000-1023/1024"),
        ("bytes=-24", slice(1000, None), "bytes 1000-1023/1024"),
        ("bytes=1000-5000", slice(1000, None), "bytes 1000-1023/1024"),
        ("bytes=-5000", slice(None), "bytes 0-1023/1024"),
    ],
)
def test_a_part_of_a_blob(client, blob, said, part, answered):
    answer = client.ask("GET", blob, headers={"Range": said})
    assert (answer.status, answer.data) == (206, CONTENT[part])
    assert answer.headers["Content-Range"] == answered


@pytest.mark.parametrize("said", ["bytes=1024-", "bytes=20-10", "bytes=banana"])
def test_a_part_that_is_none_is_refused_and_the_real_registry_does_not_say_it_well(registry, client, blob, said):
    if registry.embedded:
        answer = client.ask("GET", blob, headers={"Range": said})
        assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */1024")
        assert codes(answer) == ["RANGE_INVALID"]
    else:
        # It says the length of the blob, and sends less.
        with pytest.raises(urllib3.exceptions.ProtocolError):
            client.ask("GET", blob, headers={"Range": said})


def test_several_parts_are_all_of_it_for_the_embedded_registry_alone(registry, client, blob):
    answer = client.ask("GET", blob, headers={"Range": "bytes=0-1,4-5"})
    if registry.embedded:
        assert (answer.status, answer.data) == (200, CONTENT)
    else:
        assert answer.status == 206
        assert answer.headers["Content-Type"].startswith("multipart/byteranges")


def test_a_blob_that_is_known_need_not_be_sent_again(client, blob):
    etag = client.ask("HEAD", blob).headers["Etag"]
    assert client.ask("GET", blob, headers={"If-None-Match": etag}).status == 304


def test_what_is_no_digest_is_refused(client, repository):
    answer = client.ask("GET", f"/v2/{repository}/blobs/sha256:short")
    assert (answer.status, codes(answer)) == (400, ["DIGEST_INVALID"])


def test_a_blob_belongs_to_its_repository(client, repository, blob):
    other = f"/v2/{repository}/other/blobs/{DIGEST}"
    assert client.ask("HEAD", other).status == 404


def test_a_blob_is_mounted_from_another_repository(client, repository, blob):
    to = f"{repository}/other"
    answer = client.ask("POST", f"/v2/{to}/blobs/uploads/?mount={DIGEST}&from={repository}")
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, DIGEST)
    assert answer.headers["Location"] == f"{client.url}/v2/{to}/blobs/{DIGEST}"
    assert client.ask("GET", f"/v2/{to}/blobs/{DIGEST}").data == CONTENT
    assert client.ask("DELETE", f"/v2/{to}/blobs/{DIGEST}").status == 202
    assert client.ask("GET", blob).data == CONTENT, "the first one has its own"


@pytest.mark.parametrize(
    "query",
    [
        f"mount=sha256:{'0' * 64}&from={{0}}",
        f"mount={DIGEST}&from={{0}}/nowhere",
        f"mount={DIGEST}",
        "mount=banana&from={0}",
        f"mount={DIGEST}&from=-",
    ],
)
def test_what_cannot_be_mounted_is_answered_with_a_session(client, repository, blob, query):
    answer = client.ask("POST", f"/v2/{repository}/other/blobs/uploads/?{query.format(repository)}")
    assert answer.status == 202
    assert client.ask("DELETE", answer.headers["Location"]).status == 204


def test_a_deleted_blob_is_gone(client, blob):
    assert client.ask("DELETE", blob).status == 202
    for method in ("GET", "HEAD", "DELETE"):
        assert client.ask(method, blob).status == 404
