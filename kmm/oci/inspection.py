"""What a Registry plugin is asked, answered with a Client: does an image exist, and what is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from kmm.contract import Access, ImageInfo, Unavailable
from kmm.oci import layers, reference
from kmm.oci.client import Client, Image
from kmm.oci.layers import LayerError, Limits
from kmm.oci.manifest import Descriptor, Index, Manifest
from kmm.oci.session import Session

_CONFIG_MOST = 4 * 1024 * 1024
_LABELS_MOST = 2_000


def inspect(
    image: str,
    access: Access,
    session: Session,
    deadline_s: float,
    files: Sequence[str] = (),
    *,
    annotations: bool = False,
    limits: Limits | None = None,
) -> ImageInfo | None:
    """Return what is known of an image, or None where the registry says that it has no such thing.

    Costs one request, and a second one for an index; with `annotations` or `files`, one more for the manifest, one
    for the configuration, and one for each layer that is looked through. Of an index, what is asked for is read from
    the image of its first architecture.

    Raises Unavailable and Forbidden as the Client does, and Unavailable where a layer cannot be read.
    """
    parsed = reference.parse(image)
    client = Client(parsed.registry, access, session=session, deadline_s=deadline_s)
    found = client.resolve(parsed, annotations=annotations or bool(files))
    if found is None:
        return None
    said: Mapping[str, str] = {}
    contents: Mapping[str, bytes] = {}
    if annotations or files:
        one = _one(client, parsed, found)
        if annotations:
            said = {**_labels(client, parsed.name, one), **one.annotations, **found.annotations}
        if files:
            contents = _files(client, parsed.name, one, files, limits)
    return ImageInfo(digest=found.digest, architectures=found.architectures, annotations=said, files=contents)


def _one(client: Client, image: reference.Reference, found: Image) -> Manifest:
    """Return the manifest of an image, of an index the first one's."""
    manifest = found.manifest
    if isinstance(manifest, Index):
        entry = manifest.choose(min(manifest.architectures, default=""))
        if entry is None:
            raise Unavailable(f"{client.host}: {image.name} is an index without an image for Linux")
        below = client.manifest(reference.parse(f"{image.repository}@{entry.digest}"))
        manifest = below.manifest if below else None
    if not isinstance(manifest, Manifest):
        raise Unavailable(f"{client.host}: the manifest of {image.name} cannot be read, though it is named")
    return manifest


def _labels(client: Client, repository: str, manifest: Manifest) -> dict[str, str]:
    """Return the labels of an image's configuration, those that are text."""
    if manifest.config.size > _CONFIG_MOST:
        return {}
    try:
        said: Any = json.loads(_whole(client, repository, manifest.config))
    except (ValueError, RecursionError):
        return {}
    config = said.get("config") if isinstance(said, dict) else None
    labels = config.get("Labels") if isinstance(config, dict) else None
    found = list(labels.items())[:_LABELS_MOST] if isinstance(labels, dict) else []
    return {key: value for key, value in found if isinstance(value, str)}


def _whole(client: Client, repository: str, descriptor: Descriptor) -> bytes:
    with client.blob(repository, descriptor) as blob:
        return b"".join(blob)


def _files(
    client: Client, repository: str, manifest: Manifest, files: Sequence[str], limits: Limits | None
) -> dict[str, bytes]:
    openers = [partial(client.blob, repository, each) for each in manifest.layers]
    try:
        return layers.find(openers, files, limits, client.check_deadline)
    except LayerError as error:
        raise Unavailable(f"{client.host}: a layer of {repository} {error}") from None
