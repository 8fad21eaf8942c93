"""Certificates of signers: DER or PEM, self-signed or issued."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding

from kmm.signing import name
from kmm.signing.der import INTEGER, SEQUENCE, DerError, Parts
from kmm.signing.errors import CertificateError

SIZE_MOST = 1024 * 1024
"""Bytes of a file with a certificate."""
PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey

_DER_BEGINS = b"\x30"
_VERSION = 0xA0
_RSA_BITS = (1024, 1536, 2048, 3072, 4096)  # the lengths that the kernel's RSA takes
_RSA_BITS_SAFE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """`issuer`, `subject`: Names in DER, as they stand in it; `serial`: octets; `key_id`: empty where it has none."""

    der: bytes = field(repr=False)
    issuer: bytes
    serial: bytes
    subject: bytes
    key_id: bytes
    public_key: PublicKey
    not_before: datetime
    not_after: datetime

    @property
    def fingerprint(self) -> str:
        """Its SHA-256, in hexadecimal."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def family(self) -> str:
        """How its key signs: `rsa` or `ecdsa`."""
        return "rsa" if isinstance(self.public_key, RSAPublicKey) else "ecdsa"

    def __str__(self) -> str:
        """Return whose it is. What it returns may hold any character."""
        issued = f'issued by "{name.shown(self.issuer)}" to "{name.shown(self.subject)}"'
        return f"certificate {name.serial(self.serial)} {issued}"

    def verifies(self, signature: bytes, digest: bytes, hash_name: str) -> bool:
        """Say whether its key made `signature` for `digest`; `hash_name`: one of kmm.signing.digest."""
        prehashed = Prehashed(HASH_BY_NAME[hash_name])
        try:
            if isinstance(self.public_key, RSAPublicKey):
                self.public_key.verify(signature, digest, PKCS1v15(), prehashed)
            else:
                self.public_key.verify(signature, digest, ECDSA(prehashed))
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True

    def warnings(self, now: datetime) -> Iterator[str]:
        """Yield what may keep kernels from taking its signatures. `now`: with its time zone."""
        if now > self.not_after:
            yield f"the certificate expired on {self.not_after:%Y-%m-%d}"
        elif now < self.not_before:
            yield f"the certificate is not valid before {self.not_before:%Y-%m-%d}"
        if not isinstance(self.public_key, RSAPublicKey):
            yield "the key is an EC key: many kernels refuse its signatures, and RSA is safe"
        elif self.public_key.key_size not in _RSA_BITS:
            yield f"the key has {self.public_key.key_size} bits: kernels take RSA keys of 2048, 3072 or 4096"
        elif self.public_key.key_size < _RSA_BITS_SAFE:
            yield f"the key has {self.public_key.key_size} bits: that is not safe, and kernels in FIPS mode refuse it"


HASH_BY_NAME = {
    "sha1": hashes.SHA1(),  # noqa: S303 -- to verify what old kernels signed
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha3_256": hashes.SHA3_256(),
    "sha3_384": hashes.SHA3_384(),
    "sha3_512": hashes.SHA3_512(),
}
"""The hashes of kmm.signing.digest, as the library for cryptography has them."""


def load(data: bytes) -> Certificate:
    """Read a certificate, of several in PEM the first. Raises CertificateError."""
    if len(data) > SIZE_MOST:
        raise CertificateError(f"is larger than {SIZE_MOST // 1024} KiB")
    if not data.startswith(_DER_BEGINS) and b"PRIVATE KEY-----" in data and b"BEGIN CERTIFICATE" not in data:
        raise CertificateError("holds a private key and no certificate: are both the wrong way round?")
    try:
        read = x509.load_der_x509_certificate if data.startswith(_DER_BEGINS) else x509.load_pem_x509_certificate
        found = read(data)
        public_key = found.public_key()
        encoded = found.public_bytes(Encoding.DER)
        certificate = Parts.of(encoded)
        body = Parts(certificate.take(SEQUENCE).content)
        body.maybe(_VERSION)
        serial = body.take(INTEGER).content
        body.take(SEQUENCE)
        issuer = body.take(SEQUENCE).whole
        body.take(SEQUENCE)
        subject = body.take(SEQUENCE).whole
        not_before, not_after = found.not_valid_before_utc, found.not_valid_after_utc
    except (ValueError, UnsupportedAlgorithm, DerError):
        raise CertificateError("holds no certificate in DER or PEM that can be read") from None
    if not isinstance(public_key, RSAPublicKey | EllipticCurvePublicKey):
        raise CertificateError("is for a key that is neither RSA nor EC, which kernels do not verify with")
    return Certificate(
        der=encoded,
        issuer=issuer,
        serial=serial,
        subject=subject,
        key_id=_key_id(found),
        public_key=public_key,
        not_before=not_before,
        not_after=not_after,
    )


def _key_id(found: x509.Certificate) -> bytes:
    try:
        return found.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return b""
