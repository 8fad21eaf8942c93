"""Module: which kernel module, on which nodes, from which image for which kernel.

What is accepted is what the Go operator's release 1.1 accepts, and additions of ours, which are optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import re2
from marshmallow import ValidationError

from kmm.api import template
from kmm.api.metadata import LABEL_LONGEST, NAME_LONGEST, NAME_PATTERN, ObjectMeta
from kmm.api.schema import (
    Path,
    Rule,
    Text,
    Transition,
    at,
    flag,
    free,
    items,
    number,
    part,
    parts,
    shown,
    string_map,
    text,
    texts,
)
from kmm.contract import Manifest

MAPPINGS_MOST = 1024
PATTERN_LONGEST = 1024
# What strangers' patterns may cost, in memory each and in time together: at this most, some 0.5 s of compiling.
# A class of Unicode characters takes RE2 a hundred times as long as a letter, a counted repetition twenty times.
_PATTERN_BYTES = 1 << 16
_PATTERNS_TOGETHER = 65_536
_COSTS = {"\\p": 100, "\\P": 100, "{": 20}

_NAME_HINT = "be a name of lower-case letters, digits, - and . that begins and ends with a letter or digit"
_PATH_LONGEST = 4096  # the kernel's PATH_MAX
TEMPLATE_LONGEST = 32_768
_SEGMENT = r"[^/.\x00][^/\x00]*|\.[^/.\x00][^/\x00]*|\.\.[^/\x00]+"
_DIRECTORY: dict[str, Any] = {
    "pattern": rf"^(/({_SEGMENT}|\.)?)+$",
    "hint": 'be an absolute path without "..", such as "/opt"',
    "longest": _PATH_LONGEST,
}
_FIRMWARE: dict[str, Any] = {
    "pattern": rf"^(/+({_SEGMENT}))+/*$",
    "hint": 'be an absolute path without "." and "..", and not "/" itself, such as "/firmware"',
    "longest": _PATH_LONGEST,
}
_MODULE_NAME: dict[str, Any] = {
    "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_-]*$",
    "hint": "be a kernel module's name: letters, digits, _ and -, not beginning with -",
}
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


class Template(Text):
    """A text with variables, no longer than anything that it could name."""

    def __init__(self, *, longest: int = _PATH_LONGEST, **more: Any) -> None:
        super().__init__(longest=longest, **more)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> str:
        found = super()._deserialize(value, attr, data)
        try:
            template.check(found)
        except template.TemplateError as error:
            raise ValidationError(str(error)) from None
        return found


class Words(Text):
    """Words for a command line, split as a shell would, nothing in them expanded."""

    # What shlex can split, found without splitting it: shlex takes a second for 3 MiB.
    _SPLITTABLE = re.compile(r"""(?:[^\\'"]++|\\.|'[^']*+'|"(?:[^\\"]++|\\.)*+")*+""", re.DOTALL)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> str:
        found = super()._deserialize(value, attr, data)
        if not self._SPLITTABLE.fullmatch(found):
            raise ValidationError(
                f"{shown(found)} cannot be split into words: a quote is not closed, or a backslash stands at the end"
            )
        if "\0" in found:
            raise ValidationError("must not hold a NUL character: no program can be given one")
        return found


@lru_cache(maxsize=MAPPINGS_MOST)
def _pattern_error(pattern: str) -> str:
    """Return what is wrong with a pattern, or an empty text; what it compiles to is not kept."""
    try:
        compile_pattern(pattern)
    except re2.error as error:
        return _decoded(error)[:200]
    return ""


def _decoded(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


def compile_pattern(pattern: str) -> Any:
    """Compile a user's pattern: linear time, bounded memory. Raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_BYTES
    return re2.compile(pattern, options)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalObjectReference:
    """Names an object of the same namespace."""

    name: str | None = text("Name of the object", longest=NAME_LONGEST, pattern=NAME_PATTERN, hint=_NAME_HINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSOptions:
    """How far a registry's identity is checked."""

    insecure: bool = flag("Speak plain HTTP to the registry")
    insecure_skip_tls_verify: bool = flag("Accept any certificate of the registry")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildArg:
    """One argument of the Dockerfile."""

    name: str = text("Name of the argument", required=True)
    value: str = text(
        "Value of the argument; may hold variables such as ${KERNEL_XYZ}",
        default="",
        of=Template,
        longest=TEMPLATE_LONGEST,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KanikoParams:
    """Wishes for the kaniko builder."""

    tag: str | None = text("Tag of kaniko's own image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How to build an image that is missing."""

    dockerfile_config_map: LocalObjectReference = part(
        LocalObjectReference, "ConfigMap that holds the Dockerfile under the key dockerfile", required=True
    )
    build_args: tuple[BuildArg, ...] = parts(BuildArg, "Arguments of the Dockerfile")
    secrets: tuple[LocalObjectReference, ...] = parts(
        LocalObjectReference, "Secrets that the build may read, at /run/secrets/<name>/<key>"
    )
    base_image_registry_tls: TLSOptions | None = part(
        TLSOptions, "How to reach the registries of the images that the Dockerfile begins from"
    )
    kaniko_params: KanikoParams | None = part(KanikoParams, "Wishes for the kaniko builder")
    selector: Mapping[str, str] = string_map("Labels of the nodes on which the build may run")
    builder: str | None = text(
        "Name of an installed builder; the operator chooses where it is absent", longest=LABEL_LONGEST
    )
    params: Mapping[str, Any] = free("Handed to the builder as it is")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """How to sign the kernel modules inside an image for Secure Boot."""

    cert_secret: LocalObjectReference | None = part(
        LocalObjectReference, "Secret with the certificate, under the key cert; needed by signers that say so"
    )
    key_secret: LocalObjectReference | None = part(
        LocalObjectReference, "Secret with the private key, under the key key; needed by signers that say so"
    )
    unsigned_image: str | None = text(
        "Image whose modules are signed, where it is not built; may hold variables", of=Template
    )
    unsigned_image_registry_tls: TLSOptions | None = part(TLSOptions, "How to reach the unsigned image's registry")
    files_to_sign: tuple[str, ...] = texts(
        "Paths or globs of modules inside the image, which may hold variables; all of the kernel's where absent",
        Template(),
    )
    signer: str | None = text(
        "Name of an installed signer; the operator chooses where it is absent", longest=LABEL_LONGEST
    )
    params: Mapping[str, Any] = free("Handed to the signer as it is")


def _one_of_literal_regexp(mapping: Any) -> Iterator[tuple[Path, str]]:
    literal, regexp = at(mapping, "literal"), at(mapping, "regexp")
    if literal is not None and regexp is not None:
        yield (), "has both literal and regexp: keep one of them"
    elif literal is None and regexp is None:
        yield (
            (),
            'needs a literal ("6.1.0-18-amd64") or a regexp ("^6\\.1\\.") that says which kernels it is for',
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelMapping:
    """The image for the kernels that `literal` or `regexp` names."""

    literal: str | None = text("Kernel version, compared whole", longest=PATTERN_LONGEST)
    regexp: str | None = text("Pattern in RE2 syntax that is searched in the kernel version", longest=PATTERN_LONGEST)
    container_image: str | None = text("Image of the kernel module; may hold variables", of=Template)
    build: Build | None = part(Build, "How to build the image where it is missing")
    sign: Sign | None = part(Sign, "How to sign the image where it is missing")
    registry_tls: TLSOptions | None = part(TLSOptions, "How to reach the image's registry")
    in_tree_module_to_remove: str | None = text(
        "Older spelling of inTreeModulesToRemove, for one module", **_MODULE_NAME
    )
    in_tree_modules_to_remove: tuple[str, ...] = texts(
        "Modules of the kernel's own that are removed before loading", Text(**_MODULE_NAME)
    )

    RULES: ClassVar = (
        Rule(
            name="LiteralOrRegexp",
            message="exactly one of literal and regexp must be set",
            cel="(has(self.literal) && self.literal != '') != (has(self.regexp) && self.regexp != '')",
            offences=_one_of_literal_regexp,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModprobeArgs:
    """Words for modprobe, when loading and when unloading."""

    load: tuple[str, ...] = texts("Words when loading, split as a shell would", Words(), least=1)
    unload: tuple[str, ...] = texts("Words when unloading, split as a shell would", Words(), least=1)


def _name_or_raw_args(modprobe: Any) -> Iterator[tuple[Path, str]]:
    if at(modprobe, "moduleName") is not None and (
        items(modprobe, "rawArgs", "load") or items(modprobe, "rawArgs", "unload")
    ):
        yield (
            ("rawArgs",),
            "cannot be set beside moduleName: rawArgs replace the whole command, so keep one of them",
        )


def _order_begins_with_name(modprobe: Any) -> Iterator[tuple[Path, str]]:
    name, order = at(modprobe, "moduleName"), items(modprobe, "modulesLoadingOrder")
    if order and isinstance(name, str) and order[0] != name:
        yield (
            ("modulesLoadingOrder", 0),
            f"must be the moduleName, {shown(name)}: the list begins with what is loaded",
        )


_HOST_FIRMWARE = r"^/+var/+lib/+firmware(/|$)"


def _firmware_is_the_images(modprobe: Any) -> Iterator[tuple[Path, str]]:
    path = at(modprobe, "firmwarePath")
    if isinstance(path, str) and re.match(_HOST_FIRMWARE, path):
        yield ("firmwarePath",), "must not be where the node keeps its firmware, which hides the image's files there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modprobe:
    """What modprobe is told."""

    module_name: str | None = text("Name of the kernel module", **_MODULE_NAME)
    dir_name: str = text("Directory in the image that holds lib/modules", default="/opt", **_DIRECTORY)
    firmware_path: str | None = text(
        "Directory in the image whose files are copied to the node's firmware", **_FIRMWARE
    )
    parameters: tuple[str, ...] = texts("Parameters of the kernel module", Words())
    args: ModprobeArgs | None = part(ModprobeArgs, "Options of modprobe, instead of -v and -rv")
    raw_args: ModprobeArgs | None = part(ModprobeArgs, "Everything behind modprobe, instead of all other fields here")
    modules_loading_order: tuple[str, ...] = texts(
        "Modules that depend on each other without depmod knowing it: moduleName, then what it needs, and so on",
        Text(**_MODULE_NAME),
        least=2,
        most=256,
        unique=True,
    )

    RULES: ClassVar = (
        Rule(
            name="FirmwareIsTheImages",
            message="firmwarePath must not be /var/lib/firmware or below it, where the node keeps its own",
            cel=f"!has(self.firmwarePath) || !self.firmwarePath.matches('{_HOST_FIRMWARE}')",
            offences=_firmware_is_the_images,
        ),
        Rule(
            name="NameOrRawArgs",
            message="rawArgs cannot be set when moduleName is set",
            cel="!(has(self.moduleName) && self.moduleName != '' && has(self.rawArgs) && "
            "(has(self.rawArgs.load) || has(self.rawArgs.unload)))",
            offences=_name_or_raw_args,
        ),
        Rule(
            name="LoadingOrderBegins",
            message="the first element of modulesLoadingOrder must be moduleName",
            cel="!has(self.modulesLoadingOrder) || size(self.modulesLoadingOrder) == 0 || !has(self.moduleName) || "
            "self.moduleName == '' || self.modulesLoadingOrder[0] == self.moduleName",
            offences=_order_begins_with_name,
        ),
    )


def _patterns(container: Any) -> list[tuple[int, str]]:
    return [
        (index, regexp)
        for index, mapping in enumerate(items(container, "kernelMappings")[:MAPPINGS_MOST])
        if isinstance(regexp := at(mapping, "regexp"), str) and len(regexp) <= PATTERN_LONGEST
    ]


def _patterns_cost(container: Any) -> int:
    return sum(
        len(regexp) + sum(regexp.count(text) * each for text, each in _COSTS.items())
        for _, regexp in _patterns(container)
    )


def _patterns_are_small(container: Any) -> Iterator[tuple[Path, str]]:
    if (cost := _patterns_cost(container)) > _PATTERNS_TOGETHER:
        yield (
            ("kernelMappings",),
            f"has patterns that are too large together: {cost:,} characters, at most {_PATTERNS_TOGETHER:,} are read",
        )


def wrong_patterns(container: Any) -> Iterator[tuple[int, str]]:
    """Yield which mappings of a container, as a user wrote it, have a regexp that RE2 cannot read, and why.

    Each is an error of that mapping alone: the others are followed.
    """
    if _patterns_cost(container) > _PATTERNS_TOGETHER:
        return  # which is told; compiling them would take too long
    for index, regexp in _patterns(container):
        if wrong := _pattern_error(regexp):
            yield index, f"{shown(regexp)} is not a regular expression of RE2: {wrong}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleLoaderContainer:
    """The container that loads the kernel module, and the defaults of every kernel mapping."""

    version: str | None = text("Version of the kernel module, for ordered upgrades; set or unset for good")
    container_image: str | None = text("Image of the kernel module; may hold variables", of=Template)
    image_pull_policy: str | None = text("When the image is pulled", choices=_PULL_POLICIES)
    build: Build | None = part(Build, "How to build an image that is missing")
    sign: Sign | None = part(Sign, "How to sign an image that is missing")
    registry_tls: TLSOptions | None = part(TLSOptions, "How to reach the image's registry")
    modprobe: Modprobe | None = part(Modprobe, "What modprobe is told")
    in_tree_module_to_remove: str | None = text(
        "Older spelling of inTreeModulesToRemove, for one module", **_MODULE_NAME
    )
    in_tree_modules_to_remove: tuple[str, ...] = texts(
        "Modules of the kernel's own that are removed before loading", Text(**_MODULE_NAME)
    )
    kernel_mappings: tuple[KernelMapping, ...] = parts(
        KernelMapping,
        "Images by kernel: the first one that fits a node's kernel is used",
        least=1,
        most=MAPPINGS_MOST,
    )

    RULES: ClassVar = (
        Rule(
            name="PatternsAreSmall",
            message="the regexps of all kernel mappings must not be too large together",
            cel=None,
            offences=_patterns_are_small,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleLoader:
    """The pods that load the kernel module."""

    container: ModuleLoaderContainer | None = part(
        ModuleLoaderContainer, "The container that loads the kernel module"
    )
    service_account_name: str | None = text(
        "Service account of the pods", longest=NAME_LONGEST, pattern=NAME_PATTERN, hint=_NAME_HINT
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePluginContainer:
    """The device plugin's container."""

    image: str | None = text("Image of the device plugin; may hold ${MOD_NAME} and ${MOD_NAMESPACE}", of=Template)
    command: tuple[str, ...] = texts("Command, instead of the image's")
    args: tuple[str, ...] = texts("Arguments, instead of the image's")
    env: tuple[Manifest, ...] = parts("EnvVar", "Environment variables")
    image_pull_policy: str | None = text("When the image is pulled", choices=_PULL_POLICIES)
    resources: Manifest | None = part("ResourceRequirements", "Resources that it needs")
    volume_mounts: tuple[Manifest, ...] = parts("VolumeMount", "Where its volumes are mounted")


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlugin:
    """The device plugin, which runs where the kernel module is loaded."""

    container: DevicePluginContainer | None = part(DevicePluginContainer, "The device plugin's container")
    init_container: Manifest | None = part("InitContainer", "A container that runs to its end before it")
    service_account_name: str | None = text(
        "Service account of the pods", longest=NAME_LONGEST, pattern=NAME_PATTERN, hint=_NAME_HINT
    )
    volumes: tuple[Manifest, ...] = parts("Volume", "Volumes for volumeMounts")
    renderer: str | None = text(
        "Name of an installed device-plugin renderer; the operator's own where it is absent", longest=LABEL_LONGEST
    )
    params: Mapping[str, Any] = free("Handed to the renderer as it is")


_CONTAINER = ("moduleLoader", "container")
_PLUGIN_CONTAINER = ("devicePlugin", "container")
_BROUGHT = "is required (unless driver names a vendor's driver that brings it)"


def _loader_is_whole(spec: Any) -> Iterator[tuple[Path, str]]:
    if at(spec, "driver") is not None:
        return
    for path in (("moduleLoader",), _CONTAINER, (*_CONTAINER, "modprobe"), (*_CONTAINER, "kernelMappings")):
        if at(spec, *path) is None:
            yield path, _BROUGHT
            if len(path) < 3:  # noqa: PLR2004 -- what lies below is missing too
                return


def _device_plugin_is_whole(spec: Any) -> Iterator[tuple[Path, str]]:
    if at(spec, "driver") is not None or not isinstance(at(spec, "devicePlugin"), Mapping):
        return
    container = at(spec, *_PLUGIN_CONTAINER)
    if container is None:
        yield _PLUGIN_CONTAINER, _BROUGHT
    elif isinstance(container, Mapping) and at(container, "image") is None:
        yield (*_PLUGIN_CONTAINER, "image"), _BROUGHT


def _something_to_load(spec: Any) -> Iterator[tuple[Path, str]]:
    modprobe = at(spec, *_CONTAINER, "modprobe")
    if at(spec, "driver") is not None or not isinstance(modprobe, Mapping):
        return
    named = at(modprobe, "moduleName") is not None
    if not named and not (items(modprobe, "rawArgs", "load") and items(modprobe, "rawArgs", "unload")):
        yield (*_CONTAINER, "modprobe"), "needs moduleName, or rawArgs with both load and unload"
    if not named and items(modprobe, "modulesLoadingOrder"):
        yield (
            (*_CONTAINER, "modprobe", "modulesLoadingOrder"),
            "needs moduleName, which must be its first element",
        )


def _image_for_each_mapping(spec: Any) -> Iterator[tuple[Path, str]]:
    container = at(spec, *_CONTAINER)
    if at(spec, "driver") is not None or at(container, "containerImage") is not None:
        return
    for index, mapping in enumerate(items(container, "kernelMappings")):
        if isinstance(mapping, Mapping) and at(mapping, "containerImage") is None:
            yield (
                (*_CONTAINER, "kernelMappings", index, "containerImage"),
                "is required where moduleLoader.container.containerImage is not set",
            )


def _version_stays(old: Any, new: Any) -> bool:
    return (at(old, *_CONTAINER, "version") is None) == (at(new, *_CONTAINER, "version") is None)


_HAS_DRIVER = "(has(self.driver) && self.driver != '')"
_HAS_CONTAINER = "(has(self.moduleLoader) && has(self.moduleLoader.container))"


def _has_version(whose: str) -> str:
    container = f"{whose}.moduleLoader.container"
    return f"(has({whose}.moduleLoader) && has({container}) && has({container}.version) && {container}.version != '')"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec:
    """What to load, where, and from which images."""

    selector: Mapping[str, str] = string_map(
        "Node labels, all of which a node must have for the Module to target it", required=True
    )
    module_loader: ModuleLoader | None = part(ModuleLoader, "The pods that load the kernel module")
    device_plugin: DevicePlugin | None = part(DevicePlugin, "A device plugin that runs where the module is loaded")
    image_repo_secret: LocalObjectReference | None = part(
        LocalObjectReference,
        "Secret with registry credentials: to pull every image, and to push built and signed ones",
    )
    tolerations: tuple[Manifest, ...] = parts("Toleration", "Tolerations of every pod that the Module leads to")
    driver: str | None = text(
        "Name of a vendor's driver offered by an installed plugin: its defaults are merged under this specification",
        longest=LABEL_LONGEST,
    )

    RULES: ClassVar = (
        Rule(
            name="LoaderIsWhole",
            message="moduleLoader.container with modprobe and kernelMappings is required unless driver is set",
            cel=f"{_HAS_DRIVER} || {_HAS_CONTAINER} && has(self.moduleLoader.container.modprobe) && "
            "has(self.moduleLoader.container.kernelMappings)",
            offences=_loader_is_whole,
        ),
        Rule(
            name="DevicePluginIsWhole",
            message="devicePlugin.container with image is required unless driver is set",
            cel=f"{_HAS_DRIVER} || !has(self.devicePlugin) || has(self.devicePlugin.container) && "
            "has(self.devicePlugin.container.image) && self.devicePlugin.container.image != ''",
            offences=_device_plugin_is_whole,
        ),
        Rule(
            name="SomethingToLoad",
            message="modprobe needs moduleName, or rawArgs with both load and unload; modulesLoadingOrder needs "
            "moduleName",
            cel=f"{_HAS_DRIVER} || !{_HAS_CONTAINER} || !has(self.moduleLoader.container.modprobe) || "
            "has(self.moduleLoader.container.modprobe.moduleName) && "
            "self.moduleLoader.container.modprobe.moduleName != '' || "
            "!has(self.moduleLoader.container.modprobe.modulesLoadingOrder) && "
            "has(self.moduleLoader.container.modprobe.rawArgs) && "
            "has(self.moduleLoader.container.modprobe.rawArgs.load) && "
            "has(self.moduleLoader.container.modprobe.rawArgs.unload)",
            offences=_something_to_load,
        ),
        Rule(
            name="ImageForEachMapping",
            message="containerImage is required in each kernel mapping where "
            "moduleLoader.container.containerImage is not set",
            cel=f"{_HAS_DRIVER} || !{_HAS_CONTAINER} || "
            "has(self.moduleLoader.container.containerImage) && self.moduleLoader.container.containerImage != '' || "
            "!has(self.moduleLoader.container.kernelMappings) || self.moduleLoader.container.kernelMappings.all(m, "
            "has(m.containerImage) && m.containerImage != '')",
            offences=_image_for_each_mapping,
        ),
    )
    TRANSITIONS: ClassVar = (
        Transition(
            name="VersionStays",
            message="version is set or unset for the whole life of a Module: delete and create it to change that",
            cel=f"{_has_version('self')} == {_has_version('oldSelf')}",
            path=(*_CONTAINER, "version"),
            allowed=_version_stays,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSetStatus:
    """Counts of nodes for one role."""

    nodes_matching_selector_number: int = number("Nodes that the Module targets")
    desired_number: int = number("Those of them whose kernel has a mapping")
    available_number: int = number("Those of them where the pod is available")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One aspect of the state, as Kubernetes' conventions have it."""

    type: str = text("Which aspect", required=True)
    status: str = text("Whether it holds", required=True, choices=("True", "False", "Unknown"))
    reason: str = text("Why, in one word", required=True)
    message: str = text("Why, for a person", default="")
    last_transition_time: str | None = text("When status last changed")
    observed_generation: int = number("Generation of the specification that this was seen for", bits=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelStatus:
    """How far a Module has come for one kernel."""

    kernel_version: str = text("Kernel version as the nodes report it", required=True)
    nodes: int = number("Targeted nodes that run this kernel")
    available: int | None = number("Those of them on which the module is loaded, where that is known", default=None)
    image: str | None = text("Image for this kernel")
    digest: str | None = text("Digest of the image, once it is known")
    state: str | None = text("How far it has come")
    reason: str | None = text("Why, in one word")
    message: str | None = text("Why, for a person")
    attempts: int = number("Failed attempts to build or sign with the present inputs")
    last_failure_time: str | None = text("When the last attempt failed")
    inputs_hash: str | None = text("Hash of all that went into the build or signing")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleStatus:
    """What was observed."""

    observed_generation: int = number("Generation of the specification that this was observed for", bits=64)
    module_loader: DaemonSetStatus | None = part(DaemonSetStatus, "Nodes where the kernel module is loaded")
    device_plugin: DaemonSetStatus | None = part(DaemonSetStatus, "Nodes where the device plugin runs")
    conditions: tuple[Condition, ...] = parts(Condition, "The state, by aspect", key="type")
    builder: str | None = text("Builder that was chosen, where neither the Module nor the configuration names one")
    kernels: tuple[KernelStatus, ...] = parts(KernelStatus, "The state, by kernel; at most 100 of them", most=100)
    kernels_not_shown: int = number("Kernels beyond those that are listed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """Loads a kernel module on the nodes of a cluster."""

    metadata: ObjectMeta = part(ObjectMeta, "What Kubernetes keeps about the object", required=True)
    spec: ModuleSpec = part(ModuleSpec, "What to load, where, and from which images", required=True)
    status: ModuleStatus | None = part(ModuleStatus, "What was observed")
