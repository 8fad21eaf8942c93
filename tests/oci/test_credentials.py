from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.contract import Credential
from kmm.oci import credentials
from kmm.oci.credentials import CredentialsError, matching, read_cfg, read_config, read_secret
from kmm.oci.reference import parse

SHA = "sha256:" + "0123456789abcdef" * 4


def auth(text):
    return base64.b64encode(text.encode()).decode()


def config(**auths):
    return json.dumps({"auths": auths}).encode()


def names(image, *patterns):
    """Return which of `patterns` fit, in the order to try them: each has its own pattern as user name."""
    entries = read_config(
        config(**{each: {"username": f"u {each}".replace(":", "_"), "password": "p"} for each in patterns})
    )
    return [each.username[2:] for each in matching(entries, parse(image))]


@pytest.mark.parametrize(
    ("image", "patterns", "expected"),
    [
        ("quay.io/a/b:1", ["quay.io"], ["quay.io"]),
        (f"quay.io/a/b@{SHA}", ["quay.io/a/b"], ["quay.io/a/b"]),
        (
            "quay.io/a/b",
            ["quay.io", "quay.io/a", "quay.io/a/b", "quay.io/c"],
            ["quay.io/a/b", "quay.io/a", "quay.io"],
        ),
        ("quay.io/a", ["quay.io:443"], []),
        ("r.example.com:5000/a", ["r.example.com", "r.example.com:5000"], ["r.example.com_5000"]),
        ("r.example.com/a", ["*.example.com", "r.example.com"], ["r.example.com", "*.example.com"]),
        (
            "r.example.com/a",
            ["*.com", "*.*.*", "r.*.com", "?.example.com"],
            ["r.*.com", "*.*.*"],
        ),
        ("r.example.com:5000/a", ["*.example.com:5000", "*.example.com"], ["*.example.com_5000"]),
        ("quay.io/a", ["https://quay.io", "http://quay.io/v2/"], ["http_//quay.io/v2/", "https_//quay.io"]),
        ("quay.io/a", ["quay.io/v1/"], ["quay.io/v1/"]),
        ("[fd00::1]:5000/a", ["[fd00::1]:5000"], ["[fd00__1]_5000"]),
        ("nginx", ["https://index.docker.io/v1/"], ["https_//index.docker.io/v1/"]),
        ("a/b:1", ["docker.io", "https://index.docker.io/v1/"], ["docker.io"]),
        ("docker.io/a/b", ["docker.io/a"], ["docker.io/a"]),
        ("index.docker.io/a/b", ["https://index.docker.io/v1/"], ["https_//index.docker.io/v1/"]),
        ("nginx", ["docker.io/library"], ["docker.io/library"]),
        ("quay.io/a", ["https://index.docker.io/v1/", "", "quay", "*"], []),
    ],
)
def test_credentials_fit_and_are_ordered_as_kubernetes_has_it(image, patterns, expected):
    # http:// and https:// of one host are one pattern there: those keep the order given.
    assert sorted(names(image, *patterns)) == sorted(expected)
    if not any("//" in each for each in expected):
        assert names(image, *patterns) == expected


def test_several_secrets_are_tried_one_after_the_other_without_repeats():
    first = read_config(config(**{"quay.io": {"auth": auth("a:1")}}))
    second = read_cfg(json.dumps({"quay.io": {"auth": auth("b:2")}, "quay.io/x": {"auth": auth("a:1")}}).encode())
    found = matching((*first, *second), parse("quay.io/x/y"))
    assert found == (Credential(username="a", password="1"), Credential(username="b", password="2"))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": auth("u:p")}, Credential(username="u", password="p")),
        ({"auth": auth("u:p:q\0")}, Credential(username="u", password="p:q")),
        ({"auth": auth("u:pp").rstrip("=")}, Credential(username="u", password="pp")),
        ({"auth": auth("ü:ö")}, Credential(username="ü", password="ö")),
        ({"username": "u", "password": "p", "email": "e"}, Credential(username="u", password="p")),
        ({"username": "x", "password": "y", "auth": auth("u:p")}, Credential(username="u", password="p")),
        ({"auth": auth("u:"), "identitytoken": "i"}, Credential(username="u", token="i")),
        ({"identitytoken": "i"}, Credential(username="<token>", token="i")),
        ({"registrytoken": "r"}, Credential(token="r")),
        ({"auth": "!"}, None),
        ({"auth": auth("u")}, None),
        ({"auth": base64.b64encode(b"\xff:\xff").decode()}, None),
        ({"auth": 7}, None),
        ({"username": "u:v", "password": "p"}, None),
        ({"registrytoken": "a\r\nb"}, None),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_entries_are_read_in_every_form_and_bad_ones_are_left_out(entry, expected):
    entries = read_config(config(**{"quay.io": entry, "r.example.com": {"auth": auth("good:p")}}))
    assert matching(entries, parse("quay.io/a")) == ((expected,) if expected else ())
    assert len(matching(entries, parse("r.example.com/a"))) == 1


def test_patterns_that_are_none_are_left_out():
    bad = ["", "https://", "user@quay.io", "quay.io:port", "[", "a" * 600, "quay.io:99999"]
    assert read_config(config(**{each: {"auth": auth("u:p")} for each in bad})) == ()


@pytest.mark.parametrize("kind", credentials.SECRET_KEYS)
def test_a_secret_of_either_type_is_read(kind):
    auths = {"quay.io": {"auth": auth("u:p")}}
    body = {"auths": auths} if kind == credentials.DOCKER_CONFIG_JSON else auths
    entries = read_secret(kind, {credentials.SECRET_KEYS[kind]: json.dumps(body).encode()})
    assert [each.pattern for each in entries] == ["quay.io"]
    with pytest.raises(CredentialsError, match='lacks the key "'):
        read_secret(kind, {"secret": b""})


def test_a_secret_of_another_type_is_refused():
    with pytest.raises(CredentialsError, match="is no Secret of type"):
        read_secret("Opaque", {".dockerconfigjson": b"{}"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"s3cret",
        b'"s3cret"',
        b'{"auths": "s3cret"}',
        b'["s3cret"]',
        b"\xffs3cret",
        b"[" * 100_000,
        b" " * 3_000_000,
        json.dumps({"auths": {f"h{n}": {} for n in range(10_001)}}).encode(),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_an_error_that_repeats_nothing_of_it(data):
    with pytest.raises(CredentialsError) as raised:
        read_config(data)
    assert "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_what_is_read_does_not_show_its_secrets():
    entries = read_config(config(a={"auth": auth("u:s3cret")}, b={"registrytoken": "s3cret"}))
    assert len(entries) == 2
    assert "s3cret" not in repr(entries)


def test_empty_files_hold_no_credentials():
    assert read_config(b"{}") == read_config(b'{"auths": null}') == read_cfg(b"{}") == ()


@pytest.mark.parametrize("pattern", ["*" * 500, "[" * 500, "*?" * 250, "a*" * 250, "." * 500])
def test_hostile_patterns_take_no_time(pattern):
    entries = read_config(config(**{pattern: {"auth": auth("u:p")}}))
    matching(entries, parse("a" * 200 + ".example.com/a"))


@given(st.dictionaries(st.text("*.a:/[]?@é %", max_size=12), st.just({"auth": auth("u:p")}), max_size=3))
def test_no_pattern_raises(auths):
    matching(read_config(config(**auths)), parse("a.a:1/a"))
