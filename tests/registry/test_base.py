"""What every answer has, and paths that are none."""

from __future__ import annotations

import pytest


def test_the_base_says_which_protocol_it_is(client):
    answer = client.ask("GET", "/v2/")
    assert (answer.status, answer.data) == (200, b"{}")
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert answer.headers["Content-Type"].startswith("application/json")


def test_the_base_without_its_slash_is_elsewhere(client):
    answer = client.ask("GET", "/v2")
    assert (answer.status, answer.headers["Location"]) == (301, "/v2/")


@pytest.mark.parametrize(
    "path", ["/v2/team/driver", "/v2/Team/manifests/1", "/v2/team/manifests/-1", "/v2/te..am/blobs/x", "/elsewhere"]
)
def test_what_is_no_path_of_the_protocol_is_plainly_not_found(client, path):
    answer = client.ask("GET", path)
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "manifests/1", "DELETE, GET, HEAD, PUT"),
        ("PUT", f"blobs/sha256:{'0' * 64}", "DELETE, GET, HEAD"),
        ("DELETE", "tags/list", "GET"),
    ],
)
def test_a_method_that_is_not_allowed_is_told_which_are(registry, client, repository, method, path, allowed):
    answer = client.ask(method, f"/v2/{repository}/{path}")
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("manifests/1", "MANIFEST_UNKNOWN"),
        (f"manifests/sha256:{'0' * 64}", "MANIFEST_UNKNOWN"),
        (f"blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
        ("tags/list", "NAME_UNKNOWN"),
    ],
)
def test_an_error_says_its_code_and_a_message(client, repository, path, code):
    answer = client.ask("GET", f"/v2/{repository}/{path}")
    (error,) = answer.json()["errors"]
    assert (answer.status, error["code"]) == (404, code)
    assert error["message"]


def test_head_of_what_is_not_there_has_no_body(client, repository):
    for path in ("manifests/1", f"blobs/sha256:{'0' * 64}"):
        answer = client.ask("HEAD", f"/v2/{repository}/{path}")
        assert (answer.status, answer.data) == (404, b"")
