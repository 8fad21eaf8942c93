"""The hooks that a plugin may define: plain functions with these names, each called apart for each plugin.

Those that offer something are called once, at start. A plugin defines those it needs; a parameter that it does
not need may be left out. No decorator is necessary: every function whose name begins with `kmm_` is a hook, so
that a mistyped one is noticed. Hooks are ordinary (not `async`) functions without keyword-only parameters. A
plugin whose hook raises at start, or offers something else than is said here, is refused; the others are not
touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from kmm.contract import (
        BaseImages,
        Builder,
        DevicePlugin,
        Driver,
        Finding,
        Manifest,
        Record,
        Registry,
        Settings,
        Signer,
    )

hookspec = pluggy.HookspecMarker("kmm")


@hookspec
def kmm_registries(settings: Settings) -> Sequence[Registry]:
    """Offer ways to ask registries about images.

    Chosen by: the most specific host pattern. Two plugins with the same pattern: the operator does not start.
    """
    raise NotImplementedError


@hookspec
def kmm_builders(settings: Settings) -> Sequence[Builder]:
    """Offer ways to build an image.

    Chosen by: `build.builder` of the Module, else the operator's configuration, else what fits the cluster.
    """
    raise NotImplementedError


@hookspec
def kmm_signers(settings: Settings) -> Sequence[Signer]:
    """Offer ways to sign the kernel modules inside an image.

    Chosen by: `sign.signer` of the Module, else the operator's configuration, else what fits the cluster.
    """
    raise NotImplementedError


@hookspec
def kmm_device_plugins(settings: Settings) -> Sequence[DevicePlugin]:
    """Offer ways to run a device plugin.

    Chosen by: `devicePlugin.renderer` of the Module, else the operator's configuration, else `daemonset`.
    """
    raise NotImplementedError


@hookspec
def kmm_drivers(settings: Settings) -> Sequence[Driver]:
    """Offer a vendor's Module defaults, as data.

    Chosen by: `spec.driver` of the Module.
    """
    raise NotImplementedError


@hookspec
def kmm_base_images(settings: Settings) -> Sequence[BaseImages]:
    """Offer the images that drivers are built in, for each release of a distribution.

    Chosen by: the build argument that a Dockerfile uses.
    """
    raise NotImplementedError


@hookspec
def kmm_validate_module(module: Manifest) -> Sequence[Finding]:
    """Judge a Module's manifest (a copy of it, its driver merged in) beyond what the API says.

    Chosen by: nothing. All are asked and their findings are put together. It is called often, and for every
    Module: it is pure and quick, and returns nothing for Modules that are not its own (`spec.driver` is kept in
    the copy). What it raises becomes a warning.
    """
    raise NotImplementedError


@hookspec
def kmm_observe(record: Record) -> None:
    """Be told of what the operator did, for a vendor's own metrics or logs.

    Chosen by: nothing. All are told, one record after the other, on a thread of their own; where they are
    too slow, records are dropped and counted. What it raises is counted. Metrics that a plugin registers with
    prometheus_client's own `REGISTRY`, as they do where nothing is said, are served with the operator's. Those whose
    names begin with `kmm_` are not: such names are the operator's.
    """
