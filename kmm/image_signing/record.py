"""What a signed image says of itself, so that signing it again does nothing. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kmm.contract import CERTIFICATE_ANNOTATION, UNSIGNED_ANNOTATION

HOW_ANNOTATION = "io.x-k8s.kmm.signing"
"""A hash of which files were asked for, and of the hash that they are signed with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`unsigned`: a digest; `certificate`: its fingerprint; `how`: see `how`."""

    unsigned: str
    certificate: str
    how: str

    @property
    def annotations(self) -> dict[str, str]:
        """As annotations of a manifest or an index, or as labels of a configuration."""
        return {
            UNSIGNED_ANNOTATION: self.unsigned,
            CERTIFICATE_ANNOTATION: self.certificate,
            HOW_ANNOTATION: self.how,
        }

    def is_in(self, said: Mapping[str, str], *, in_place: bool) -> bool:
        """Say whether these annotations are of an image that would be made once more.

        `in_place`: the image is signed under its own name, so that what it was before is gone.
        """
        kept = self.annotations
        if in_place:
            del kept[UNSIGNED_ANNOTATION]
        return kept.items() <= said.items()


def how(wanted: Sequence[str], hash_name: str) -> str:
    """Return what stands for what was asked for: paths and patterns, and the hash to sign with."""
    return hashlib.sha256(json.dumps([sorted(set(wanted)), hash_name]).encode()).hexdigest()
