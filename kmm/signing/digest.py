"""The hashes that modules are signed with, by the names that the kernel and Python agree on."""

from __future__ import annotations

from collections.abc import Mapping

from kmm.signing.der import NULL, OCTET_STRING, SEQUENCE, encode, object_identifier

HASHES = ("sha224", "sha256", "sha384", "sha512")
"""Those to sign with."""

OBJECTS: Mapping[str, str] = {
    "sha1": "1.3.14.3.2.26",
    "sha224": "2.16.840.1.101.3.4.2.4",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
    "sha3_256": "2.16.840.1.101.3.4.2.8",
    "sha3_384": "2.16.840.1.101.3.4.2.9",
    "sha3_512": "2.16.840.1.101.3.4.2.10",
}
"""The object identifiers of all that are met in signatures: old kernels sign with sha1, new ones may with sha3."""


def digest_info(digest: bytes, hash_name: str) -> bytes:
    """Return a digest as RSA PKCS#1 v1.5 signs it, its algorithm with NULL parameters: what devices are given."""
    algorithm = encode(SEQUENCE, object_identifier(OBJECTS[hash_name]), encode(NULL))
    return encode(SEQUENCE, algorithm, encode(OCTET_STRING, digest))
