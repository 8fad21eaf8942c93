"""CMS (RFC 5652): the SignedData that sign-file writes, and what any such says of who signed.

Written: the content is somewhere else, there are no certificates and no signed attributes, the signer is named by
issuer and serial number, and the digest algorithm has no parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kmm.signing import der
from kmm.signing.der import INTEGER, NULL, OBJECT, OCTET_STRING, SEQUENCE, SET, DerError, Parts
from kmm.signing.digest import OBJECTS
from kmm.signing.errors import SignatureError

_SIGNED_DATA = der.object_identifier("1.2.840.113549.1.7.2")
_DATA = der.object_identifier("1.2.840.113549.1.7.1")
_RSA = "1.2.840.113549.1.1.1"
_RSA_WITH = {
    "sha1": "1.2.840.113549.1.1.5",
    "sha224": "1.2.840.113549.1.1.14",
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
    "sha3_256": "2.16.840.1.101.3.4.3.14",
    "sha3_384": "2.16.840.1.101.3.4.3.15",
    "sha3_512": "2.16.840.1.101.3.4.3.16",
}
_ECDSA_WITH = {
    "sha1": "1.2.840.10045.4.1",
    "sha224": "1.2.840.10045.4.3.1",
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
    "sha3_256": "2.16.840.1.101.3.4.3.10",
    "sha3_384": "2.16.840.1.101.3.4.3.11",
    "sha3_512": "2.16.840.1.101.3.4.3.12",
}
_HASH_BY_OBJECT: Mapping[str, str] = {dotted: name for name, dotted in OBJECTS.items()}
_FAMILY_BY_OBJECT: Mapping[str, str] = {
    _RSA: "rsa",
    **dict.fromkeys(_RSA_WITH.values(), "rsa"),
    **dict.fromkeys(_ECDSA_WITH.values(), "ecdsa"),
}
_FIRST = der.encode(INTEGER, b"\x01")
_VERSIONS = (b"\x01", b"\x03")  # the second: a signer is named by its key
_CONTEXT_0, _CONTEXT_1, _KEY_ID = 0xA0, 0xA1, 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerInfo:
    """One signature. The signer is named by `issuer` (a Name in DER) and `serial` (octets), or else by `key_id`.

    `hash_name`, `family` (`rsa`, `ecdsa`): the dotted object identifier where it is another one.
    """

    issuer: bytes = b""
    serial: bytes = b""
    key_id: bytes = b""
    hash_name: str
    family: str
    signature: bytes
    attributes: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedData:
    """`detached`: what is signed is somewhere else, and of no special type, as it is for modules."""

    signers: tuple[SignerInfo, ...]
    detached: bool


def encode(signer: SignerInfo) -> bytes:
    """Return what sign-file makes of a signer with issuer and serial number."""
    hashed = der.encode(SEQUENCE, der.object_identifier(OBJECTS[signer.hash_name]))
    if signer.family == "rsa":
        signed = der.encode(SEQUENCE, der.object_identifier(_RSA), der.encode(NULL))
    else:
        signed = der.encode(SEQUENCE, der.object_identifier(_ECDSA_WITH[signer.hash_name]))
    info = der.encode(
        SEQUENCE,
        _FIRST,
        der.encode(SEQUENCE, signer.issuer, der.encode(INTEGER, signer.serial)),
        hashed,
        signed,
        der.encode(OCTET_STRING, signer.signature),
    )
    data = der.encode(SEQUENCE, _FIRST, der.encode(SET, hashed), der.encode(SEQUENCE, _DATA), der.encode(SET, info))
    return der.encode(SEQUENCE, _SIGNED_DATA, der.encode(_CONTEXT_0, data))


def decode(data: bytes) -> SignedData:
    """Read the SignedData of any tool. Raises SignatureError, and nothing else."""
    try:
        outer = Parts.of(data)
        if outer.take(OBJECT).whole != _SIGNED_DATA:
            raise SignatureError("ends in a signature that is no CMS SignedData")
        body = Parts.of(outer.take(_CONTEXT_0).content)
        outer.end()
        _need_version(body)
        body.take(SET)
        content = Parts(body.take(SEQUENCE).content)
        plain = content.take(OBJECT).whole == _DATA
        detached = plain and content.maybe(_CONTEXT_0) is None
        body.maybe(_CONTEXT_0)  # certificates
        body.maybe(_CONTEXT_1)  # revocation lists
        infos = Parts(body.take(SET).content)
        body.end()
        signers: list[SignerInfo] = []
        while found := infos.maybe(SEQUENCE):
            signers.append(_signer(found.content))
        infos.end()
    except DerError as error:
        raise SignatureError(f"ends in a signature whose CMS {error}") from None
    if not signers:
        raise SignatureError("ends in a signature of nobody")
    return SignedData(signers=tuple(signers), detached=detached)


def _signer(content: bytes) -> SignerInfo:
    parts = Parts(content)
    _need_version(parts)
    named = parts.take(SEQUENCE, _KEY_ID)
    issuer = serial = key_id = b""
    if named.tag == _KEY_ID:
        key_id = named.content
    else:
        both = Parts(named.content)
        issuer, serial = both.take(SEQUENCE).whole, both.take(INTEGER).content
        both.end()
    hashed = _algorithm(parts.take(SEQUENCE))
    attributes = parts.maybe(_CONTEXT_0) is not None
    signed = _algorithm(parts.take(SEQUENCE))
    signature = parts.take(OCTET_STRING).content
    parts.maybe(_CONTEXT_1)  # unsigned attributes
    parts.end()
    return SignerInfo(
        issuer=issuer,
        serial=serial,
        key_id=key_id,
        hash_name=_HASH_BY_OBJECT.get(hashed, hashed),
        family=_FAMILY_BY_OBJECT.get(signed, signed),
        signature=signature,
        attributes=attributes,
    )


def _need_version(parts: Parts) -> None:
    if parts.take(INTEGER).content not in _VERSIONS:
        raise DerError("has a version that kernels do not know")


def _algorithm(element: der.Element) -> str:
    return der.dotted(Parts(element.content).take(OBJECT).content)
