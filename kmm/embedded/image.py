"""Container images made of a few files, for the embedded registry and for tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

# A layer: files by path, or the bytes of a tar, compressed or not.
Layer = Mapping[str, bytes] | bytes

_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image, or an index: what is pushed. `blobs`: by digest, in the order in which the manifest has them."""

    media_type: str
    manifest: bytes
    blobs: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)


def image(
    layers: Sequence[Layer],
    *,
    architecture: str = "amd64",
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
) -> Image:
    """Make an image; `layers` from the lowest to the topmost. The same arguments make the same bytes."""
    packed = [each if isinstance(each, bytes) else gzip.compress(_tar(each), mtime=0) for each in layers]
    system, _, variant = architecture.partition("/")
    config = {
        "architecture": system,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(_unpacked(each)) for each in packed]},
        # Builders count these where they build on an image.
        "history": [{"created_by": "kmm"} for _ in packed],
    }
    text = msgspec.json.encode(config)
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _descriptor(text, _DOCKER_CONFIG if docker else _OCI_CONFIG),
        "layers": [_descriptor(each, _layer_type(each, docker=docker)) for each in packed],
        **({"annotations": dict(annotations)} if annotations else {}),
    }
    blobs = {digest_of(each): each for each in (text, *packed)}
    return Image(media_type=media_type, manifest=msgspec.json.encode(manifest), blobs=blobs)


def index(
    manifests: Mapping[str, tuple[str, int, str]],
    *,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
) -> Image:
    """Make an index of manifests: digest, size in bytes and media type, by architecture, `arm/v7` with a variant."""
    media_type = DOCKER_INDEX if docker else OCI_INDEX
    entries = []
    for architecture, (digest, size, of) in manifests.items():
        system, _, variant = architecture.partition("/")
        platform = {"architecture": system, "os": "linux", **({"variant": variant} if variant else {})}
        entries.append({"mediaType": of, "digest": digest, "size": size, "platform": platform})
    body = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": entries,
        **({"annotations": dict(annotations)} if annotations else {}),
    }
    return Image(media_type=media_type, manifest=msgspec.json.encode(body), blobs={})


def digest_of(content: bytes) -> str:
    """Return `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _layer_type(layer: bytes, *, docker: bool) -> str:
    if layer.startswith(_GZIP):
        return _DOCKER_LAYER + ".gzip" if docker else _OCI_LAYER + "+gzip"
    if layer.startswith(_ZSTD):
        return _OCI_LAYER + "+zstd"
    return _DOCKER_LAYER if docker else _OCI_LAYER


def _unpacked(layer: bytes) -> bytes:
    """Return what `diff_ids` name: the tar. Nobody here unpacks zstd, and no registry looks."""
    return gzip.decompress(layer) if layer.startswith(_GZIP) else layer


def _tar(files: Mapping[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            # Without the leading slash, as every builder writes it; root owns all of it, since 1970.
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()
