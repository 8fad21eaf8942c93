"""Signs modules: loaded once, for many files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from kmm.signing import appended, cms, module
from kmm.signing.certificate import Certificate
from kmm.signing.cms import SignerInfo
from kmm.signing.compression import SIZE_MOST, Compression
from kmm.signing.digest import HASHES
from kmm.signing.errors import MismatchError, SigningError
from kmm.signing.key import SignDigest

_TRIAL = b"kmm: does this key fit its certificate?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What was signed. `size`: bytes, unpacked and with the signature; `replaced`: how many signatures went."""

    compression: Compression
    size: int
    replaced: int


class Signer:
    """Signs with one certificate and what makes its raw signatures. Threads may share it if they may share that."""

    def __init__(self, certificate: Certificate, sign_digest: SignDigest, *, hash_name: str = "sha256") -> None:
        """Make one, and prove by a signature that both fit.

        Raises MismatchError where they do not, SigningError where modules are not signed with that hash, and whatever
        `sign_digest` raises.
        """
        if hash_name not in HASHES:
            raise SigningError(f"modules are not signed with this hash, but with {', '.join(HASHES)}")
        self.certificate = certificate
        self.hash_name = hash_name
        self._sign_digest = sign_digest
        self.signature(hashlib.new(hash_name, _TRIAL).digest())

    def signature(self, digest: bytes) -> bytes:
        """Return what is appended to the module with this digest.

        It is verified: a key that has gone wrong would give itself away, or sign what no kernel loads.
        Raises MismatchError, and whatever makes the raw signature raises.
        """
        raw = self._sign_digest(digest, self.hash_name)
        if not self.certificate.verifies(raw, digest, self.hash_name):
            raise MismatchError("what the key signs does not verify with the certificate: they are not of one pair")
        info = SignerInfo(
            issuer=self.certificate.issuer,
            serial=self.certificate.serial,
            hash_name=self.hash_name,
            family=self.certificate.family,
            signature=raw,
        )
        return appended.encode(cms.encode(info))

    def sign(self, source: BinaryIO, target: BinaryIO, *, limit: int = SIZE_MOST) -> Signed:
        """Sign the module in `source`, which can be read twice, to `target`, compressed as it was.

        Signatures that it has are taken off, and nothing is written before the new one is made. `limit`: bytes,
        unpacked. Raises ModuleError, and as `signature`.
        """
        contents = module.read(source, self.hash_name, limit=limit)
        signature = self.signature(contents.digest)
        module.write(source, contents, signature, target)
        return Signed(
            compression=contents.compression,
            size=contents.size + len(signature),
            replaced=len(contents.signatures),
        )
