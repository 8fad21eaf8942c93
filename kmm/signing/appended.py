"""What stands at the end of a signed module: the signature, 12 bytes that say how long it is, and a magic text."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kmm.signing.errors import SignatureError

SIZE_MOST = 256 * 1024
"""Bytes, of all signatures of a module together. A usual one has less than one KiB."""
PKCS7 = 2
"""The kind of signature since Linux 4.3: CMS."""
X509 = 1
"""The kind before: the names of the signer and of its key, and a raw signature."""

_MAGIC = b"~Module signature appended~\n"
_HEADER = struct.Struct(">BBBBB3sI")
# Of the kind X509 alone: the kernel's numbers for hashes then.
_HASHES = {2: "sha1", 4: "sha256", 5: "sha384", 6: "sha512", 7: "sha224"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """One signature. `body`: by its `kind`, CMS or a raw signature; `signer`, `key_id`: of the kind X509.

    `regular`: what the kernel wants to be zero is so.
    """

    kind: int
    body: bytes
    signer: bytes = b""
    key_id: bytes = b""
    hash_name: str = ""
    regular: bool = True


def encode(body: bytes) -> bytes:
    """Return what is appended to a module, for the CMS `body`."""
    return body + _HEADER.pack(0, 0, PKCS7, 0, 0, bytes(3), len(body)) + _MAGIC


def split(tail: bytes, most: int | None = None) -> tuple[int, tuple[Appended, ...]]:
    """Return where the signatures begin, and what they are, the last one (which the kernel reads) first.

    `tail`: at least the last SIZE_MOST bytes of a module, or all of it. `most`: go no further than so many.
    Raises SignatureError where a signature cannot be as long as it says.
    """
    end, found = len(tail), list[Appended]()
    while tail.endswith(_MAGIC, 0, end) and (most is None or len(found) < most):
        at = end - len(_MAGIC) - _HEADER.size
        if at < 0:
            raise SignatureError("ends in a signature that breaks off")
        algorithm, hashed, kind, signer, key_id, padding, size = _HEADER.unpack_from(tail, at)
        begin = at - signer - key_id - size
        if begin < 0 or begin < len(tail) - SIZE_MOST:
            raise SignatureError(f"ends in signatures longer than {SIZE_MOST // 1024} KiB, or than itself")
        found.append(
            Appended(
                kind=kind,
                body=tail[at - size : at],
                signer=tail[begin : begin + signer],
                key_id=tail[begin + signer : begin + signer + key_id],
                hash_name=_HASHES.get(hashed, str(hashed)) if kind == X509 else "",
                regular=not any((algorithm, hashed, signer, key_id, *padding)),
            )
        )
        end = begin
    return end, tuple(found)
