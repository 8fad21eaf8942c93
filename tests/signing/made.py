"""Certificates for a key, made for a test."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from signing.golden import golden

A_DAY = dt.timedelta(days=1)
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def certificate_pem(key=None, *, at=NOW, days=1, name="made"):
    """Return a self-signed certificate for a private key of the library, of `self` where there is none."""
    key = key or load_pem_private_key(golden("self.key.pem"), None)
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(named)
        .public_key(key.public_key())
        .serial_number(0x12B)
        .not_valid_before(at - days * A_DAY)
        .not_valid_after(at + days * A_DAY)
        .sign(key, None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)
