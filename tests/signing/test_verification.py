"""Verifying: who signed, and only what no kernel would refuse verifies."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signing.golden import HASHES, MODULE, golden
from signing.made import certificate_pem
from signing.test_appended import header
from signing.test_compression import pack

from kmm.signing import certificate
from kmm.signing.appended import encode
from kmm.signing.compression import Compression
from kmm.signing.errors import ModuleError, SignatureError
from kmm.signing.verification import verify, who

SIGNED = MODULE + golden("self-sha256.signature")


def look(data, read=None):
    return verify(io.BytesIO(data), read)


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("name", ["self", "issued"])
def test_what_sign_file_signed_verifies(name, hash_name, certificates):
    found = look(MODULE + golden(f"{name}-{hash_name}.signature"), certificates[name])
    assert (found.verified, found.problem, found.below) == (True, "", 0)
    assert (found.signer.hash_name, found.signer.family) == (hash_name, "rsa")


@pytest.mark.parametrize("how", Compression, ids=lambda how: how.name)
def test_a_compressed_module_is_verified_unpacked(how, certificates):
    assert look(pack(SIGNED, how), certificates["self"]).verified


@pytest.mark.parametrize("name", ["by-key-id", "old-hash"])
def test_a_signer_named_by_its_key_and_an_old_hash_verify(name, certificates):
    assert look(MODULE + golden(f"{name}.signature"), certificates["self"]).verified


def test_without_a_certificate_it_is_only_told_who_signed(certificates):
    found = look(MODULE + golden("issued-sha512.signature"))
    assert (found.verified, found.problem) == (None, "")
    assert who(found.signer).startswith('certificate 80:F1 issued by "C=DE, O=Prüfstelle')
    by_key = look(MODULE + golden("by-key-id.signature"))
    assert who(by_key.signer) == f"key {certificates['self'].key_id.hex(':').upper()}"


def test_a_module_that_is_not_signed_is_told(certificates):
    found = look(MODULE, certificates["self"])
    assert (found.verified, found.signer, found.problem) == (False, None, "is not signed")


def test_another_certificate_does_not_verify_even_for_the_same_key(certificates):
    renewed = certificate.load(certificate_pem())
    for other in (certificates["issued"], certificates["ec"], renewed):
        found = look(SIGNED, other)
        assert (found.verified, found.problem) == (False, "was signed with another certificate")


def test_the_same_name_for_another_key_does_not_verify(certificates):
    # The kernel looks for a key by issuer and serial number, and then the key decides.
    forged = golden("ec-sha256.signature")
    assert look(MODULE + forged, certificates["ec"]).verified
    found = look(MODULE + b"changed" + forged, certificates["ec"])
    assert (found.verified, found.problem[:15]) == (False, "does not verify")
    at = len(SIGNED) - 100
    bent = SIGNED[:at] + bytes([SIGNED[at] ^ 1]) + SIGNED[at + 1 :]
    assert look(bent, certificates["self"]).verified is False


def test_the_last_signature_counts_and_those_below_are_a_part_of_the_module(certificates):
    stacked = SIGNED + golden("issued-sha256.signature")
    found = look(stacked, certificates["issued"])
    assert (found.verified, found.below) == (False, 1)  # it was made for the module without the other one
    assert look(stacked, certificates["self"]).problem == "was signed with another certificate"


def test_a_stack_that_sign_file_made_verifies_with_the_last_one(certificates, signer_of):
    import hashlib  # noqa: PLC0415

    signature = signer_of("issued").signature(hashlib.sha256(SIGNED).digest())
    found = look(SIGNED + signature, certificates["issued"])
    assert (found.verified, found.below) == (True, 1)


def test_of_several_signers_the_one_of_the_certificate_decides(certificates):
    signed = MODULE + encode(golden("both.cms"))
    for name, family in (("self", "rsa"), ("ec", "ecdsa")):
        found = look(signed, certificates[name])
        assert (found.verified, found.signer.family) == (True, family)
    assert look(signed, certificates["issued"]).verified is False


@pytest.mark.parametrize("with_certificate", [True, False])
@pytest.mark.parametrize(
    ("end", "said"),
    [
        (encode(golden("openssl.cms")), "with attributes, which kernels refuse"),
        (encode(golden("attached.cms")), "of a form that kernels refuse"),
        (golden("self-sha256.signature")[:-40] + header(421, hashed=4), "of a form that kernels refuse"),
        (b"Acme\1\2\3raw" + header(3, algorithm=1, hashed=4, kind=1, signer=4, key_id=3), "kernels before 4.3"),
        (b"raw" + header(3, kind=0), "of a kind that kernels refuse"),
    ],
    ids=range(5),
)
def test_what_kernels_refuse_does_not_verify(end, said, with_certificate, certificates):
    found = look(MODULE + end, certificates["self"] if with_certificate else None)
    assert found.verified is False
    assert said in found.problem


def test_the_signer_of_what_old_kernels_read_is_told():
    end = b"Acme\1\2\3raw" + header(3, algorithm=1, hashed=4, kind=1, signer=4, key_id=3)
    found = look(MODULE + end)
    assert (found.signer.hash_name, who(found.signer)) == ("sha256", "key 01:02:03")


def test_a_signature_that_cannot_be_read_is_told(certificates):
    with pytest.raises(SignatureError, match="whose CMS"):
        look(MODULE + encode(b"no CMS"), certificates["self"])


@settings(max_examples=200)
@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255), st.binary(max_size=8))
def test_a_changed_module_never_verifies_and_a_changed_signature_raises_nothing_but_its_errors(at, bit, noise):
    read = certificate.load(golden("self.pem"))
    for changed in (
        SIGNED[:at] + bytes([SIGNED[at] ^ bit]) + SIGNED[at + 1 :],
        SIGNED[:at] + noise + b"x" + SIGNED[at:],
        SIGNED[:at],
    ):
        try:
            found = look(changed, read)
        except ModuleError:
            continue
        # Not every octet of the CMS is signed: that of its version is not.
        assert found.verified is not True or changed.startswith(MODULE)
