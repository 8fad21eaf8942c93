"""What a signed image says of itself, so that signing it again does nothing. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kmm.contract import CERTIFICATE_ANNOTATION, UNSIGNED_ANNOTATION

HOW_ANNOTATION = "io.x-k8s.kmm.signing"
"""A hash of which files were asked for, and of the hash that they are signed with."""
CONTENT_ANNOTATION = "io.x-k8s.kmm.signed"
"""What was made: the digest of an image's topmost layer, or a hash of the digests in an index. See `content`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`unsigned`: a digest; `certificate`: its fingerprint; `how`: see `how`."""

    unsigned: str
    certificate: str
    how: str

    def annotations(self, made: str) -> dict[str, str]:
        """Return it as annotations of a manifest or index, or labels of a configuration. `made`: its content."""
        return {
            UNSIGNED_ANNOTATION: self.unsigned,
            CERTIFICATE_ANNOTATION: self.certificate,
            HOW_ANNOTATION: self.how,
            CONTENT_ANNOTATION: made,
        }

    def is_in(self, said: Mapping[str, str], there: str, *, in_place: bool) -> bool:
        """Say whether these annotations are of an image that would be made once more.

        `there`: the content of the image that has them. It may be another one, which was made of the signed image and
        has inherited them. `in_place`: the image is signed under its own name, so that what it was before is gone.
        """
        kept = self.annotations(there)
        if in_place:
            del kept[UNSIGNED_ANNOTATION]
        return kept.items() <= said.items()


def content(digests: Sequence[str], *, index: bool) -> str:
    """Return what stands for what was made: of the digests of an image's layers, or of an index's images."""
    if index:
        return hashlib.sha256(json.dumps(list(digests)).encode()).hexdigest()
    return digests[-1] if digests else ""


def how(wanted: Sequence[str], hash_name: str) -> str:
    """Return what stands for what was asked for: paths and patterns, and the hash to sign with."""
    return hashlib.sha256(json.dumps([sorted(set(wanted)), hash_name]).encode()).hexdigest()
