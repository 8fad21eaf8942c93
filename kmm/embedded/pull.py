"""Images from a registry, as far as a kubelet asks: is the image there?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from kmm.contract import Access, Forbidden, ImageInfo, Unavailable
from kmm.embedded.kubelet import Pull, PullError
from kmm.oci import reference
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.inspection import inspect
from kmm.oci.session import Session

_ANYWHERE = Addresses(allowed=parse_networks(["0.0.0.0/0", "::/0"]))  # as a container runtime, without a proxy


def from_registry(access: Mapping[str, Access] | None = None, *, timeout_s: float = 10) -> Pull:
    """Return a pull that asks the image's own registry.

    `access`: what the nodes know of registries, by host (with port): credentials, TLS, authorities. A registry that
    is not there is asked by HTTPS and anonymously; the `imagePullSecrets` of pods are not looked at.
    """
    known = dict(access or {})

    async def pull(image: str, _: Mapping[str, Any]) -> None:
        failed = f'failed to pull and unpack image "{image}": failed to resolve image'
        try:
            host = reference.parse(image).host
            found = await asyncio.to_thread(_asked, image, known.get(host) or Access(), timeout_s)
        except reference.ReferenceError as error:
            raise PullError(f"{failed}: {error}") from None
        except Forbidden:
            denied = "pull access denied, repository does not exist or may require authorization"
            raise PullError(f"{failed}: {denied}") from None
        except Unavailable as error:
            raise PullError(f"{failed}: failed to do request: {error}") from None
        if found is None:
            raise PullError(f"{failed}: {image}: not found")

    return pull


def _asked(image: str, access: Access, timeout_s: float) -> ImageInfo | None:
    with closing(Session(_ANYWHERE, environ={})) as session:
        return inspect(image, access, session, timeout_s)
