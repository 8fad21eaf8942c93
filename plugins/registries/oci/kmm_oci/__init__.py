"""Asks any registry that speaks the OCI's distribution protocol, or Docker's before it, about images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kmm.contract import Access, ImageInfo, Registry, Settings, SettingsError
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.inspection import inspect
from kmm.oci.session import Session


@dataclass(frozen=True, slots=True)
class Oci:
    """Serves every host that no other plugin serves. Connections and tokens are shared by all questions."""

    session: Session
    name: str = "oci"
    hosts: tuple[str, ...] = ("*",)

    def inspect(
        self, image: str, access: Access, deadline_s: float, files: Sequence[str] = (), annotations: bool = False
    ) -> ImageInfo | None:
        """Return what is known of `image`: one HEAD, and a GET where that is not enough."""
        return inspect(image, access, self.session, deadline_s, files, annotations=annotations)


def kmm_registries(settings: Settings) -> Sequence[Registry]:
    """Offer it. Option `allowAddresses`: networks that may be connected to though they would be refused."""
    networks = settings.only("allowAddresses").get("allowAddresses", [])
    if not isinstance(networks, list) or not all(isinstance(each, str) for each in networks):
        raise SettingsError('allowAddresses: must be a list of networks, such as ["127.0.0.0/8"]')
    try:
        allowed = parse_networks(networks)
    except ValueError as error:
        raise SettingsError(f"allowAddresses: {error}") from None
    return [Oci(Session(Addresses(allowed=allowed)))]
