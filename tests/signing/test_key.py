"""Private keys: read in each form, and never told of."""

from __future__ import annotations

import hashlib
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from signing.golden import PASSPHRASE, golden

from kmm.signing import key
from kmm.signing.errors import KeyFileError, PassphraseError

DIGEST = hashlib.sha256(b"module").digest()
PLAIN = ("self.key.pem", "self.key.der", "self.key.pkcs1.pem")
ENCRYPTED = ("self.key.legacy.pem", "self.key.encrypted.der", "issued.key.pem")


def never():
    raise AssertionError("nobody needs a passphrase")


@pytest.mark.parametrize("name", PLAIN)
def test_a_key_is_read_in_each_form(name, keys):
    assert key.load(golden(name), never)(DIGEST, "sha256") == keys["self"](DIGEST, "sha256")


@pytest.mark.parametrize("name", ["self.key.legacy.pem", "self.key.encrypted.der"])
def test_an_encrypted_key_is_read_with_its_passphrase(name, keys):
    assert key.load(golden(name), lambda: PASSPHRASE)(DIGEST, "sha256") == keys["self"](DIGEST, "sha256")


def test_a_key_with_its_certificate_in_one_file_is_read(keys):
    both = golden("self.pem") + golden("self.key.pem")
    assert key.load(both)(DIGEST, "sha256") == keys["self"](DIGEST, "sha256")


@pytest.mark.parametrize("name", ENCRYPTED)
def test_a_passphrase_that_is_wrong_missing_or_empty_is_told(name):
    with pytest.raises(PassphraseError, match="the passphrase is wrong"):
        key.load(golden(name), lambda: b"s3cret-guess")
    with pytest.raises(PassphraseError, match="there is no passphrase for it"):
        key.load(golden(name))
    with pytest.raises(PassphraseError, match="is empty"):
        key.load(golden(name), lambda: b"")


def test_what_asking_for_a_passphrase_raises_reaches_the_caller():
    with pytest.raises(AssertionError, match="nobody needs"):
        key.load(golden("issued.key.pem"), never)


ED25519 = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
DES = golden("self.key.legacy.pem").replace(b"AES-256-CBC", b"DES-CBC")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no private key in PEM or DER"),
        (b"\x30\x03abc", "no private key in PEM or DER"),
        (golden("self.key.pem")[:300], "no private key in PEM or DER"),
        (golden("self.pem"), "wrong way round"),
        (golden("self.der"), "no private key in PEM or DER"),
        (bytes(2_000_000), "larger than 1024 KiB"),
        (ED25519, "neither an RSA nor an EC key"),
        (DES, "outdated cipher"),
    ],
    ids=range(8),
)
def test_what_is_no_key_is_told_what_it_is(data, said):
    with pytest.raises(KeyFileError, match=said) as told:
        key.load(data, lambda: b"s3cret-guess")
    assert not isinstance(told.value, PassphraseError)


def test_a_hash_that_does_not_fit_into_the_key_is_told(keys):
    with pytest.raises(KeyFileError, match="cannot sign with sha512"):
        keys["self"](b"too short", "sha512")


def test_nothing_tells_of_the_key_or_the_passphrase(keys):
    assert repr(keys["self"]) == "PrivateKey()"
    guess = b"-".join([b"s3cret", b"guess"])
    with pytest.raises(PassphraseError) as told:
        key.load(golden("self.key.encrypted.der"), lambda: guess)
    assert "s3cret" not in "".join(traceback.format_exception(told.value))
    assert told.value.__context__ is None


@given(st.binary(max_size=40), st.integers(0, 1300))
def test_no_damage_raises_anything_but_its_error(noise, at):
    for whole in (golden("ec.key.pem"), golden("self.key.encrypted.der"), b""):
        try:
            key.load(whole[:at] + noise + whole[at + len(noise) :], lambda: b"x")
        except KeyFileError:
            continue
