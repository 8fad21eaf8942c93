"""What the loaded plugins offer, chosen by name or by registry host, never by order of installation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from kmm.api.driver import merge
from kmm.contract import (
    BaseImages,
    Builder,
    DevicePlugin,
    Driver,
    Finding,
    Manifest,
    Record,
    Registry,
    Signer,
    nearest,
)
from kmm.errors import ConfigError, PluginError

T = TypeVar("T")

_USUAL_SIGNER = "sign-file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One plugin that was accepted, and what it offers. `deprecated`: what it uses of the contract that will go."""

    name: str
    distribution: str
    version: str
    registries: tuple[Registry, ...] = ()
    builders: tuple[Builder, ...] = ()
    signers: tuple[Signer, ...] = ()
    device_plugins: tuple[DevicePlugin, ...] = ()
    drivers: tuple[Driver, ...] = ()
    base_images: tuple[BaseImages, ...] = ()
    validate_module: Callable[[Manifest], Sequence[Finding]] | None = None
    observe: Callable[[Record], None] | None = None
    deprecated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A plugin, or one thing that it offers, that is not used, and why. `reason`: one word of kmm/core/reasons.py."""

    name: str
    distribution: str
    version: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Providers by name, registries by host pattern, and base images by their build argument.

    `contested`: names that several plugins offer, by kind; none of them is used.
    """

    plugins: tuple[Plugin, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    builders: Mapping[str, Builder] = field(default_factory=dict)
    signers: Mapping[str, Signer] = field(default_factory=dict)
    device_plugins: Mapping[str, DevicePlugin] = field(default_factory=dict)
    drivers: Mapping[str, Driver] = field(default_factory=dict)
    base_images: Mapping[str, BaseImages] = field(default_factory=dict)
    registries: Mapping[str, Registry] = field(default_factory=dict)
    contested: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def builder(self, name: str) -> Builder:
        """Return the builder of that name. Raises PluginError, naming those that are installed."""
        return self._named("builder", self.builders, name)

    def signer(self, name: str) -> Signer:
        """Return the signer of that name. Raises PluginError, naming those that are installed."""
        return self._named("signer", self.signers, name)

    @property
    def usual_signer(self) -> str | None:
        """The name of the signer for whoever names none: that of keys in Secrets, else the only one, else None."""
        if _USUAL_SIGNER in self.signers or ("signer", _USUAL_SIGNER) in self.contested:
            return _USUAL_SIGNER
        return next(iter(self.signers)) if len(self.signers) == 1 else None

    def device_plugin(self, name: str) -> DevicePlugin:
        """Return the device-plugin renderer of that name. Raises PluginError, naming the installed ones."""
        return self._named("device-plugin renderer", self.device_plugins, name)

    def driver(self, name: str) -> Driver:
        """Return the driver of that name. Raises PluginError, naming those that are installed."""
        return self._named("driver", self.drivers, name)

    def base_image(self, argument: str) -> BaseImages:
        """Return what knows the images of a build argument. Raises PluginError where several claim it, or none."""
        return self._named("build argument", self.base_images, argument)

    @property
    def base_image_arguments(self) -> frozenset[str]:
        """The build arguments that stand for base images, also those that several plugins claim."""
        claimed = (name for kind, name in self.contested if kind == "build argument")
        return frozenset((*self.base_images, *claimed))

    def whole_spec(self, spec: Manifest) -> dict[str, Any]:
        """Return a Module's spec with its driver's defaults merged under it, and `driver` itself resolved away.

        Raises PluginError where no installed plugin offers that driver.
        """
        own = {key: value for key, value in spec.items() if key != "driver"}
        name = spec.get("driver")
        return merge(self.driver(name).spec, own) if isinstance(name, str) and name else own

    def registry(self, host: str) -> Registry:
        """Return the registry plugin with the most specific pattern for `host` (`host` or `host:port`).

        Raises PluginError where none serves that host.
        """
        for pattern in _patterns(host.lower()):
            if pattern in self.registries:
                return self.registries[pattern]
        installed = ", ".join(sorted(self.registries)) or "none"
        raise PluginError(f'no registry plugin serves "{host}"; installed patterns: {installed}')

    def _named(self, kind: str, offers: Mapping[str, T], name: str) -> T:
        if name in offers:
            return offers[name]
        if rivals := self.contested.get((kind, name)):
            raise PluginError(
                f'{kind} "{name}" is offered by {" and by ".join(rivals)}: none of them is used; '
                "uninstall all but one, or take them off plugins.allow"
            )
        installed = ", ".join(sorted(offers)) or "none"
        refused = "; some plugins were refused, see `kmm plugins`" if self.refusals else ""
        raise PluginError(f'no {kind} "{name[:80]}"; installed: {installed}{nearest(name, offers)}{refused}')


def build_catalog(plugins: Iterable[Plugin], refusals: Iterable[Refusal] = ()) -> Catalog:
    """Index what `plugins` offer. A name that several offer is used from none, and is a refusal of each.

    Raises ConfigError where two plugins claim the same registry pattern: which one answers decides whether
    images are built, so that no guess will do.
    """
    plugins = tuple(sorted(plugins, key=lambda plugin: (plugin.name, plugin.distribution)))
    contested: dict[tuple[str, str], tuple[str, ...]] = {}
    refused = list(refusals)

    def index(kind: str, offers: Callable[[Plugin], Sequence[Any]], by: str = "name") -> Mapping[str, Any]:
        by_name: dict[str, list[tuple[Plugin, Any]]] = defaultdict(list)
        for plugin in plugins:
            for offer in offers(plugin):
                by_name[getattr(offer, by)].append((plugin, offer))
        for name, rivals in by_name.items():
            if len(rivals) > 1:
                contested[kind, name] = tuple(f"{plugin.distribution} {plugin.version}" for plugin, _ in rivals)
                refused.extend(
                    Refusal(
                        name=plugin.name,
                        distribution=plugin.distribution,
                        version=plugin.version,
                        reason="DuplicateName",
                        message=f'{kind} "{name}" is offered by {" and by ".join(contested[kind, name])}',
                    )
                    for plugin, _ in rivals
                )
        return MappingProxyType({name: found[0][1] for name, found in by_name.items() if len(found) == 1})

    registries: dict[str, Registry] = {}
    claimed: dict[str, str] = {}
    for plugin in plugins:
        for registry in plugin.registries:
            for pattern in registry.hosts:
                who = f"{plugin.distribution} {plugin.version}"
                if pattern in registries:
                    raise ConfigError(
                        f'registry pattern "{pattern}" is claimed by {claimed[pattern]} and by {who}: uninstall '
                        "one of them, or take it off plugins.allow"
                    )
                registries[pattern], claimed[pattern] = registry, who
    return Catalog(
        plugins=plugins,
        builders=index("builder", lambda plugin: plugin.builders),
        signers=index("signer", lambda plugin: plugin.signers),
        device_plugins=index("device-plugin renderer", lambda plugin: plugin.device_plugins),
        drivers=index("driver", lambda plugin: plugin.drivers),
        base_images=index("build argument", lambda plugin: plugin.base_images, by="argument"),
        registries=MappingProxyType(registries),
        contested=MappingProxyType(contested),
        refusals=tuple(refused),
    )


def _patterns(host: str) -> Iterable[str]:
    """Every pattern that matches `host`, the most specific first."""
    yield host
    name = host.rpartition(":")[0] or host
    if name != host:
        yield name
    labels = name.split(".")
    for cut in range(1, len(labels)):
        yield "*." + ".".join(labels[cut:])
    yield "*"
