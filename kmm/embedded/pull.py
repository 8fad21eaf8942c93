"""Images from a registry, as far as a kubelet asks: is the manifest there?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from kmm.embedded.kubelet import Pull, PullError
from kmm.oci import reference as references

_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)


def from_registry(*, insecure: frozenset[str] = frozenset(), timeout_s: float = 10) -> Pull:
    """Return a pull that asks the image's own registry, anonymously.

    `insecure`: the hosts (with port) that speak plain HTTP.
    """

    async def pull(image: str, _: Mapping[str, Any]) -> None:
        failed = f'failed to pull and unpack image "{image}": failed to resolve image'
        try:
            reference = references.parse(image)
        except references.ReferenceError as error:
            raise PullError(f"{failed}: {error}") from error
        scheme = "http" if reference.host in insecure else "https"
        wanted = reference.digest or reference.tag or "latest"
        url = f"{scheme}://{reference.host}/v2/{reference.path}/manifests/{wanted}"
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
                session.head(url, headers={"Accept": _MANIFESTS}) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PullError(f"{failed}: failed to do request: Head {url!r}: {error}") from error
        if status == 404:
            raise PullError(f"{failed}: {image}: not found")
        if status in (401, 403):
            raise PullError(f"{failed}: pull access denied, repository does not exist or may require authorization")
        if status != 200:
            raise PullError(f"{failed}: unexpected status from HEAD request to {url}: {status}")

    return pull
