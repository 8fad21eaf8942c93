"""Uploads: sessions, chunks, what breaks them."""

from __future__ import annotations

import pytest
from registry.client import codes, with_query

from kmm.embedded.image import digest_of

CONTENT = b"0123456789" * 10
DIGEST = digest_of(CONTENT)


@pytest.fixture
def location(client, repository):
    """The Location of a session."""
    answer = client.ask("POST", f"/v2/{repository}/blobs/uploads/")
    assert (answer.status, answer.headers["Range"]) == (202, "0-0")
    assert answer.headers["Docker-Upload-Uuid"] in answer.headers["Location"]
    return answer.headers["Location"]


def test_a_blob_is_pushed_in_a_session(client, repository, location):
    answer = client.ask("PUT", with_query(location, digest=DIGEST), CONTENT)
    assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, DIGEST)
    assert answer.headers["Location"] == f"{client.url}/v2/{repository}/blobs/{DIGEST}"
    assert client.ask("GET", answer.headers["Location"]).data == CONTENT
    assert client.ask("GET", location).status == 404, "the session is over"


def test_an_empty_blob_is_one(client, repository):
    empty = digest_of(b"")
    assert client.upload(repository, b"", empty).status == 201
    assert client.ask("GET", f"/v2/{repository}/blobs/{empty}").data == b""


def test_a_blob_is_pushed_in_chunks(client, repository, location):
    first = client.ask("PATCH", location, CONTENT[:40], headers={"Content-Range": "0-39"})
    assert (first.status, first.headers["Range"]) == (202, "0-39")
    how_far = client.ask("GET", first.headers["Location"])
    assert (how_far.status, how_far.headers["Range"]) == (204, "0-39")
    second = client.ask("PATCH", how_far.headers["Location"], CONTENT[40:60], headers={"Content-Range": "40-59"})
    assert (second.status, second.headers["Range"]) == (202, "0-59")
    last = client.ask("PUT", with_query(second.headers["Location"], digest=DIGEST), CONTENT[60:])
    assert last.status == 201
    assert client.ask("GET", f"/v2/{repository}/blobs/{DIGEST}").data == CONTENT


def test_chunks_may_be_all_and_the_end_be_empty(client, location):
    all_of_it = client.ask("PATCH", location, CONTENT, kind="application/octet-stream")
    assert client.ask("PUT", with_query(all_of_it.headers["Location"], digest=DIGEST)).status == 201


def test_an_old_location_is_refused(client, location):
    client.ask("PATCH", location, CONTENT[:40])
    for method in ("PATCH", "PUT"):
        answer = client.ask(method, with_query(location, digest=DIGEST), CONTENT[40:])
        assert (answer.status, codes(answer)) == (404, ["BLOB_UPLOAD_INVALID"])


def test_a_gap_between_chunks_is_seen_by_the_embedded_registry_alone(registry, client, location):
    first = client.ask("PATCH", location, CONTENT[:40], headers={"Content-Range": "0-39"})
    answer = client.ask("PATCH", first.headers["Location"], CONTENT[50:], headers={"Content-Range": "50-99"})
    if registry.embedded:
        assert (answer.status, answer.headers["Range"], codes(answer)) == (416, "0-39", ["RANGE_INVALID"])
        again = client.ask("PATCH", answer.headers["Location"], CONTENT[40:], headers={"Content-Range": "40-99"})
        assert client.ask("PUT", with_query(again.headers["Location"], digest=DIGEST)).status == 201
    else:
        assert (answer.status, answer.headers["Range"]) == (202, "0-89")


def test_a_chunk_of_another_length_than_it_says_is_refused_by_the_embedded_registry_alone(registry, client, location):
    answer = client.ask("PATCH", location, CONTENT[:40], headers={"Content-Range": "0-49"})
    assert answer.status == (400 if registry.embedded else 202)


def test_a_digest_that_is_not_that_of_the_content_is_refused_and_ends_the_session(client, repository, location):
    wrong = digest_of(b"other")
    answer = client.ask("PUT", with_query(location, digest=wrong), CONTENT)
    assert (answer.status, codes(answer)) == (400, ["DIGEST_INVALID"])
    assert client.ask("GET", f"/v2/{repository}/blobs/{wrong}").status == 404
    assert client.ask("GET", f"/v2/{repository}/blobs/{DIGEST}").status == 404
    assert client.ask("PUT", with_query(location, digest=DIGEST), CONTENT).status == 404


@pytest.mark.parametrize("digest", ["", "banana", "sha256:short"])
def test_a_digest_that_is_none_is_refused(client, location, digest):
    answer = client.ask("PUT", with_query(location, digest=digest), CONTENT)
    assert (answer.status, codes(answer)) == (400, ["DIGEST_INVALID"])
    assert client.ask("PUT", with_query(location, digest=DIGEST), CONTENT).status == 201, "the session goes on"


def test_a_cancelled_session_is_gone(client, location):
    assert client.ask("DELETE", location).status == 204
    for method in ("DELETE", "GET", "PATCH", "PUT"):
        answer = client.ask(method, with_query(location, digest=DIGEST), b"" if method[0] == "P" else None)
        assert (answer.status, codes(answer)) == (404, ["BLOB_UPLOAD_UNKNOWN"])


def test_a_session_without_its_location_is_refused(client, location):
    answer = client.ask("PATCH", location.partition("?")[0], CONTENT)
    assert (answer.status, codes(answer)) == (404, ["BLOB_UPLOAD_INVALID"])


def test_a_chunk_is_bytes_and_nothing_else(registry, client, location):
    answer = client.ask("PATCH", location, CONTENT, kind="text/plain")
    # The real one means the same, and says that it is its own fault.
    assert answer.status == (400 if registry.embedded else 500)


def test_a_blob_in_one_request_is_stored_by_the_embedded_registry_alone(registry, client, repository):
    answer = client.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={DIGEST}", CONTENT)
    if registry.embedded:
        assert (answer.status, answer.headers["Docker-Content-Digest"]) == (201, DIGEST)
    else:
        assert (answer.status, answer.headers["Range"]) == (202, "0-0")
        answer = client.ask("PUT", with_query(answer.headers["Location"], digest=DIGEST), CONTENT)
        assert answer.status == 201
    assert client.ask("GET", f"/v2/{repository}/blobs/{DIGEST}").data == CONTENT


def test_what_is_no_session_cannot_be_asked(client, repository):
    answer = client.ask("GET", f"/v2/{repository}/blobs/uploads/")
    assert (answer.status, codes(answer)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
