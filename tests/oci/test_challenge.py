from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.oci import challenge
from kmm.oci.challenge import Challenge, parse


def test_a_registrys_challenge_is_read():
    (found,) = parse(
        ['Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull,push x:y:z"']
    )
    assert found.scheme == "bearer"
    assert found.parameters["realm"] == "https://auth.example.com/token"
    assert found.scopes == ("repository:a/b:pull,push", "x:y:z")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        ([""], []),
        (["Basic"], [("basic", {})]),
        (['BASIC realm="a"'], [("basic", {"realm": "a"})]),
        (['Basic realm="a, b=\\"c\\", Bearer x=y"'], [("basic", {"realm": 'a, b="c", Bearer x=y'})]),
        (
            ['Basic realm="a", Bearer realm="b",service=c'],
            [("basic", "a"), ("bearer", {"realm": "b", "service": "c"})],
        ),
        (["Basic realm=a", "Bearer realm=b"], [("basic", "a"), ("bearer", "b")]),
        (["Negotiate, Basic realm=a"], [("negotiate", {}), ("basic", "a")]),
        (["Negotiate YWJj==, Basic realm=a"], [("negotiate", {}), ("basic", "a")]),
        (["Negotiate YWJj, Basic realm=a"], [("negotiate", {}), ("basic", "a")]),
        (["Bearer realm = a ,  , Service= b"], [("bearer", {"realm": "a", "service": "b"})]),
        (["Bearer realm=a, realm=b"], [("bearer", "a")]),
        (['Bearer realm="a'], [("bearer", {})]),
        (["=, Bearer realm=a"], []),
    ],
)
def test_challenges_are_read_as_rfc_9110_has_them(headers, expected):
    wanted = [
        Challenge(scheme=scheme, parameters={"realm": said} if isinstance(said, str) else said)
        for scheme, said in expected
    ]
    assert list(parse(headers)) == wanted


def test_what_is_beyond_the_limits_is_not_read():
    assert len(parse(["Basic realm=a, " * 1000])) == challenge.CHALLENGES_MOST
    (found,) = parse(["Bearer " + ",".join(f"k{n}=v" for n in range(1000))])
    assert len(found.parameters) == challenge.PARAMETERS_MOST
    assert parse([f"Bearer a={'b' * challenge.LENGTH_MOST}, c=d", "Basic realm=a"])[0].parameters.get("c") is None


@pytest.mark.parametrize("text", ['Bearer a="' + "\\" * 16_000, 'Bearer a="' * 1600, "a" * 16_000, "a=," * 5000])
def test_hostile_headers_take_no_time(text):
    parse([text] * 50)


@given(st.lists(st.text('Basic erarlm=",\\ \t\n\x00é', max_size=60), max_size=4))
def test_no_header_raises_and_nothing_is_beyond_the_limits(headers):
    found = parse(headers)
    assert len(found) <= challenge.CHALLENGES_MOST
    assert all(each.scheme == each.scheme.lower() for each in found)


@given(st.dictionaries(st.sampled_from(["realm", "service", "scope"]), st.text(max_size=30), min_size=1))
def test_whatever_is_quoted_is_read_as_it_was(parameters):
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in parameters.items()}
    text = "Bearer " + ", ".join(f'{name}="{value}"' for name, value in quoted.items())
    assert parse([text]) == (Challenge(scheme="bearer", parameters=parameters),)
