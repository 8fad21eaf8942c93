"""One more layer on top of an image: its configuration and manifest, all else in them kept as it is. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from kmm.oci.manifest import DOCKER_MANIFEST, SIZE_MOST, Manifest, ManifestError, digest_of
from kmm.oci.new_layer import NewLayer

LAYERS_MOST = 127
"""What runtimes can put on top of each other."""

_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def add_to_configuration(
    data: bytes, manifest: Manifest, layer: NewLayer, *, created_by: str, comment: str, labels: Mapping[str, str]
) -> bytes:
    """Return the configuration of an image with one more layer and more labels.

    It says the time that it said before, so that the same image makes the same one. Raises ManifestError where it is
    no configuration of an image with the layers of `manifest`.
    """
    body = _object(data, "configuration")
    rootfs: Any = body.get("rootfs")
    rootfs = rootfs if isinstance(rootfs, dict) else {}
    diff_ids = rootfs.get("diff_ids")
    if not isinstance(diff_ids, list) or len(diff_ids) != len(manifest.layers):
        raise ManifestError("has a configuration that does not have its layers: it is no image that can be run")
    if len(diff_ids) >= LAYERS_MOST:
        raise ManifestError(f"has {len(diff_ids)} layers, and there cannot be more than {LAYERS_MOST}")
    body["rootfs"] = {**rootfs, "diff_ids": [*diff_ids, layer.diff_id]}
    history = body.get("history") or []
    if not isinstance(history, list) or not all(isinstance(each, dict) for each in history):
        raise ManifestError("has a configuration whose history is none")
    if history:  # with none, one of some layers alone would be of others
        created = {"created": body["created"]} if isinstance(body.get("created"), str) else {}
        body["history"] = [*history, {**created, "created_by": created_by, "comment": comment}]
    if labels:
        config = body.get("config")
        config = config if isinstance(config, dict) else {}
        known = config.get("Labels")
        body["config"] = {**config, "Labels": {**(known if isinstance(known, dict) else {}), **labels}}
    return _bytes(body)


def add_to_manifest(
    data: bytes, manifest: Manifest, configuration: bytes, layer: NewLayer, *, annotations: Mapping[str, str]
) -> bytes:
    """Return the bytes of a manifest with a new configuration and one more layer.

    `data`: the bytes of `manifest`. Docker's manifests have no annotations.
    """
    body = _object(data, "manifest")
    docker = manifest.media_type == DOCKER_MANIFEST
    body["config"] = {
        "mediaType": manifest.config.media_type,
        "digest": digest_of(configuration),
        "size": len(configuration),
    }
    body["layers"] = [
        *(body.get("layers") or ()),
        {"mediaType": _DOCKER_LAYER if docker else _OCI_LAYER, "digest": layer.digest, "size": layer.size},
    ]
    if not docker:
        body["annotations"] = {**(body.get("annotations") or {}), **annotations}
    return _bytes(body)


def replace_in_index(
    data: bytes, replaced: Mapping[str, bytes], *, without: frozenset[str], annotations: Mapping[str, str]
) -> bytes:
    """Return the bytes of an index in which manifests are replaced by others, by the digests that they had.

    `without`: the digests of those that go. Annotations are for Docker's lists too: nobody minds them.
    """
    body = _object(data, "index")
    entries: list[dict[str, Any]] = []
    for entry in body["manifests"]:
        if entry["digest"] in without:
            continue
        made = replaced.get(entry["digest"])
        if made is None:
            entries.append(entry)
            continue
        # Embedded data would be the old one's.
        kept = {key: value for key, value in entry.items() if key not in ("data", "urls")}
        entries.append({**kept, "digest": digest_of(made), "size": len(made)})
    body["manifests"] = entries
    body["annotations"] = {**(body.get("annotations") or {}), **annotations}
    return _bytes(body)


def labels_of(configuration: bytes) -> dict[str, str]:
    """Return the labels of an image's configuration, those that are text; none where it cannot be read."""
    try:
        config = _object(configuration, "configuration").get("config")
    except ManifestError:
        return {}
    labels = config.get("Labels") if isinstance(config, dict) else None
    return {key: value for key, value in labels.items() if isinstance(value, str)} if isinstance(labels, dict) else {}


def _object(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > SIZE_MOST:
        raise ManifestError(f"has a {what} larger than {SIZE_MOST // 1024 // 1024} MiB")
    try:
        body = json.loads(data, parse_constant=_refused, parse_float=_finite)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ManifestError(f"has {'an' if what == 'index' else 'a'} {what} that is no JSON object")
    return body


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _finite(number: str) -> float:
    """Return a number that can be written again. What is too large would be `Infinity`, which is no JSON."""
    found = float(number)
    if not math.isfinite(found):
        raise ValueError(number)
    return found


def _bytes(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
