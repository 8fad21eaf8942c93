"""The administrator's key, and the certificate that the nodes' kernels trust: made anew in each demo."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kmm.signing import certificate, key
from kmm.signing.certificate import Certificate
from kmm.signing.signer import Signer

_BITS = 2048
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A private key and its certificate, in PEM."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes

    def certificate(self) -> Certificate:
        """Return what verifies."""
        return certificate.load(self.certificate_pem)

    def signer(self) -> Signer:
        """Return who signs."""
        return Signer(self.certificate(), key.load(self.key_pem))


def make() -> Pair:
    """Make a key of which nobody else knows."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kmm demo")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, SHA256())
    )
    return Pair(
        key_pem=private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        certificate_pem=made.public_bytes(Encoding.PEM),
    )
