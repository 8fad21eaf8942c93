"""Manifests and indexes, read from bytes that may be anything. The body decides what it is, not the header."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
ACCEPT = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"
"""What to ask a registry for."""

SIZE_MOST = 4 * 1024 * 1024
"""Bytes, as registries have it."""
ENTRIES_MOST = 2_000
"""Layers of a manifest, manifests of an index, annotations of either."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_WORD_LONGEST = 255
_SIZE_LARGEST = 1 << 53
_SCHEMA = 2


class ManifestError(ValueError):
    """Bytes that are no manifest that can be used. The text says why, and repeats nothing of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What an image is for, by Go's names: `linux`, `amd64`; `variant` for instance `v8`."""

    os: str
    architecture: str
    variant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a manifest says of a blob or of another manifest. `size`: bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image. `layers`: the lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Several images, one for each platform: an OCI index or Docker's manifest list."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architectures that there is a Linux image for, sorted."""
        return tuple(sorted({platform.architecture for platform, _ in self._for_linux()}))

    def choose(self, architecture: str, variant: str = "") -> Descriptor | None:
        """Return the Linux image for `architecture`: of that variant, else without one, else the first there is."""
        fit = [each for each in self._for_linux() if each[0].architecture == architecture]
        for wanted in (variant, ""):
            for platform, entry in fit:
                if platform.variant == wanted:
                    return entry
        return fit[0][1] if fit else None

    def _for_linux(self) -> Iterator[tuple[Platform, Descriptor]]:
        """Yield the images for Linux. Attestations are `unknown/unknown`."""
        for each in self.manifests:
            if each.platform and each.platform.os == "linux" and each.platform.architecture not in ("", "unknown"):
                yield each.platform, each


Parsed: TypeAlias = Manifest | Index


def parse(data: bytes, content_type: str = "") -> Parsed:
    """Read a manifest or an index. `content_type`: the header's, used where the body has no `mediaType`.

    A manifest without `mediaType` is told from an index by its shape; a header that contradicts it is ignored.
    Raises ManifestError, and nothing else.
    """
    body = _json(data)
    kind = body.get("mediaType")
    if kind is not None and not isinstance(kind, str):
        raise ManifestError("has a mediaType that is no text")
    version = body.get("schemaVersion")
    if type(version) is not int:
        raise ManifestError("has no schemaVersion 2")
    if version == 1 or "signatures" in body or "fsLayers" in body:
        raise ManifestError("is a manifest of Docker's old schema 1: push the image again with a tool of today")
    if version != _SCHEMA:
        raise ManifestError("has no schemaVersion 2")
    image = body.get("config") is not None or body.get("layers") is not None
    index = body.get("manifests") is not None
    if image == index:
        said = "both an image and an index" if image else "neither an image nor an index"
        raise ManifestError(f"is {said}")
    if kind and kind not in (INDEXES if index else MANIFESTS):
        raise ManifestError(f"looks like an {'index' if index else 'image'}, but its mediaType is another one")
    if not kind:
        said = content_type.partition(";")[0].strip().lower()
        kind = said if said in (INDEXES if index else MANIFESTS) else OCI_INDEX if index else OCI_MANIFEST
    annotations = _annotations(body.get("annotations"))
    if index:
        return Index(media_type=kind, manifests=_descriptors(body["manifests"]), annotations=annotations)
    return Manifest(
        media_type=kind,
        config=_descriptor(body.get("config")),
        layers=_descriptors([] if body.get("layers") is None else body["layers"]),
        annotations=annotations,
    )


def is_digest(text: str) -> bool:
    """Say whether `text` is a digest that can be verified: sha256 or sha512."""
    return _DIGEST.fullmatch(text) is not None


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of `data`, as `sha256:<hex>`."""
    return f"{algorithm}:{hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()}"


def _json(data: bytes) -> dict[str, Any]:
    if len(data) > SIZE_MOST:
        raise ManifestError(f"is larger than {SIZE_MOST // 1024 // 1024} MiB")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise ManifestError("is no JSON") from None
    if not isinstance(body, dict):
        raise ManifestError("is no JSON object")
    return body


def _descriptors(value: Any) -> tuple[Descriptor, ...]:
    if not isinstance(value, list):
        raise ManifestError("has no list where a list of descriptors belongs")
    if len(value) > ENTRIES_MOST:
        raise ManifestError(f"has more than {ENTRIES_MOST:,} entries")
    return tuple(map(_descriptor, value))


def _descriptor(value: Any) -> Descriptor:
    if not isinstance(value, dict):
        raise ManifestError("lacks a descriptor")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _SIZE_LARGEST:
        raise ManifestError("has a descriptor without a size")
    digest = value.get("digest")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ManifestError("has a descriptor whose digest is neither sha256 nor sha512")
    platform = value.get("platform")
    if platform is not None and not isinstance(platform, dict):
        raise ManifestError("has a platform that is no object")
    return Descriptor(
        media_type=_word(value, "mediaType"),
        digest=digest,
        size=size,
        platform=Platform(
            os=_word(platform, "os"),
            architecture=_word(platform, "architecture"),
            variant=_word(platform, "variant"),
        )
        if platform
        else None,
        annotations=_annotations(value.get("annotations")),
    )


def _word(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str) or len(found) > _WORD_LONGEST:
        raise ManifestError(f"has a {key} that is no short text")
    return found


def _annotations(value: Any) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > ENTRIES_MOST:
        raise ManifestError(f"has annotations that are no object, or more than {ENTRIES_MOST:,}")
    if not all(isinstance(text, str) for text in value.values()):
        raise ManifestError("has an annotation that is no text")
    return value
