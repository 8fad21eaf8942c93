"""Who may do what: Basic and Bearer, challenges, scopes, certificates."""

from __future__ import annotations

import re

import pytest
import urllib3
from registry.client import Client, codes, parameters
from registry.running import READER, ROBOT, params

from kmm.embedded.image import digest_of

ASKS = pytest.mark.parametrize("registry", params("basic", "bearer"), indirect=True)
BEARER = pytest.mark.parametrize("registry", params("bearer"), indirect=True)


def scope(challenge: str) -> dict[str, set[str]]:
    """Read the scopes of a challenge, whatever their order."""
    found = {}
    for each in parameters(challenge).get("scope", "").split():
        _, name, actions = each.split(":")
        found[name] = set(actions.split(","))
    return found


def token(client: Client, challenge: str, *scopes: str) -> str:
    """Return a token for these scopes."""
    return client.authorization(re.sub(r'scope="[^"]*"', "", challenge) + f',scope="{" ".join(scopes)}"')


@ASKS
def test_nobody_is_challenged_everywhere(registry, repository):
    client = registry.client()
    for method, path in (
        ("GET", ""),
        ("HEAD", f"{repository}/manifests/1"),
        ("POST", f"{repository}/blobs/uploads/"),
    ):
        answer = client.ask(method, f"/v2/{path}", authorization="")
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].split()[0].lower() == registry.mode
        if method != "HEAD":
            assert codes(answer) == ["UNAUTHORIZED"]


@ASKS
@pytest.mark.parametrize("user", [ROBOT, "nobody-known"])
def test_wrong_credentials_are_refused(registry, user):
    assert registry.client(user, "wrong").ask("GET", "/v2/").status == 401


@ASKS
@pytest.mark.parametrize("said", ["Basic", "Basic !", "Basic bm9ib2R5", "Bearer", "Bearer x", "Banana x"])
def test_credentials_that_are_none_are_refused(registry, said):
    answer = registry.client().ask("GET", "/v2/", authorization=said)
    assert answer.status == 401
    told = registry.mode == "bearer" and said == "Bearer x"
    assert parameters(answer.headers["WWW-Authenticate"]).get("error") == ("invalid_token" if told else None)


@ASKS
def test_the_right_credentials_do(registry):
    assert registry.client().ask("GET", "/v2/").status == 200


@BEARER
@pytest.mark.parametrize(
    ("method", "path", "actions"),
    [
        ("GET", "manifests/1", {"pull"}),
        ("HEAD", "manifests/1", {"pull"}),
        ("PUT", "manifests/1", {"pull", "push"}),
        ("POST", "blobs/uploads/", {"pull", "push"}),
        ("PATCH", "blobs/uploads/x", {"pull", "push"}),
        ("DELETE", "manifests/1", {"delete"}),
        ("DELETE", "blobs/uploads/x", {"delete"}),  # to cancel is to delete
        ("GET", "tags/list", {"pull"}),
    ],
)
def test_a_challenge_says_what_is_needed(registry, repository, method, path, actions):
    answer = registry.client().ask(method, f"/v2/{repository}/{path}", authorization="")
    challenge = answer.headers["WWW-Authenticate"]
    assert scope(challenge) == {repository: actions}
    assert parameters(challenge)["realm"].startswith("https://")
    assert parameters(challenge)["service"]
    assert "error" not in parameters(challenge)


@BEARER
def test_a_mount_needs_to_pull_from_the_source(registry, repository):
    client = registry.client()
    client.upload(repository, b"x", digest_of(b"x"))
    to = f"{repository}/other"
    path = f"/v2/{to}/blobs/uploads/?mount={digest_of(b'x')}&from={repository}"
    challenge = client.ask("POST", path, authorization="").headers["WWW-Authenticate"]
    assert scope(challenge) == {to: {"pull", "push"}, repository: {"pull"}}
    narrow = token(client, challenge, f"repository:{to}:pull,push")
    answer = client.ask("POST", path, authorization=narrow)
    assert answer.status == 401, "not even a session"
    both = token(client, challenge, f"repository:{to}:pull,push", f"repository:{repository}:pull")
    assert client.ask("POST", path, authorization=both).status == 201


@BEARER
def test_a_token_is_for_its_scope_alone(registry, repository):
    client = registry.client()
    registry.push_image(f"{repository}:1", {"/x": b"x"})
    challenge = client.ask("GET", "/v2/", authorization="").headers["WWW-Authenticate"]
    pull = token(client, challenge, f"repository:{repository}:pull")
    assert client.ask("GET", f"/v2/{repository}/tags/list", authorization=pull).status == 200
    for method, path, needed in (
        ("POST", f"{repository}/blobs/uploads/", {repository: {"pull", "push"}}),
        ("DELETE", f"{repository}/manifests/{digest_of(b'')}", {repository: {"delete"}}),
        ("GET", f"{repository}/other/tags/list", {f"{repository}/other": {"pull"}}),
    ):
        answer = client.ask(method, f"/v2/{path}", authorization=pull)
        assert (answer.status, codes(answer)) == (401, ["UNAUTHORIZED"])
        said = answer.headers["WWW-Authenticate"]
        assert (scope(said), parameters(said)["error"]) == (needed, "insufficient_scope")


@BEARER
def test_a_token_without_a_scope_opens_the_base_alone(registry, repository):
    client = registry.client()
    challenge = client.ask("GET", "/v2/", authorization="").headers["WWW-Authenticate"]
    assert scope(challenge) == {}
    plain = token(client, challenge)
    assert client.ask("GET", "/v2/", authorization=plain).status == 200
    assert client.ask("GET", f"/v2/{repository}/tags/list", authorization=plain).status == 401


@BEARER
def test_a_token_gives_what_its_user_may(registry, repository):
    registry.push_image(f"{repository}:1", {"/x": b"x"})
    reader = registry.client(READER)
    assert reader.ask("GET", f"/v2/{repository}/tags/list").status == 200
    answer = reader.ask("POST", f"/v2/{repository}/blobs/uploads/")
    assert (answer.status, parameters(answer.headers["WWW-Authenticate"])["error"]) == (401, "insufficient_scope")


@BEARER
def test_an_anonymous_token_may_nothing_where_nothing_is_public(registry, repository):
    nobody = registry.client("")
    answer = nobody.ask("GET", f"/v2/{repository}/tags/list")
    assert (answer.status, parameters(answer.headers["WWW-Authenticate"])["error"]) == (401, "insufficient_scope")


@BEARER
def test_a_token_that_is_over_is_refused(registry, repository):
    old = registry.stale(f"repository:{repository}:pull")
    answer = registry.client().ask("GET", f"/v2/{repository}/tags/list", authorization=old)
    assert (answer.status, codes(answer)) == (401, ["UNAUTHORIZED"])
    assert parameters(answer.headers["WWW-Authenticate"])["error"] == "invalid_token"


@pytest.mark.parametrize("registry", params("tls", "bearer"), indirect=True)
def test_a_certificate_of_an_own_authority_is_not_trusted_by_all(registry):
    with pytest.raises(urllib3.exceptions.SSLError):
        urllib3.PoolManager().request("GET", f"{registry.url}/v2/", retries=False)
