from __future__ import annotations

import json
import time

import pytest
from oci.served import USER, WRONG

from kmm.contract import Credential, Forbidden, Unavailable
from kmm.embedded.registry_fault import RegistryFault, Trouble
from kmm.oci.connection import Deadline
from kmm.oci.credentials import matching, read_config
from kmm.oci.token import Refused, Tokens

FILES = {"/opt/x.ko": b"driver"}


def tokens_fetched(served):
    return sum(entry.kind == "token" for entry in served.registry.log)


@pytest.fixture
def bearer(serve):
    served = serve(auth="bearer", public=["open"])
    served.registry.push_image("a:1", FILES)
    return served


def test_a_token_is_fetched_for_each_set_of_scopes_and_each_credential(bearer):
    bearer.registry.push_image("b:1", FILES)
    for _ in range(2):
        client = bearer.client(USER)
        client.resolve(bearer.reference("a:1"))
        client.resolve(bearer.reference("b:1"))
        client.upload("a", b"content")
    assert tokens_fetched(bearer) == 3
    bearer.client(Credential(username="user", password="s3cret", token="")).resolve(bearer.reference("a:1"))
    assert tokens_fetched(bearer) == 3
    with pytest.raises(Forbidden):
        bearer.client(WRONG).resolve(bearer.reference("a:1"))
    assert tokens_fetched(bearer) > 3


def test_pulling_asks_for_no_more_than_pulling(bearer):
    client = bearer.client(USER)
    client.resolve(bearer.reference("a:1"))
    client.upload("b", b"content")
    client.mount("a", "b", client.manifest(bearer.reference("a:1")).manifest.config.digest)
    scopes = [entry.scopes for entry in bearer.registry.log if entry.kind == "token"]
    assert [sorted(each) for each in scopes] == [
        ["repository:a:pull"],
        ["repository:b:pull,push"],
        ["repository:a:pull", "repository:b:pull,push"],
    ]


def test_a_token_that_the_registry_takes_no_more_is_fetched_anew(bearer):
    bearer.client(USER).resolve(bearer.reference("a:1"))
    bearer.registry.expire_tokens()
    assert bearer.client(USER).resolve(bearer.reference("a:1"))
    assert tokens_fetched(bearer) == 2


def test_an_identity_token_is_exchanged(bearer):
    identity = bearer.registry.identity_token("user")
    entries = read_config(bearer.registry.docker_config("user", identity=identity).encode())
    credentials = matching(entries, bearer.reference("a:1"))
    assert bearer.client(*credentials).resolve(bearer.reference("a:1"))
    assert [entry.method for entry in bearer.registry.log if entry.kind == "token"] == ["POST"]
    wrong = Credential(username="user", token="no-such-token")
    with pytest.raises(Forbidden, match="with 1 credential and anonymously"):
        bearer.client(wrong).resolve(bearer.reference("a:1"))


def test_a_bearer_token_of_its_own_is_shown_as_it_is(bearer):
    bearer.client(USER).resolve(bearer.reference("a:1"))
    (token,) = bearer.session.tokens._cache.values()
    assert bearer.client(Credential(token=token.text)).resolve(bearer.reference("a:1"))
    assert tokens_fetched(bearer) == 1


def test_tokens_learnt_under_one_trust_are_not_used_under_another(bearer):
    bearer.client(USER).resolve(bearer.reference("a:1"))
    more = bearer.registry.ca_pem + bearer.registry.ca_pem
    bearer.client(USER, ca_pem=more).resolve(bearer.reference("a:1"))
    assert tokens_fetched(bearer) == 2


def test_no_credential_goes_to_a_token_service_that_is_not_https(serve):
    served, plain = serve(auth="bearer"), serve(auth="bearer", tls=False)
    served.registry.realm = plain.registry.realm
    with pytest.raises(Unavailable, match="names it as its token service, but it is not HTTPS"):
        served.client(USER).resolve(served.reference("a:1"))
    assert plain.registry.log == []


@pytest.mark.parametrize(
    "realm", ["nonsense", "file:///etc/passwd", "https://user:p@x/", "https://a b/", "https:///"]
)
def test_a_token_service_without_a_usable_address_is_told_of(serve, realm):
    served = serve(auth="bearer")
    served.registry.realm = realm
    with pytest.raises(Unavailable, match="has no usable address"):
        served.client(USER).resolve(served.reference("a:1"))


@pytest.mark.parametrize(
    ("kind", "filters", "said"),
    [
        (Trouble.REFUSE, {"code": 503, "retry_after_s": 9}, "answered 503 instead of a token"),
        (Trouble.PAGE, {"code": 404}, "answered 404 instead of a token"),
        (Trouble.TRUNCATE, {"after_bytes": 5}, "no token"),
        (Trouble.CUT, {"after_bytes": 5}, "broke off the connection"),
        (Trouble.FLOOD, {}, "answered with more than 256 KiB"),
        (Trouble.HANG, {}, "did not answer in 1 s"),
        (Trouble.DRIP, {"delay_s": 1}, "did not answer in 1 s"),
    ],
)
def test_a_token_service_that_fails_says_nothing_of_the_image(bearer, kind, filters, said):
    bearer.registry.faults.add(RegistryFault(kind=kind, on=("token",), times=None, **filters))
    slow = kind in (Trouble.HANG, Trouble.DRIP)
    with pytest.raises(Unavailable) as raised:
        bearer.client(USER, deadline_s=1 if slow else 30).resolve(bearer.reference("a:1"))
    assert said in str(raised.value)
    assert raised.value.retry_after_s == filters.get("retry_after_s")


def test_tokens_are_kept_until_shortly_before_they_expire(serve):
    served = serve(auth="bearer", token_s=100)
    now = [1000.0]
    tokens = Tokens(served.session.connections, now=lambda: now[0])
    found = served.client(USER)._registry._asked(frozenset(), Deadline(30))

    def get():
        return tokens.get(found, ["repository:a:pull"], USER, served.access(), Deadline(30))

    assert not get().kept
    now[0] += 74
    assert get().kept
    now[0] += 2
    assert not get().kept
    assert tokens_fetched(served) == 2


@pytest.mark.parametrize(
    ("body", "lasts"),
    [
        ({"token": "t"}, 45),
        ({"access_token": "t"}, 45),
        ({"token": "t", "expires_in": 3600}, 3570),
        ({"token": "t", "expires_in": 20}, 15),
        ({"token": "t", "expires_in": -5}, 45),
        ({"token": "t", "expires_in": "x"}, 45),
        ({"token": "t", "expires_in": 10**30}, 86370),
        ({"token": "a\r\nb"}, None),
        ({"token": ""}, None),
        ({"token": 7}, None),
        ({}, None),
        ([], None),
    ],
)
def test_what_a_token_service_answers_is_read_with_care(body, lasts):
    class Said:
        def whole(self, most):
            return json.dumps(body).encode()

    from kmm.oci.token import _read  # noqa: PLC0415

    if lasts is None:
        with pytest.raises(Unavailable, match="something that is no token"):
            _read(Said(), "a", 0.0)
    else:
        assert _read(Said(), "a", 0.0).until == lasts


def test_no_secret_is_kept_in_the_keys_of_the_cache(bearer):
    bearer.client(USER).resolve(bearer.reference("a:1"))
    tokens = bearer.session.tokens
    assert "s3cret" not in repr(tokens._cache)
    assert all("s3cret" not in repr(key) for key in tokens._cache)
    assert Tokens(bearer.session.connections)._who(USER) != tokens._who(USER)


def test_a_refused_credential_is_not_an_answer(bearer):
    challenge = bearer.client(USER)._registry._asked(frozenset(), Deadline(30))
    began = time.monotonic()
    with pytest.raises(Refused):
        bearer.session.tokens.get(challenge, ["repository:a:pull"], WRONG, bearer.access(), Deadline(30))
    assert time.monotonic() - began < 30
