"""Which builder and which signer: what the Module names, else the configuration, else what fits the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from kmm.api.module import ModuleSpec
from kmm.catalog import Catalog
from kmm.contract import Builder, Limited, Renderer, Signer, Tls
from kmm.core.images import Makers
from kmm.core.mapping import KernelTarget
from kmm.core.view import Operator, Unknown, View
from kmm.errors import PluginError

R = TypeVar("R")

IGNORABLE: Mapping[str, str] = {
    "args": "build.buildArgs",
    "base_tls": "build.baseImageRegistryTLS",
    "builder_tag": "build.kanikoParams",
    "node_selector": "build.selector",
    "params": "build.params",
    "push_tls": "registryTLS",
    "secrets": "build.secrets",
}
"""What a builder may have no means for, by the field of its request: the Module's own name of it."""

_OPENSHIFT_BUILD, _BUILDAH = "openshift-build", "buildah"
_UNNAMED = "the Module names no {}, and neither does the configuration"


class UndecidedError(PluginError):
    """What fits the cluster is not known yet, and was not known before: nothing may be started."""


def makers(catalog: Catalog, view: View) -> Makers:
    """Return how builders and signers are chosen for the Module of a view."""
    operator = view.operator

    def builder(name: str | None) -> Builder:
        name = name or operator.builder
        return catalog.builder(name) if name else _fitting(catalog, default_builder(catalog, view))

    return Makers(
        builder=builder,
        base_images={each: partial(catalog.base_image, each) for each in catalog.base_image_arguments},
        signer=signer_of(catalog, operator),
    )


def signer_of(catalog: Catalog, operator: Operator) -> Callable[[str | None], Signer]:
    """Return how a signer is chosen. It raises PluginError where nothing fits."""

    def signer(name: str | None) -> Signer:
        name = name or operator.signer or catalog.usual_signer
        return _choose("signer", name, catalog.signers, catalog.signer)

    return signer


def builder_to_keep(spec: ModuleSpec | None, catalog: Catalog, view: View) -> str:
    """Return the name that the status is to keep, for when the API server cannot say; empty where none was chosen."""
    if spec is None or not _leaves_the_choice(spec, view):
        return ""
    try:
        return default_builder(catalog, view)
    except PluginError:
        return ""


def default_builder(catalog: Catalog, view: View) -> str:
    """Return the name of the builder for whoever names none, installed or not.

    That the API server could not say what it has changes no choice: the status keeps the last one. Raises
    UndecidedError where there is none, and PluginError where nothing says which of the installed ones is meant.
    """
    if isinstance(view.openshift_builds, Unknown):
        kept = view.status.get("builder")
        if isinstance(kept, str) and kept:
            return kept
        raise UndecidedError(
            f"{_UNNAMED.format('builder')}; whether OpenShift builds images here is not known, as the API server did "
            f"not say: {view.openshift_builds.message}; it is asked again"
        )
    if view.openshift_builds:
        return _OPENSHIFT_BUILD
    if _BUILDAH in catalog.builders or ("builder", _BUILDAH) in catalog.contested:
        return _BUILDAH
    return _choose("builder", None, catalog.builders, catalog.builder).name


def ignored(target: KernelTarget, builder: Builder) -> str:
    """Return what a builder does not use of what a Module says of a build; empty where it uses all."""
    if target.build is None or not isinstance(builder, Limited):
        return ""
    said = {
        "args": target.build.args,
        "base_tls": target.build.base_tls != Tls(),
        "builder_tag": target.build.builder_tag,
        "node_selector": target.build.selector,
        "params": target.build.params,
        "push_tls": target.tls != Tls(),
        "secrets": target.build.secrets,
    }
    words = [IGNORABLE[field] for field in sorted(builder.ignores) if said.get(field)]
    return f"the builder {builder.name} has no means for {' and '.join(words)}: it builds without" if words else ""


def _fitting(catalog: Catalog, name: str) -> Builder:
    if name in catalog.builders or ("builder", name) in catalog.contested:
        return catalog.builder(name)
    installed = ", ".join(sorted(catalog.builders)) or "none"
    raise PluginError(
        f'{_UNNAMED.format("builder")}; "{name[:80]}" is what fits this cluster, and is not installed; installed: '
        f"{installed}; choose one by build.builder in the Module, or by builder in the operator's configuration"
    )


def _choose(
    noun: str, name: str | None, offers: Mapping[str, Renderer[R]], named: Callable[[str], Renderer[R]]
) -> Renderer[R]:
    if name is not None:
        return named(name)
    if len(offers) == 1:
        return next(iter(offers.values()))
    installed = f"installed: {', '.join(sorted(offers))}" if offers else f"no {noun} is installed"
    raise PluginError(f"{_UNNAMED.format(noun)}; {installed}")


def _leaves_the_choice(spec: ModuleSpec, view: View) -> bool:
    """Whether a Module builds, and neither it nor the configuration names a builder everywhere."""
    container = spec.module_loader.container if spec.module_loader else None
    if container is None or view.operator.builder:
        return False
    default = container.build
    return any(
        (own or default) and not ((own and own.builder) or (default and default.builder))
        for own in (mapping.build for mapping in container.kernel_mappings)
    )
