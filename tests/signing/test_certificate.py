"""Certificates: what is in them, and what kernels may hold against them."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from signing.golden import HASHES, golden
from signing.made import A_DAY, NOW, certificate_pem

from kmm.signing import certificate, cms
from kmm.signing.certificate import HASH_BY_NAME
from kmm.signing.digest import HASHES as TO_SIGN_WITH
from kmm.signing.digest import OBJECTS
from kmm.signing.errors import CertificateError


@pytest.mark.parametrize("name", ["self", "issued"])
def test_der_and_pem_are_the_same(name):
    der, pem = certificate.load(golden(f"{name}.der")), certificate.load(golden(f"{name}.pem"))
    assert der == pem
    assert der.der == golden(f"{name}.der")
    assert der.fingerprint == hashlib.sha256(golden(f"{name}.der")).hexdigest()


def test_the_issuer_of_an_issued_one_is_not_its_subject(certificates):
    issued = certificates["issued"]
    assert issued.serial == b"\0\x80\xf1"
    assert issued.issuer != issued.subject
    assert issued.key_id == b""
    assert str(issued) == (
        'certificate 80:F1 issued by "C=DE, O=Prüfstelle, OU=tests, 0.9.2342.19200300.100.1.1=kmm, CN=€ authority, '
        'emailAddress=nobody@example.com" to "O=kmm tests, CN=issued"'
    )
    assert len(certificates["self"].key_id) == 20


def test_of_several_in_a_file_the_first_counts_and_keys_are_passed_over(certificates):
    chain = b"some words\n" + golden("self.key.pem") + golden("issued.pem") + golden("self.pem")
    assert certificate.load(chain) == certificates["issued"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no certificate in DER or PEM"),
        (b"\x30\x03abc", "no certificate in DER or PEM"),
        (golden("self.der")[:-1], "no certificate in DER or PEM"),
        (golden("self.der") + b"\0", "no certificate in DER or PEM"),
        (golden("self.pem")[:400], "no certificate in DER or PEM"),
        (golden("self.key.pem"), "wrong way round"),
        (bytes(2_000_000), "larger than 1024 KiB"),
        (certificate_pem(ed25519.Ed25519PrivateKey.generate()), "neither RSA nor EC"),
    ],
    ids=range(8),
)
def test_what_is_no_certificate_is_told_what_it_is(data, said):
    with pytest.raises(CertificateError, match=said):
        certificate.load(data)


def test_an_expired_and_a_future_one_warn():
    read = certificate.load(certificate_pem())
    assert list(read.warnings(NOW)) == []
    assert list(read.warnings(NOW + 2 * A_DAY)) == ["the certificate expired on 2030-01-02"]
    assert list(read.warnings(NOW - 2 * A_DAY)) == ["the certificate is not valid before 2029-12-31"]


def test_an_ec_key_and_an_odd_length_warn(certificates):
    at = certificates["ec"].not_before
    assert list(certificates["ec"].warnings(at)) == [
        "the key is an EC key: many kernels refuse its signatures, and RSA is safe"
    ]
    odd = certificate.load(certificate_pem(rsa.generate_private_key(65537, 2056)))
    assert list(odd.warnings(NOW)) == ["the key has 2056 bits: kernels take RSA keys of 2048, 3072 or 4096"]
    short = certificate.load(certificate_pem(rsa.generate_private_key(65537, 1024)))  # noqa: S505 -- that is it
    assert list(short.warnings(NOW)) == [
        "the key has 1024 bits: that is not safe, and kernels in FIPS mode refuse it"
    ]
    assert list(certificates["issued"].warnings(certificates["issued"].not_before)) == []


@pytest.mark.parametrize("name", ["self", "ec"])
def test_only_what_its_key_made_for_this_digest_verifies(name, keys, certificates):
    digest = hashlib.sha256(b"a").digest()
    signature = keys[name](digest, "sha256")
    assert certificates[name].verifies(signature, digest, "sha256")
    assert not certificates[name].verifies(signature, hashlib.sha256(b"b").digest(), "sha256")
    assert not certificates[name].verifies(signature, hashlib.sha512(b"a").digest(), "sha512")
    assert not certificates[name].verifies(signature, b"short", "sha256")
    assert not certificates["issued"].verifies(signature, digest, "sha256")
    for odd in (b"", b"\0" * 1000, signature[:-1], signature + b"\0"):
        assert not certificates[name].verifies(odd, digest, "sha256")


def test_all_names_of_hashes_are_known_everywhere():
    assert set(HASHES) == set(TO_SIGN_WITH)
    assert set(OBJECTS) == set(HASH_BY_NAME) == set(cms._RSA_WITH) == set(cms._ECDSA_WITH)
    for name in OBJECTS:
        assert hashlib.new(name).digest_size == HASH_BY_NAME[name].digest_size


@given(st.binary(max_size=40), st.integers(0, 1200))
def test_no_damage_raises_anything_but_its_error(noise, at):
    for whole in (golden("self.der"), golden("self.pem"), b""):
        try:
            certificate.load(whole[:at] + noise + whole[at + len(noise) :])
        except CertificateError:
            continue
