"""The plugin contract, executable: what a plugin promises, each promise a test whose docstring is the rule.

Two doors lead to the same tests. `kmm conformance NAME` asks an installed plugin without a line of test code, as
`pytest --pyargs kmm.conformance --kmm-plugin NAME` does. The classes of this package are for a plugin's own tests:
a subclass says by fixtures what cannot be guessed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmm.conformance.base_images import BaseImagesContract
    from kmm.conformance.driver import DriverContract
    from kmm.conformance.observation import ObservationContract
    from kmm.conformance.plugin import PluginContract
    from kmm.conformance.registry import RegistryContract
    from kmm.conformance.renderer import BuilderContract, DevicePluginContract, SignerContract
    from kmm.conformance.validation import ValidationContract

__all__ = [
    "BaseImagesContract",
    "BuilderContract",
    "DevicePluginContract",
    "DriverContract",
    "ObservationContract",
    "PluginContract",
    "RegistryContract",
    "SignerContract",
    "ValidationContract",
]

# pytest imports this package in every run of everybody who has kmm installed: it must cost nothing.
_WHERE = {
    "BaseImagesContract": "base_images",
    "BuilderContract": "renderer",
    "DevicePluginContract": "renderer",
    "DriverContract": "driver",
    "ObservationContract": "observation",
    "PluginContract": "plugin",
    "RegistryContract": "registry",
    "SignerContract": "renderer",
    "ValidationContract": "validation",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
