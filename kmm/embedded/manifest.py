"""Manifests as a registry keeps them, and what it takes for one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from kmm.embedded.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, digest_of
from kmm.embedded.registry_failure import Refusal

_INDEXES = (OCI_INDEX, DOCKER_INDEX)
_ALL = (OCI_MANIFEST, DOCKER_MANIFEST, *_INDEXES)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest, byte by byte as it was pushed."""

    media_type: str
    body: bytes
    digest: str


def is_digest(text: str) -> bool:
    """Whether a text is a digest that can be stored here; others than SHA-256 cannot."""
    return _DIGEST.fullmatch(text) is not None


def checked(body: bytes, content_type: str, *, blobs: Collection[str], manifests: Collection[str]) -> Manifest:
    """Return a manifest that may be stored; `blobs`, `manifests`: the digests of what its repository has.

    Raises:
        Refusal: it is none, or names what is not there.
    """
    media_type = content_type.partition(";")[0].strip()
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(("MANIFEST_INVALID", {})) from error
    # Docker's must say what they are; the OCI's may.
    silent = media_type in (OCI_MANIFEST, OCI_INDEX)
    if (
        media_type not in _ALL
        or not isinstance(said, dict)
        or said.get("schemaVersion") != 2
        or said.get("mediaType", media_type if silent else None) != media_type
    ):
        raise Refusal(("MANIFEST_INVALID", {}))
    if media_type in _INDEXES:
        named, known = said.get("manifests"), manifests
    else:
        layers = said.get("layers")
        named = [said.get("config"), *layers] if isinstance(layers, list) else None
        known = blobs
    if not isinstance(named, list):
        raise Refusal(("MANIFEST_INVALID", {}))
    lacking = []
    for each in named:
        digest = each.get("digest") if isinstance(each, Mapping) else None
        if not isinstance(digest, str) or not is_digest(digest):
            raise Refusal(("DIGEST_INVALID", None))
        # Layers that may not be distributed are elsewhere.
        if digest not in known and not each.get("urls"):
            lacking.append(digest)
    if lacking:
        raise Refusal(*(("MANIFEST_BLOB_UNKNOWN", digest) for digest in lacking))
    return Manifest(media_type=media_type, body=body, digest=digest_of(body))
