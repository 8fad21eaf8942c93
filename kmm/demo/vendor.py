"""A vendor whose driver takes part where its package is installed: Acme, which is examples/acme-kmm in the source.

What the driver asks for, images for each kernel with firmware in them, is what the demo's registry has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import Any

from kmm.admission import judge, line
from kmm.api.module import Module
from kmm.contract import Manifest, ModuleRef, Settings
from kmm.core.kernel import expand
from kmm.core.mapping import resolve
from kmm.errors import PluginError
from kmm.loader import load_catalog

PLUGIN, DISTRIBUTION, DRIVER = "acme", "acme-kmm", "acme"
METRIC = 'acme_driver_actions_total{action="Create"}'
"""One of those that the vendor counts, by what `kmm_observe` is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """What a Module with the driver comes to. `module`: what is loaded, from `folder` in the image of each kernel."""

    version: str
    module: str
    folder: str
    firmware: str
    images: Mapping[str, str]
    device_plugin: str


def options(host: str) -> dict[str, Any]:
    """Return the plugin's options: the registry at `host` mirrors the vendor's own."""
    return {"registry": f"{host}/acme"}


def find(host: str, manifest: Manifest, kernels: Iterable[str]) -> Vendor:
    """Return what the installed driver makes of a Module. Raises PluginError, which says why there is none."""
    installed = list(distributions(name=DISTRIBUTION))
    if not installed:
        raise PluginError(f"{DISTRIBUTION} is not installed")
    settings = Settings(options=options(host))
    catalog = load_catalog([DISTRIBUTION], lambda _: settings, installed)
    for refusal in catalog.refusals:
        raise PluginError(f"{DISTRIBUTION}: {refusal.reason}: {refusal.message}")
    catalog.driver(DRIVER)
    judgement = judge(manifest, catalog)
    for error in judgement.errors:
        raise PluginError(line(error))
    module: Module = judgement.value
    container = module.spec.module_loader.container if module.spec.module_loader else None
    plugin = module.spec.device_plugin.container if module.spec.device_plugin else None
    modprobe = container.modprobe if container else None
    if not (container and modprobe and modprobe.module_name and modprobe.firmware_path and plugin and plugin.image):
        raise PluginError(f'the driver "{DRIVER}" brings no firmware or no device plugin')
    ref = ModuleRef(namespace=str(manifest["metadata"]["namespace"]), name=str(manifest["metadata"]["name"]))
    images = {kernel: target.image for kernel in kernels if (target := resolve(container, ref, kernel))}
    return Vendor(
        version=catalog.plugins[0].version,
        module=modprobe.module_name,
        folder=modprobe.dir_name,
        firmware=f"{modprobe.firmware_path}/{modprobe.module_name}.bin",
        images=images,
        device_plugin=expand(plugin.image, ref, None),
    )
