"""Names as people read them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kmm.signing import name


def test_a_name_is_shown_whatever_it_is_encoded_with(certificates):
    assert name.shown(certificates["self"].subject) == "O=kmm tests, CN=self-signed"
    assert name.shown(certificates["issued"].issuer) == (
        "C=DE, O=Prüfstelle, OU=tests, 0.9.2342.19200300.100.1.1=kmm, CN=€ authority, emailAddress=nobody@example.com"
    )


def test_a_long_name_is_cut(certificates):
    subject = certificates["self"].subject
    long = b"\x30\x82" + (100 * (len(subject) - 2)).to_bytes(2) + subject[2:] * 100
    shown = name.shown(long)
    assert len(shown) == 400
    assert shown.endswith("…")


def test_octets_are_shown_as_modinfo_shows_them():
    assert name.serial(b"\0\x80\xf1") == "80:F1"
    assert name.serial(b"\0") == "00"
    assert name.hexadecimal(b"\0\x80") == "00:80"


@given(st.binary(max_size=300))
def test_no_name_raises(data):
    assert isinstance(name.shown(data), str)
