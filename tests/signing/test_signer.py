"""Signing: byte for byte what the kernel's sign-file makes, with a key that may be anywhere."""

from __future__ import annotations

import hashlib
import io
import threading

import pytest
from signing.golden import HASHES, MODULE, golden, module
from signing.test_compression import pack

from kmm.signing import certificate, cms
from kmm.signing.compression import Compression
from kmm.signing.errors import MismatchError, ModuleError, SigningError
from kmm.signing.signer import Signer
from kmm.signing.verification import verify


def sign(signer, data):
    target = io.BytesIO()
    return signer.sign(io.BytesIO(data), target), target.getvalue()


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("name", ["self", "issued"])
def test_what_is_made_is_what_sign_file_makes(name, hash_name, signer_of):
    signed, made = sign(signer_of(name, hash_name), MODULE)
    assert made == MODULE + golden(f"{name}-{hash_name}.signature")
    assert (signed.compression, signed.size, signed.replaced) == (Compression.NONE, len(made), 0)


def test_signing_again_and_with_another_key_never_stacks(signer_of):
    _, once = sign(signer_of("self", "sha512"), MODULE)
    for count, stack in enumerate((once, once + golden("issued-sha256.signature")), 1):
        signed, made = sign(signer_of("issued", "sha256"), stack)
        assert signed.replaced == count
        assert made == MODULE + golden("issued-sha256.signature")


@pytest.mark.parametrize("how", Compression, ids=lambda how: how.name)
def test_a_compressed_module_stays_compressed(how, signer_of):
    signed, made = sign(signer_of(), pack(MODULE + golden("issued-sha384.signature"), how))
    assert made == pack(MODULE + golden("self-sha256.signature"), how)
    assert (signed.compression, signed.size) == (how, len(MODULE + golden("self-sha256.signature")))
    assert signed.replaced == 1


def test_an_ec_signature_has_the_form_of_sign_files_and_verifies(signer_of, certificates):
    _, made = sign(signer_of("ec"), MODULE)
    assert verify(io.BytesIO(made), certificates["ec"]).verified
    assert verify(io.BytesIO(MODULE + golden("ec-sha256.signature")), certificates["ec"]).verified
    (ours,) = cms.decode(made[len(MODULE) : -40]).signers
    (theirs,) = cms.decode(golden("ec-sha256.signature")[:-40]).signers
    assert (ours.issuer, ours.serial, ours.family) == (theirs.issuer, theirs.serial, theirs.family)


def test_the_key_may_be_anywhere_it_gets_the_digest_and_the_name_of_the_hash(keys, certificates):
    asked = []

    def elsewhere(digest, hash_name):
        asked.append((digest, hash_name))
        return keys["self"](digest, hash_name)

    signer = Signer(certificates["self"], elsewhere, hash_name="sha384")
    _, made = sign(signer, MODULE)
    assert made == MODULE + golden("self-sha384.signature")
    assert asked[-1] == (hashlib.sha384(MODULE).digest(), "sha384")
    assert [each[1] for each in asked] == ["sha384"] * 2


def test_key_and_certificate_that_are_no_pair_are_told_at_once(keys, certificates):
    for key, other in (("self", "issued"), ("self", "ec"), ("ec", "self")):
        with pytest.raises(MismatchError, match="not of one pair"):
            Signer(certificates[other], keys[key])


def test_a_key_that_goes_wrong_writes_nothing(keys, certificates):
    working = [True]

    def flaky(digest, hash_name):
        made = keys["self"](digest, hash_name)
        return made if working else made[:-1] + bytes([made[-1] ^ 1])

    signer = Signer(certificates["self"], flaky)
    working.clear()
    target = io.BytesIO()
    with pytest.raises(MismatchError):
        signer.sign(io.BytesIO(MODULE), target)
    assert target.getvalue() == b""


def test_what_the_key_raises_reaches_the_caller(certificates):
    def away(digest, hash_name):
        raise ConnectionError("the HSM is away")

    with pytest.raises(ConnectionError, match="HSM"):
        Signer(certificates["self"], away)


@pytest.mark.parametrize("hash_name", ["md5", "sha1", "sha3_256", "SHA256", ""])
def test_a_hash_that_modules_are_not_signed_with_is_refused(hash_name, keys, certificates):
    with pytest.raises(SigningError, match="sha224, sha256, sha384, sha512"):
        Signer(certificates["self"], keys["self"], hash_name=hash_name)


def test_what_is_no_module_is_not_signed(signer):
    target = io.BytesIO()
    with pytest.raises(ModuleError):
        signer.sign(io.BytesIO(b"text"), target)
    assert target.getvalue() == b""


def test_threads_share_a_signer(signer):
    made = {}

    def one(number):
        made[number] = sign(signer, module(3000 + number))[1]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert made == {number: sign(signer, module(3000 + number))[1] for number in range(8)}


def test_an_expired_certificate_signs_and_its_owner_is_warned(keys):
    from signing.made import A_DAY, NOW, certificate_pem  # noqa: PLC0415

    read = certificate.load(certificate_pem())
    _, made = sign(Signer(read, keys["self"]), MODULE)
    assert verify(io.BytesIO(made), read).verified
    assert list(read.warnings(NOW + 9 * A_DAY))
