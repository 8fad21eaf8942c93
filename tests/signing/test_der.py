"""DER: what is written is read, and what is no DER is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.signing import der
from kmm.signing.der import INTEGER, NULL, OBJECT, OCTET_STRING, SEQUENCE, DerError, Parts


@pytest.mark.parametrize(
    ("length", "head"),
    [(0, "0400"), (127, "047f"), (128, "048180"), (255, "0481ff"), (256, "04820100"), (65536, "0483010000")],
)
def test_lengths_are_as_short_as_can_be(length, head):
    made = der.encode(OCTET_STRING, bytes(length))
    assert made == bytes.fromhex(head) + bytes(length)
    (found,) = der.elements(made)
    assert (found.tag, found.content, found.whole) == (OCTET_STRING, bytes(length), made)


@pytest.mark.parametrize(
    ("dotted", "octets"),
    [
        ("1.2.840.113549.1.7.2", "06092a864886f70d010702"),
        ("2.16.840.1.101.3.4.2.1", "0609608648016503040201"),
        ("2.5.4.3", "0603550403"),
        ("2.999.1", "0603883701"),
        ("0.9.2342.19200300.100.1.1", "060a0992268993f22c640101"),
    ],
)
def test_object_identifiers_are_written_and_read(dotted, octets):
    assert der.object_identifier(dotted) == bytes.fromhex(octets)
    assert der.dotted(bytes.fromhex(octets)[2:]) == dotted


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        ("04", "breaks off"),
        ("0405aa", "breaks off"),
        ("0480aa0000", "length that is none"),  # BER's indefinite one
        ("0485010000000000", "length that is none"),
        ("0482", "length that is none"),
        ("04810501020304", "written longer"),
        ("0482000180", "written longer"),
        ("1f8101aa", "tag that does not belong"),
    ],
)
def test_what_is_no_der_is_refused(octets, said):
    with pytest.raises(DerError, match=said):
        list(der.elements(bytes.fromhex(octets)))


@pytest.mark.parametrize("octets", ["", "80", "2a86", "81" * 65])
def test_an_object_identifier_that_is_none_is_refused(octets):
    with pytest.raises(DerError, match="object identifier"):
        der.dotted(bytes.fromhex(octets))


def test_parts_are_taken_in_their_order():
    parts = Parts.of(der.encode(SEQUENCE, der.encode(INTEGER, b"\1"), der.encode(NULL)))
    assert parts.maybe(OBJECT) is None
    assert parts.take(INTEGER).content == b"\1"
    with pytest.raises(DerError, match="lacks a part"):
        parts.take(OBJECT)
    with pytest.raises(DerError, match="more than belongs"):
        parts.end()
    assert parts.take(OBJECT, NULL).tag == NULL
    parts.end()
    with pytest.raises(DerError, match="lacks a part"):
        parts.take(NULL)


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_its_error(data):
    for read in (lambda: list(der.elements(data)), lambda: der.dotted(data), lambda: Parts.of(data)):
        try:
            read()
        except DerError:
            continue


@given(st.binary(max_size=400))
def test_what_is_read_is_what_was_there(data):
    try:
        found = list(der.elements(data))
    except DerError:
        return
    assert b"".join(each.whole for each in found) == data
    assert all(each.whole == der.encode(each.tag, each.content) for each in found)
