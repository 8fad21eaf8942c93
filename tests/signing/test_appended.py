"""What is appended to modules: found, as often as it is there, and never longer than the file."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing.golden import golden

from kmm.signing import appended
from kmm.signing.errors import SignatureError

MAGIC = b"~Module signature appended~\n"


def header(size, *, algorithm=0, hashed=0, kind=2, signer=0, key_id=0, padding=bytes(3)):
    return struct.pack(">BBBBB3sI", algorithm, hashed, kind, signer, key_id, padding, size) + MAGIC


def test_what_is_appended_ends_as_sign_file_ends_it():
    assert appended.encode(b"x" * 700) == b"x" * 700 + header(700)
    real = golden("self-sha256.signature")
    assert appended.encode(real[:-40]) == real


def test_signatures_are_found_the_last_one_first():
    whole = b"module" + appended.encode(b"first") + appended.encode(b"second")
    end, found = appended.split(whole)
    assert (end, [each.body for each in found]) == (6, [b"second", b"first"])
    end, found = appended.split(whole, 1)
    assert whole[:end] == b"module" + appended.encode(b"first")
    assert [each.body for each in found] == [b"second"]
    assert appended.split(b"module") == (6, ())
    assert appended.split(b"") == (0, ())


def test_the_kind_of_kernels_before_4_3_is_read():
    _, (found,) = appended.split(
        b"module" + b"Acme\1\2\3" + b"raw" + header(3, algorithm=1, hashed=4, kind=1, signer=4, key_id=3)
    )
    assert (found.kind, found.signer, found.key_id, found.body) == (appended.X509, b"Acme", b"\1\2\3", b"raw")
    assert (found.hash_name, found.regular) == ("sha256", False)


@pytest.mark.parametrize(
    "odd", [{"algorithm": 1}, {"hashed": 4}, {"signer": 1}, {"key_id": 1}, {"padding": b"\0\0\1"}]
)
def test_what_kernels_want_to_be_zero_is_looked_at(odd):
    _, (found,) = appended.split(b"module" + b"raw" + header(3, **odd))
    assert not found.regular
    assert appended.split(b"module" + b"raw" + header(3))[1][0].regular


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        (MAGIC, "breaks off"),
        (b"short" + MAGIC, "breaks off"),
        (header(1), "longer than"),
        (b"raw" + header(4), "longer than"),
        (b"raw" + header(0xFFFFFFFF), "longer than"),
        (b"raw" + header(2, signer=255, key_id=255), "longer than"),
    ],
)
def test_a_signature_that_is_longer_than_what_it_is_in_is_refused(tail, said):
    with pytest.raises(SignatureError, match=said):
        appended.split(tail)


@given(st.binary(max_size=200), st.lists(st.binary(max_size=50), max_size=5))
def test_what_was_appended_is_found_again(module, bodies):
    whole = module + b"." + b"".join(map(appended.encode, bodies))
    end, found = appended.split(whole)
    assert whole[:end] == module + b"."
    assert [each.body for each in found] == bodies[::-1]


@given(st.binary(max_size=100), st.binary(min_size=12, max_size=12))
def test_no_end_of_a_file_raises_anything_but_its_error(module, noise):
    try:
        end, found = appended.split(module + noise + MAGIC)
    except SignatureError:
        return
    assert found
    assert 0 <= end <= len(module)
