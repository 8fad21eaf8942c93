"""From installed distributions to plugins: each found, imported, called and checked apart from all others.

Whatever one of them does wrong becomes a refusal that says so; the others, and the operator, go on.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import pluggy

from kmm import hookspecs
from kmm.api.module import ModuleSpec
from kmm.api.schema import load
from kmm.catalog import Catalog, Plugin, Refusal, build_catalog
from kmm.contract import (
    CONTRACT_VERSION,
    ENTRY_POINT_GROUP,
    BaseImages,
    BuildRequest,
    ContractDeprecation,
    DevicePluginRequest,
    Driver,
    ImageInfo,
    Kind,
    Listing,
    Manifest,
    ModuleRef,
    Place,
    Placed,
    Progress,
    Registry,
    Renderer,
    Settings,
    SettingsError,
    SignRequest,
    nearest,
)
from kmm.core.choice import IGNORABLE
from kmm.core.mapping import INJECTED_ARGS
from kmm.core.reasons import Reason
from kmm.errors import ConfigError

OWN_DISTRIBUTIONS = frozenset(
    f"kmm-{name}"
    for name in (
        "buildah",
        "daemonset",
        "driver-toolkit",
        "hsm",
        "kaniko",
        "oci",
        "openshift",
        "openshift-build",
        "sign-file",
    )
)
"""Those of this repository: as trusted as the operator itself."""

_GROUP = re.compile(r"kmm\.v(\d+)")
_NEARLY_GROUP = re.compile(r"kmm[-._ ]?v?\d*", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9\[]([-A-Za-z0-9.:\]]*[A-Za-z0-9\]])?")
_SPECS = tuple(name for name in vars(hookspecs) if name.startswith("kmm_"))
_LISTS = {
    "kmm_registries": "registries",
    "kmm_builders": "builders",
    "kmm_signers": "signers",
    "kmm_device_plugins": "device_plugins",
    "kmm_drivers": "drivers",
    "kmm_base_images": "base_images",
}
_MESSAGE_LONGEST = 500


class _Refused(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Hooks(pluggy.PluginManager):
    """Takes every function whose name begins with `kmm_` for a hook, so that a mistyped one is noticed."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        if name.startswith("kmm_") and callable(getattr(plugin, name, None)):
            return {
                "wrapper": False,
                "hookwrapper": False,
                "optionalhook": False,
                "tryfirst": False,
                "trylast": False,
                "specname": None,
            }
        return None


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry point of ours, and the distribution it is in."""

    entry_point: EntryPoint
    major: int
    distribution: str
    version: str

    def refusal(self, reason: Reason, message: str) -> Refusal:
        return Refusal(
            name=self.entry_point.name,
            distribution=self.distribution,
            version=self.version,
            reason=reason,
            message=_one_line(message),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """An entry point of ours that is installed. `value`: the object that it names."""

    name: str
    value: str
    distribution: Distribution


def find(name: str) -> Installed:
    """Return the installed plugin of that name, without importing it. Raises ConfigError, naming those there are."""
    known: dict[str, Installed] = {}
    for distribution in distributions():
        for each in _entry_points([distribution], []):
            point = each.entry_point
            known.setdefault(point.name, Installed(name=point.name, value=point.value, distribution=distribution))
    if name not in known:
        names = ", ".join(sorted(known)) or "none"
        raise ConfigError(f'no plugin "{name[:80]}" is installed{nearest(name, known)} (installed: {names})')
    return known[name]


def load_catalog(
    allow: Collection[str] = (),
    settings_of: Callable[[str], Settings] = lambda _: Settings(),
    found: Iterable[Distribution] | None = None,
    options: Collection[str] = (),
) -> Catalog:
    """Load the plugins of all installed distributions and index what they offer.

    `allow`: names of the distributions that may be imported beside our own, `["*"]` for all.
    `settings_of`: a plugin's settings by its entry point's name. `found`: distributions instead of the
    installed ones. `options`: the plugins that the configuration has options for. Raises ConfigError where two
    plugins claim the same registry pattern.
    """
    allowed = OWN_DISTRIBUTIONS | {_normal(name) for name in allow}
    own_major = int(ENTRY_POINT_GROUP.rpartition("v")[2])
    refusals: list[Refusal] = []
    candidates: dict[str, list[_Found]] = {}
    seen = list(_entry_points(distributions() if found is None else found, refusals))
    ours = {(each.distribution, each.entry_point.name) for each in seen if each.major == own_major}
    for each in seen:
        name = each.entry_point.name
        if each.major != own_major:
            if (each.distribution, name) in ours:
                continue  # it has one for operators of either contract
            refusals.append(
                each.refusal(
                    Reason.OTHER_CONTRACT,
                    f"it is made for version {each.major} of the plugin contract, this operator speaks "
                    f"{CONTRACT_VERSION}: install a release of {each.distribution} for that",
                )
            )
        elif "*" not in allowed and _normal(each.distribution) not in allowed:
            refusals.append(
                each.refusal(
                    Reason.NOT_ALLOWED,
                    f"it is not in plugins.allow, so it was not imported: add {each.distribution} there, or to "
                    "KMM_PLUGINS_ALLOW, if it is to run with the operator's rights",
                )
            )
        elif not _NAME.fullmatch(name):
            refusals.append(each.refusal(Reason.BAD_NAME, f'its entry point "{name}" {_NAME_RULE}'))
        else:
            candidates.setdefault(name, []).append(each)
    plugins = []
    for name, rivals in candidates.items():
        if len(rivals) > 1:
            who = " and by ".join(f"{rival.distribution} {rival.version}" for rival in rivals)
            refusals += [
                rival.refusal(
                    Reason.DUPLICATE_NAME, f'the plugin "{name}" is installed by {who}: keep only one of them'
                )
                for rival in rivals
            ]
            continue
        try:
            with _deprecations() as deprecated:
                plugin = _load(rivals[0], settings_of(name))
            plugins.append(dataclasses.replace(plugin, deprecated=tuple(dict.fromkeys(deprecated))))
        except _Refused as refused:
            refusals.append(rivals[0].refusal(refused.reason, str(refused)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it must stop nobody else
            refusals.append(rivals[0].refusal(Reason.BROKEN, _told(error)))
    return build_catalog(plugins, [*refusals, *_not_installed(allow, options, seen, refusals)])


def _not_installed(
    allow: Collection[str], options: Collection[str], seen: Sequence[_Found], refusals: Sequence[Refusal]
) -> Iterator[Refusal]:
    """Yield what the configuration names and nobody has installed: most likely it is misspelt."""
    distributions_seen = {each.distribution for each in seen} | {each.distribution for each in refusals}
    normal = {_normal(name) for name in distributions_seen}
    for name in allow:
        if name != "*" and _normal(name) not in normal:
            message = f"plugins.allow names it, but no plugin of it is installed{nearest(name, distributions_seen)}"
            yield Refusal(name=name, distribution=name, version="-", reason=Reason.NOT_INSTALLED, message=message)
    names = {each.entry_point.name for each in seen}
    for name in options:
        if name not in names:
            message = f"plugins.options has a section for it, but no such plugin is installed{nearest(name, names)}"
            yield Refusal(name=name, distribution="-", version="-", reason=Reason.NOT_INSTALLED, message=message)


def _entry_points(found: Iterable[Distribution], refusals: list[Refusal]) -> Iterator[_Found]:
    seen: set[str] = set()
    for distribution in found:
        name = version = "unknown"
        try:
            name = str(distribution.metadata["Name"])
            version = str(distribution.version)
            if _normal(name) in seen:
                continue  # shadowed by one that stands earlier on the path
            seen.add(_normal(name))
            entry_points = list(distribution.entry_points)
        except Exception as error:
            if ENTRY_POINT_GROUP.rpartition(".")[0] + ".v" in _entry_points_text(distribution):
                message = f"its metadata cannot be read: {_told(error)}"
                refusals.append(
                    Refusal(
                        name=name, distribution=name, version=version, reason=Reason.BAD_METADATA, message=message
                    )
                )
            continue
        for entry_point in entry_points:
            if match := _GROUP.fullmatch(entry_point.group):
                yield _Found(entry_point, int(match[1]), name, version)
            elif _NEARLY_GROUP.fullmatch(entry_point.group):
                message = (
                    f'its entry-point group "{entry_point.group}" is none of ours: it must be {ENTRY_POINT_GROUP}'
                )
                refusals.append(_Found(entry_point, 0, name, version).refusal(Reason.BAD_GROUP, message))


def _entry_points_text(distribution: Distribution) -> str:
    try:
        return distribution.read_text("entry_points.txt") or ""
    except Exception:
        return ""


@contextmanager
def _deprecations() -> Iterator[list[str]]:
    """Gather what of the contract is used that will go; other warnings are given as they were."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ContractDeprecation)
        yield said
    for each in caught:
        if issubclass(each.category, ContractDeprecation):
            said.append(_one_line(str(each.message)))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno, source=each.source)


def _load(found: _Found, settings: Settings) -> Plugin:
    try:
        target = found.entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _Refused(Reason.IMPORT_FAILED, f"importing {found.entry_point.value} failed: {_told(error)}") from None
    hooks = _Hooks("kmm")
    hooks.add_hookspecs(hookspecs)
    names = [name for name in dir(target) if name.startswith("kmm_") and callable(getattr(target, name, None))]
    if not names:
        raise _Refused(Reason.NO_HOOKS, f"{found.entry_point.value} defines none of the hooks: {', '.join(_SPECS)}")
    for name in names:
        _check_hook(name, getattr(target, name))
    try:
        hooks.register(target)
        hooks.check_pending()
    except pluggy.PluginValidationError as error:
        raise _Refused(Reason.BAD_HOOK, _told(error)) from None
    found_hooks = {name: _unary(name, getattr(target, name)) for name in names}
    offers = {
        field: _offers(name, field, found_hooks[name], settings)
        for name, field in _LISTS.items()
        if name in found_hooks
    }
    return Plugin(
        name=found.entry_point.name,
        distribution=found.distribution,
        version=found.version,
        validate_module=found_hooks.get("kmm_validate_module"),
        observe=found_hooks.get("kmm_observe"),
        **offers,
    )


def _unary(name: str, function: Callable[..., Any]) -> Callable[[Any], Any]:
    """Return a hook as a function of its one argument, which its author may have left out.

    pluggy's own call would drop a result that is None, and arguments that have a default.
    """
    (argument,) = inspect.signature(getattr(hookspecs, name)).parameters
    takes = argument in inspect.signature(function).parameters
    return lambda value: function(**{argument: value}) if takes else function()


def _check_hook(name: str, function: Any) -> None:
    if name not in _SPECS:
        raise _Refused(Reason.UNKNOWN_HOOK, f'there is no hook "{name}"{nearest(name, _SPECS)}')
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _Refused(Reason.BAD_HOOK, f"{name} is async: hooks are ordinary functions")
    if inspect.isgeneratorfunction(function):
        raise _Refused(Reason.BAD_HOOK, f"{name} is a generator: it returns a list")
    known = list(inspect.signature(getattr(hookspecs, name)).parameters)
    if not inspect.isroutine(function) or inspect.isbuiltin(function):
        raise _Refused(Reason.BAD_HOOK, f"{name} is {_a(function)}: hooks are ordinary functions")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise _Refused(
                Reason.BAD_HOOK, f'{name} has the parameter "{parameter}": only ordinary ones can be filled'
            )
        if parameter.name not in known and parameter.default is parameter.empty:
            raise _Refused(
                Reason.BAD_HOOK,
                f'{name} has the parameter "{parameter.name}"; the hook hands over: {", ".join(known)}',
            )


def _offers(name: str, field: str, hook: Callable[[Any], Any], settings: Settings) -> tuple[Any, ...]:
    try:
        result = hook(settings)
    except SettingsError as error:
        raise _Refused(Reason.BAD_SETTINGS, f"its configuration is wrong: {error}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _Refused(Reason.HOOK_RAISED, f"{name} raised {_told(error)}") from None
    if not isinstance(result, list | tuple):
        raise _Refused(Reason.WRONG_RESULT, f"{name} returned {_a(result)} instead of a list")
    taken = []
    for offer in list(result):
        try:
            wrong = _wrong(field, offer)
            taken.append(None if wrong else _plain(field, offer))
        except Exception as error:  # its attributes may be anything
            wrong = f"an object that raised {_told(error)}"
        if wrong:
            raise _Refused(Reason.WRONG_RESULT, f"{name} returned {wrong}")
    return tuple(taken)


@dataclass(frozen=True, slots=True)
class _Renderer:
    """A renderer as it was when it was checked: what a plugin does to its attributes later has no effect."""

    name: str
    owns: tuple[Kind, ...]
    requires: tuple[str, ...]
    ignores: tuple[str, ...]
    render: Callable[[Any], Sequence[Manifest]]
    observe: Callable[[Sequence[Manifest], Sequence[Manifest]], Progress]


@dataclass(frozen=True, slots=True)
class _Placed(_Renderer):
    """Likewise, of a signer that says where it works."""

    place: Callable[[ModuleRef, Mapping[str, Any]], Place]


@dataclass(frozen=True, slots=True)
class _Registry:
    """A registry as it was when it was checked."""

    name: str
    hosts: tuple[str, ...]
    inspect: Callable[..., ImageInfo | None]


@dataclass(frozen=True, slots=True)
class _BaseImages:
    """Base images as they were when they were checked."""

    name: str
    argument: str
    listing: Listing | None
    release_file: str
    images: Callable[[Manifest | None], Mapping[str, str]]
    os_version: Callable[[str], str]
    kernels: Callable[[bytes], Sequence[str]]


def _plain(field: str, offer: Any) -> Any:
    if field == "drivers":
        return Driver(name=str(offer.name), spec=_json(offer.spec), description=str(offer.description))
    if field == "registries":
        hosts = tuple(dict.fromkeys(str(host).lower() for host in offer.hosts))
        return _Registry(str(offer.name), hosts, offer.inspect)
    if field == "base_images":
        words = (str(offer.name), str(offer.argument), offer.listing, str(offer.release_file))
        return _BaseImages(*words, offer.images, offer.os_version, offer.kernels)
    plain = (
        str(offer.name),
        tuple(offer.owns),
        tuple(map(str, offer.requires)),
        tuple(map(str, getattr(offer, "ignores", ()))),  # as Limited has it
        offer.render,
        offer.observe,
    )
    return _Placed(*plain, offer.place) if field == "signers" and isinstance(offer, Placed) else _Renderer(*plain)


def _json(value: Any) -> Any:
    """Return a copy of a value as JSON has it. Raises TypeError for what JSON has not."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key that is not a string")
        return {str(key): _json(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_json(below) for below in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{_a(value)}, which JSON has not")


_NAME_RULE = "must be at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends"


def _wrong(field: str, offer: Any) -> str | None:
    """Return what is wrong with one offer, as the end of a sentence, or None."""
    named = {"registries": Registry, "drivers": Driver, "base_images": BaseImages}
    expected: type[Any] = named.get(field, Renderer)
    if isinstance(offer, type):
        return f"the class {offer.__name__} instead of an object of it"
    if not isinstance(offer, expected):
        missing = [name for name in _members(expected) if not hasattr(offer, name)]
        lacks = f" without {', '.join(missing)}" if missing and expected is not Driver else ""
        return f"{_a(offer)}{lacks} instead of a {expected.__name__}"
    if not isinstance(offer.name, str) or not _NAME.fullmatch(offer.name):
        return f'a {expected.__name__} named "{offer.name}": a name {_NAME_RULE}'
    if expected is Driver:
        return _wrong_driver(offer)
    if expected is Registry:
        hosts = offer.hosts
        if not _is_list(hosts, str) or not hosts or not all(_HOST.fullmatch(host) for host in hosts):
            return (
                f'the registry "{offer.name}" whose hosts are no patterns (host, host:port, *.domain or *): {hosts}'
            )
        return _wrong_call(offer, "inspect", "image", "access", "deadline_s", "files", "annotations")
    if expected is BaseImages:
        return _wrong_base_images(offer)
    if not _is_list(offer.owns, Kind) or not offer.owns or not all(map(_is_kind, offer.owns)):
        return f'"{offer.name}" whose owns is not a list of at least one Kind'
    if not _is_list(offer.requires, str):
        return f'"{offer.name}" whose requires is not a list of strings'
    ignores = getattr(offer, "ignores", ())
    if not _is_list(ignores, str):
        return f'"{offer.name}" whose ignores is not a list of strings'
    known = [each.name for each in dataclasses.fields(_REQUESTS[field])]
    for word in offer.requires:
        if word not in known:
            return f'"{offer.name}" that requires "{word}", which is no field of the request{nearest(word, known)}'
    told_of = IGNORABLE if field == "builders" else ()
    for word in ignores:
        if word not in told_of:
            return f'"{offer.name}" that ignores "{word}", of which no user is told{nearest(word, told_of)}'
    placed = field == "signers" and hasattr(offer, "place")
    return (
        _wrong_call(offer, "render", "request")
        or _wrong_call(offer, "observe", "objects", "pods")
        or (_wrong_call(offer, "place", "module", "params") if placed else None)
    )


_REQUESTS: dict[str, type[Any]] = {
    "builders": BuildRequest,
    "signers": SignRequest,
    "device_plugins": DevicePluginRequest,
}


def _wrong_call(offer: Any, method: str, *arguments: str) -> str | None:
    """Return what is wrong with a method that will be called with these arguments, by position."""
    function = getattr(offer, method)
    if not callable(function):
        return f'"{offer.name}" whose {method} is no function'
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        return f'"{offer.name}" whose {method} does not take ({", ".join(arguments)}): {error}'
    except ValueError:
        pass  # a function of another language: it cannot be asked
    return None


def _wrong_driver(driver: Any) -> str | None:
    """Return what is wrong with a vendor's defaults. They are a part of a spec: what is missing the user may add."""
    if not isinstance(driver.spec, Mapping):
        return f'the driver "{driver.name}" whose spec is {_a(driver.spec)}'
    try:
        spec = _json(driver.spec)
    except TypeError as error:
        return f'the driver "{driver.name}" whose spec holds {error}'
    _, findings = load(ModuleSpec, {"selector": {}, "driver": driver.name, **spec})
    for finding in findings:
        if not finding.message.startswith("is required"):
            return f'the driver "{driver.name}" whose spec is wrong: {finding.path}: {finding.message}'
    return None


def _wrong_base_images(offer: Any) -> str | None:
    argument, listing, path = offer.argument, offer.listing, offer.release_file
    if not isinstance(argument, str) or not _ARGUMENT.fullmatch(argument) or argument in INJECTED_ARGS:
        return f'the base images "{offer.name}" whose argument "{argument}" can be no build argument of its own'
    if listing is not None and not (isinstance(listing, Listing) and _is_kind(listing.kind)):
        return f'the base images "{offer.name}" whose listing is {_a(listing)} instead of a Listing'
    if listing is not None and not (listing.namespace and listing.name):
        return f'the base images "{offer.name}" whose listing has no namespace or no name'
    if not isinstance(path, str) or (path and not path.startswith("/")):
        return f'the base images "{offer.name}" whose release_file is no absolute path'
    calls = (("images", "listing"), ("os_version", "os_image"), ("kernels", "release"))
    return next((wrong for call in calls if (wrong := _wrong_call(offer, *call))), None)


def _is_kind(kind: Any) -> bool:
    return all(isinstance(each, str) and each for each in (kind.api_version, kind.kind, kind.plural, *kind.creating))


def _members(protocol: type) -> Iterable[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]


def _is_list(value: Any, of: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, of) for each in value)


def _a(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


def _told(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # even that may be broken
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MESSAGE_LONGEST]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
