"""What an administrator may set: `plugins.options.acme` in the operator's configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmm.contract import Settings, SettingsError

_REGISTRY = re.compile(r"[a-z0-9][-a-z0-9.]*(:[0-9]+)?(/[a-z0-9][-._a-z0-9]*)*")
_RELEASE = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`registry`: where the images are, a mirror of Acme's own for instance. `release`: of the driver in them."""

    registry: str = "registry.acme.example/drivers"
    release: str = "2.4.1"


def read(settings: Settings) -> Options:
    """Return the options. Raises SettingsError: the operator then refuses the plugin, and shows the text."""
    given = settings.only("registry", "release")
    registry = given.get("registry", Options().registry)
    release = given.get("release", Options().release)
    if not isinstance(registry, str) or not _REGISTRY.fullmatch(registry):
        raise SettingsError("registry: must be a registry, and a path in it, such as registry.example.com/acme")
    if not isinstance(release, str) or not _RELEASE.fullmatch(release):
        raise SettingsError(f'release: must be a release of the driver, in quotes, such as "{Options().release}"')
    return Options(registry=registry, release=release)
