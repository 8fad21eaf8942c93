"""Who signed a module, with what hash, and does it verify."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import BinaryIO

from kmm.signing import appended, cms, module, name
from kmm.signing.appended import Appended
from kmm.signing.certificate import Certificate
from kmm.signing.cms import SignerInfo
from kmm.signing.compression import SIZE_MOST
from kmm.signing.digest import OBJECTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a kernel that trusts a certificate would say. `verified`: None where there is nothing to say it by.

    `signer`: of several the one that verifies, else the first; None where there is no signature that can be read.
    `problem`: why kernels refuse it. `below`: how many signatures are under this one, which kernels take for a part
    of the module.
    """

    verified: bool | None
    signer: SignerInfo | None = None
    problem: str = ""
    below: int = 0


def verify(stream: BinaryIO, certificate: Certificate | None = None, *, limit: int = SIZE_MOST) -> Verification:
    """Verify the module in `stream`, which can be read several times. `limit`: bytes, unpacked.

    Raises ModuleError where it is none, or its signature cannot be read.
    """
    signatures = module.read(stream, None, limit=limit).signatures
    if not signatures:
        return Verification(verified=False, problem="is not signed")
    outer, below = signatures[0], len(signatures) - 1
    if outer.kind != appended.PKCS7:
        return replace(_outdated(outer), below=below)
    data = cms.decode(outer.body)
    first = Verification(verified=None, signer=data.signers[0], below=below)
    if not outer.regular or not data.detached:
        return replace(first, verified=False, problem="has a signature of a form that kernels refuse")
    if any(each.attributes for each in data.signers):
        return replace(first, verified=False, problem="has a signature with attributes, which kernels refuse")
    if certificate is None:
        return first
    meant = [each for each in data.signers if _names(each, certificate)]
    if not meant:
        return replace(first, verified=False, problem="was signed with another certificate")
    for hash_name in sorted({each.hash_name for each in meant} & OBJECTS.keys()):
        digest = module.read(stream, hash_name, strip_most=1, limit=limit).digest
        for each in meant:
            if (each.hash_name, each.family) == (hash_name, certificate.family) and certificate.verifies(
                each.signature, digest, hash_name
            ):
                return replace(first, verified=True, signer=each)
    problem = "does not verify: it was changed after it was signed, or signed with another key"
    return replace(first, verified=False, signer=meant[0], problem=problem)


def who(signer: SignerInfo) -> str:
    """Return whom a signature names. It may hold any character."""
    if signer.issuer:
        return f'certificate {name.serial(signer.serial)} issued by "{name.shown(signer.issuer)}"'
    return f"key {name.hexadecimal(signer.key_id)}"


def _names(signer: SignerInfo, certificate: Certificate) -> bool:
    if signer.issuer:
        return (signer.issuer, signer.serial) == (certificate.issuer, certificate.serial)
    return bool(signer.key_id) and signer.key_id == certificate.key_id


def _outdated(found: Appended) -> Verification:
    if found.kind != appended.X509:
        return Verification(verified=False, problem="has a signature of a kind that kernels refuse")
    signer = SignerInfo(key_id=found.key_id, hash_name=found.hash_name, family="rsa", signature=found.body)
    problem = "is signed in the way of kernels before 4.3, which later ones refuse"
    return Verification(verified=False, signer=signer, problem=problem)
