"""SignedData: what sign-file writes is read, and so is what other tools write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing.golden import HASHES, golden

from kmm.signing import appended, cms, der
from kmm.signing.digest import OBJECTS
from kmm.signing.errors import SignatureError


def body(name):
    _, (found,) = appended.split(golden(f"{name}.signature"))
    return found.body


@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("name", ["self", "issued"])
def test_what_sign_file_wrote_is_read_and_written_again_the_same(name, hash_name, certificates):
    data = cms.decode(body(f"{name}-{hash_name}"))
    (signer,) = data.signers
    assert data.detached
    assert (signer.hash_name, signer.family, signer.attributes) == (hash_name, "rsa", False)
    assert (signer.issuer, signer.serial) == (certificates[name].issuer, certificates[name].serial)
    assert cms.encode(signer) == body(f"{name}-{hash_name}")


def test_an_ec_signature_of_sign_file_is_read_and_written_again_the_same():
    (signer,) = cms.decode(body("ec-sha256")).signers
    assert (signer.hash_name, signer.family) == ("sha256", "ecdsa")
    assert cms.encode(signer) == body("ec-sha256")


def test_a_signer_may_be_named_by_its_keys_id(certificates):
    (signer,) = cms.decode(body("by-key-id")).signers
    assert (signer.issuer, signer.serial, signer.key_id) == (b"", b"", certificates["self"].key_id)


def test_what_other_tools_write_is_read(certificates):
    data = cms.decode(golden("openssl.cms"))
    (signer,) = data.signers
    assert data.detached
    assert (signer.hash_name, signer.family, signer.attributes) == ("sha512", "rsa", True)
    assert signer.issuer == certificates["self"].issuer
    assert {each.family for each in cms.decode(golden("both.cms")).signers} == {"rsa", "ecdsa"}
    assert not cms.decode(golden("attached.cms")).detached


def test_an_algorithm_that_is_not_known_is_named_by_its_identifier():
    odd = body("self-sha256").replace(
        der.object_identifier(OBJECTS["sha256"]), der.object_identifier("2.16.840.1.101.3.4.2.99")
    )
    assert cms.decode(odd).signers[0].hash_name == "2.16.840.1.101.3.4.2.99"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "lacks a part"),
        (b"\x30\x80\0\0", "length"),
        (golden("self.der"), "another one in its place"),
        (der.encode(der.SEQUENCE, der.object_identifier("1.2.3")), "no CMS SignedData"),
        (golden("openssl.cms") + b"\0\0", "more than belongs"),
        (golden("openssl.cms")[:-1], "breaks off"),
    ],
)
def test_what_is_no_signed_data_is_refused(data, said):
    with pytest.raises(SignatureError, match=said):
        cms.decode(data)


def test_a_signature_of_nobody_is_refused():
    data = der.encode(
        der.SEQUENCE,
        der.object_identifier("1.2.840.113549.1.7.2"),
        der.encode(
            0xA0,
            der.encode(
                der.SEQUENCE,
                der.encode(der.INTEGER, b"\1"),
                der.encode(der.SET),
                der.encode(der.SEQUENCE, der.object_identifier("1.2.840.113549.1.7.1")),
                der.encode(der.SET),
            ),
        ),
    )
    with pytest.raises(SignatureError, match="of nobody"):
        cms.decode(data)


@given(st.binary(max_size=300), st.integers(0, 1500), st.sampled_from(["openssl.cms", "both.cms", "attached.cms"]))
def test_no_damage_raises_anything_but_its_error(noise, at, name):
    whole = golden(name)
    for damaged in (noise, whole[:at] + noise + whole[at + len(noise) :], whole[:at] + noise):
        try:
            found = cms.decode(damaged)
        except SignatureError:
            continue
        assert found.signers
