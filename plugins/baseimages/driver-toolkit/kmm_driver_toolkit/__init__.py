"""Knows OpenShift's driver toolkit: for each release of its operating system, an image to build drivers in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kmm.contract import BaseImages, Kind, Listing, Manifest, Settings

IMAGE_STREAM = Kind(api_version="image.openshift.io/v1", kind="ImageStream", plural="imagestreams")
LISTING = Listing(kind=IMAGE_STREAM, namespace="openshift", name="driver-toolkit")
# It is whichever release was imported last: not the one of every node while a cluster is upgraded.
_NOT_A_VERSION = "latest"
# "Red Hat Enterprise Linux CoreOS 416.94.202405291527-0 (Plow)", "… CoreOS 9.6.20250513-0 (Plow)"
_OS_VERSION = re.compile(r"CoreOS ([0-9]+(?:\.[0-9]+)+(?:-[0-9]+)?)(?= |$)")
_OS_IMAGE_LONGEST = 256
# The kernel, and the one for real time.
_KERNELS = ("KERNEL_VERSION", "RT_KERNEL_VERSION")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverToolkit:
    """The ImageStream `driver-toolkit`, which OpenShift keeps: a tag for each release that the cluster has had."""

    name: str = "driver-toolkit"
    argument: str = "DTK_AUTO"
    listing: Listing | None = LISTING
    release_file: str = "/etc/driver-toolkit-release.json"

    def images(self, listing: Manifest | None) -> Mapping[str, str]:
        """Return the images of all tags but `latest`: what a tag is to be, else what it was last seen to be."""
        if listing is None:
            return {}
        seen = dict(_seen(listing))
        return {**seen, **dict(_wanted(listing))}

    def os_version(self, os_image: str) -> str:
        """Return the version of a CoreOS; of another system, none can be told."""
        found = _OS_VERSION.search(os_image) if len(os_image) <= _OS_IMAGE_LONGEST else None
        return found[1] if found else ""

    def kernels(self, release: bytes) -> Sequence[str]:
        """Return the kernels that the release file names; none where it cannot be read."""
        try:
            said = json.loads(release)
        except (ValueError, RecursionError):
            return ()
        words = [said.get(key) for key in _KERNELS] if isinstance(said, dict) else []
        return [each for each in words if isinstance(each, str) and each]


def kmm_base_images(settings: Settings) -> list[BaseImages]:
    """Offer it, under the build argument `DTK_AUTO`. It has no options."""
    settings.only()
    return [DriverToolkit()]


def _wanted(stream: Manifest) -> Iterator[tuple[str, str]]:
    for tag in _maps(_map(stream, "spec"), "tags"):
        origin = _map(tag, "from")
        if origin.get("kind") == "DockerImage":
            yield from _entry(tag.get("name"), origin.get("name"))


def _seen(stream: Manifest) -> Iterator[tuple[str, str]]:
    for tag in _maps(_map(stream, "status"), "tags"):
        for item in _maps(tag, "items")[:1]:  # the newest
            yield from _entry(tag.get("tag"), item.get("dockerImageReference"))


def _entry(version: object, image: object) -> Iterator[tuple[str, str]]:
    if isinstance(version, str) and isinstance(image, str) and version and image and version != _NOT_A_VERSION:
        yield version, image


def _map(parent: Manifest, key: str) -> Manifest:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def _maps(parent: Manifest, key: str) -> list[Manifest]:
    value = parent.get(key)
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else []
