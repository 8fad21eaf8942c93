"""The judgement of what a user wrote: the API's own, its names', and the installed plugins'.

`kmm validate` prints it, and the admission function answers an API server with it: one judgement.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kmm.api.driver import merge
from kmm.api.kinds import KIND_BY_NAME, KINDS, ApiKind
from kmm.api.metadata import (
    LABEL_LONGEST,
    NOT_READ,
    ObjectMeta,
    is_label_key,
    is_label_value,
    name_findings,
)
from kmm.api.module import Module, ModuleSpec
from kmm.api.schema import at, camel, items, load, shown, spell
from kmm.catalog import Catalog
from kmm.contract import Finding, Manifest, Severity, nearest
from kmm.errors import PluginError

_PLUGIN_FINDINGS_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is wrong with one object. `value`: its frozen value, where the API accepts it."""

    value: Any
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What refuses it."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What only comments on it."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.WARNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """A rule that no CustomResourceDefinition can express: a row of docs/validation.md."""

    name: str
    what: str
    why: str


BEYOND = (
    Beyond(
        name="Template",
        what="`containerImage`, `unsignedImage`, `filesToSign`, `buildArgs` values, the device plugin's `image`: "
        "a template that never closes, or names no variable",
        why="CEL has no parser for it",
    ),
    Beyond(
        name="Words",
        what="`parameters`, `args`, `rawArgs`: unbalanced quotes, a NUL character",
        why="CEL has no parser for it",
    ),
    Beyond(
        name="Pattern",
        what="`regexp`: not RE2's syntax, larger than 512 KiB once compiled, or all of them together more than "
        "65,536 characters, of which a class such as `\\pL` counts as 100",
        why="CEL cannot compile a pattern that it is given",
    ),
    Beyond(
        name="Names",
        what="`metadata.name` and `metadata.namespace`: Kubernetes' limits",
        why="the API server has checked them itself; `kmm validate` has to",
    ),
    Beyond(
        name="LabelLength",
        what="`metadata.namespace` and `metadata.name` together: the labels made of them, which have at most 63 "
        "characters",
        why="CEL sees no namespace",
    ),
    Beyond(
        name="SignerNeeds",
        what="`sign.keySecret`, `sign.certSecret` and whatever else the chosen signer, builder or renderer requires",
        why="it depends on the installed plugins",
    ),
    Beyond(
        name="Driver",
        what="`driver`: the specification as a whole, once the driver's defaults are merged under it",
        why="it depends on the installed plugins",
    ),
    Beyond(
        name="PluginFindings",
        what="whatever `kmm_validate_module` of an installed plugin says",
        why="it depends on the installed plugins",
    ),
)


def judge(manifest: Any, catalog: Catalog, old: object = None) -> Judgement:
    """Judge one object of ours; with `old`, also the change from that. Never raises."""
    kind = kind_of(manifest)
    if isinstance(kind, Finding):
        return Judgement(value=None, findings=(kind,))
    # Status is not the user's to write, and the API server ignores it in what users apply.
    value, found = load(kind.model, {key: below for key, below in manifest.items() if key != "status"})
    findings = [finding for finding in found if finding.path not in _KNOWN_TO_ALL]
    metadata, _ = load(ObjectMeta, manifest.get("metadata", {}))
    if metadata is not None:
        findings += name_findings(metadata, namespaced=kind.namespaced)
    if kind.kind == "Module":
        value, more = _judge_module(manifest, metadata, value, catalog)
        findings += more
    elif value is not None and kind.kind == "ManagedClusterModule":
        findings += _advice(manifest["spec"].get("moduleSpec"), "spec.moduleSpec")
        findings += _needs(value.spec.module_spec, "spec.moduleSpec", catalog)
    if isinstance(old, Mapping):
        spec_at = ("spec", "moduleSpec") if kind.kind == "ManagedClusterModule" else ("spec",)
        for rule in ModuleSpec.TRANSITIONS if kind.kind in ("Module", "ManagedClusterModule") else ():
            if not rule.allowed(at(old, *spec_at), at(manifest, *spec_at)):
                findings.append(Finding(path=spell((*spec_at, *rule.path)), message=rule.message))
    return Judgement(value=value, findings=tuple(dict.fromkeys(findings)))


_KNOWN_TO_ALL = ("apiVersion", "kind", *(f"metadata.{name}" for name in NOT_READ))


def kind_of(manifest: Any) -> ApiKind | Finding:
    """Return which of our kinds an object is of, or what is wrong with its `apiVersion` and `kind`."""
    if not isinstance(manifest, Mapping):
        return Finding(path="", message="is not an object: a manifest begins with apiVersion and kind")
    api_version, name = manifest.get("apiVersion"), manifest.get("kind")
    if not isinstance(name, str):
        return Finding(path="kind", message=f"is required: one of {', '.join(KIND_BY_NAME)}")
    if name not in KIND_BY_NAME:
        return Finding(path="kind", message=f"{shown(name)} is no kind of ours{nearest(name, KIND_BY_NAME)}")
    kind = KIND_BY_NAME[name]
    if api_version != kind.api_version:
        return Finding(
            path="apiVersion",
            message=f"must be {kind.api_version} for a {name}"
            + ("" if api_version is None else f", not {shown(api_version)}"),
        )
    return kind


def is_ours(manifest: object) -> bool:
    """Whether an object is, or was meant to be, of one of our kinds."""
    if not isinstance(manifest, Mapping):
        return False
    group = str(manifest.get("apiVersion", "")).partition("/")[0]
    return manifest.get("kind") in KIND_BY_NAME or group in {kind.group for kind in KINDS}


def whole_spec(spec: Manifest, catalog: Catalog) -> dict[str, Any]:
    """Return a Module's spec with its driver's defaults merged under it, and `driver` itself resolved away.

    Raises PluginError where no installed plugin offers that driver.
    """
    name = at(spec, "driver")
    own = {key: value for key, value in spec.items() if key != "driver"}
    return own if name is None else merge(catalog.driver(str(name)).spec, own)


def _judge_module(
    manifest: Manifest, metadata: ObjectMeta | None, value: Module | None, catalog: Catalog
) -> tuple[Module | None, list[Finding]]:
    """Return the value with its driver merged in, and what is wrong beyond what the schema says."""
    spec = manifest.get("spec")
    if not isinstance(spec, Mapping):
        return value, []
    try:
        whole = whole_spec(spec, catalog)
    except PluginError as error:
        missing = Finding(path="spec.driver", message=f"{error} (not judged here)", severity=Severity.WARNING)
        return value, [missing, *_label_lengths(metadata, spec), *_advice(spec, "spec")]
    findings = [*_label_lengths(metadata, whole), *_advice(whole, "spec")]
    if value is not None and at(spec, "driver") is not None:
        merged, found = load(ModuleSpec, whole)
        for finding in found:
            if finding.severity is Severity.ERROR:
                message = f"{finding.message} (once the driver {shown(spec['driver'])} is merged in)"
                findings.append(replace(finding, path=f"spec.{finding.path}".rstrip("."), message=message))
        value = None if merged is None else replace(value, spec=merged)
    if value is not None:
        findings += [*_needs(value.spec, "spec", catalog), *_plugin_findings({**manifest, "spec": whole}, catalog)]
    return value, findings


def _label_lengths(metadata: ObjectMeta | None, spec: Manifest) -> Iterator[Finding]:
    """Yield what is too long once namespace and name stand in the labels that this Module needs.

    Without a namespace in the manifest, what the name alone leaves no room for.
    """
    if metadata is None or metadata.name is None:
        return
    parts = ["{}.ready"]
    if at(spec, "devicePlugin") is not None:
        parts.append("{}.device-plugin-ready")
    if at(spec, "moduleLoader", "container", "version") is not None:
        parts += ["version-module-loader.{}", "{}.version.ready", "version-module.{}"]
        parts += ["version-device-plugin.{}"] * (at(spec, "devicePlugin") is not None)
    room = LABEL_LONGEST - max(len(part.format("")) for part in parts)
    together = f"{metadata.namespace or 'd'}.{metadata.name}"
    if len(together) > room:
        yield Finding(
            path="metadata.name",
            message=f"is too long: namespace and name, with the dot between them, must have at most {room} "
            f"characters, not {len(together)}, because they become a part of node labels",
        )


def _advice(spec: object, path: str) -> Iterator[Finding]:
    """Yield what is accepted, as the Go operator accepts it, but cannot work."""

    def warn(where: str, message: str) -> Finding:
        return Finding(path=f"{path}.{where}", message=message, severity=Severity.WARNING)

    selectors = [("selector", at(spec, "selector"))]
    container = at(spec, "moduleLoader", "container")
    sections = [("moduleLoader.container", container)]
    mappings = items(container, "kernelMappings")
    sections += [(f"moduleLoader.container.kernelMappings[{index}]", each) for index, each in enumerate(mappings)]
    for where, section in sections:
        selectors.append((f"{where}.build.selector", at(section, "build", "selector")))
    for where, selector in selectors:
        for key, value in selector.items() if isinstance(selector, Mapping) else ():
            if not is_label_key(key) or not (isinstance(value, str) and is_label_value(value)):
                yield warn(where, f"no node can have the label {shown(f'{key}={value}')}")
    version = at(container, "version")
    if isinstance(version, str) and not is_label_value(version):
        yield warn("moduleLoader.container.version", "is no possible value of a label, so no node can ask for it")
    for where, section in sections[1:] or sections:
        build = at(section, "build") or at(container, "build")
        sign = at(section, "sign") or at(container, "sign")
        config_map = at(section, "build", "dockerfileConfigMap", "name") or at(
            container, "build", "dockerfileConfigMap", "name"
        )
        if build is not None and config_map is None:
            yield warn(f"{where}.build.dockerfileConfigMap", "names no ConfigMap, so there is nothing to build")
        unsigned = at(section, "sign", "unsignedImage") or at(container, "sign", "unsignedImage")
        if sign is not None and build is None and unsigned is None:
            yield warn(
                f"{where}.sign",
                "has neither unsignedImage nor a build beside it, so there is nothing to sign",
            )


def _needs(spec: ModuleSpec, path: str, catalog: Catalog) -> Iterator[Finding]:
    """Yield what the chosen builders, signers and renderers miss, and which of them are not installed."""
    container = spec.module_loader.container if spec.module_loader else None
    sections: list[tuple[str, Any]] = []
    if container is not None:
        at_container = f"{path}.moduleLoader.container"
        sections = [
            (f"{at_container}.kernelMappings[{index}]", mapping)
            for index, mapping in enumerate(container.kernel_mappings)
        ]
        sections = sections or [(at_container, container)]
    for where, section in sections:
        for noun, field, offers in (("builder", "build", catalog.builders), ("signer", "sign", catalog.signers)):
            given = [part for part in (getattr(section, field), getattr(container, field)) if part is not None]
            if given:
                name = next((found for part in given if (found := getattr(part, noun))), None)
                yield from _renderer_needs(noun, name, offers, f"{where}.{field}", given, catalog)
    if spec.device_plugin is not None and spec.device_plugin.renderer is not None:
        yield from _renderer_needs(
            "device-plugin renderer",
            spec.device_plugin.renderer,
            catalog.device_plugins,
            f"{path}.devicePlugin",
            [spec.device_plugin],
            catalog,
        )


def _renderer_needs(
    noun: str, name: str | None, offers: Mapping[str, Any], path: str, given: Sequence[Any], catalog: Catalog
) -> Iterator[Finding]:
    if name is None and len(offers) == 1:
        name = next(iter(offers))  # the only one is the one that will be chosen
    if name is None:
        return
    if name not in offers:
        lookup = {"builder": catalog.builder, "signer": catalog.signer}.get(noun, catalog.device_plugin)
        try:
            lookup(name)
        except PluginError as error:
            field = "renderer" if noun.startswith("device") else noun
            yield Finding(path=f"{path}.{field}", message=f"{error} (not judged here)", severity=Severity.WARNING)
        return
    for needed in offers[name].requires:
        if not any(_is_set(getattr(part, needed, None)) for part in given):
            yield Finding(path=f"{path}.{camel(needed)}", message=f'is required by the {noun} "{name}"')


def _is_set(value: Any) -> bool:
    return bool(value.name) if hasattr(value, "name") else bool(value)


def _plugin_findings(manifest: Manifest, catalog: Catalog) -> Iterator[Finding]:
    for plugin in catalog.plugins:
        if plugin.validate_module is None:
            continue
        try:
            found = plugin.validate_module(copy.deepcopy(dict(manifest)))
            if not isinstance(found, list | tuple) or not all(isinstance(each, Finding) for each in found):
                raise TypeError("it returned something else than findings")  # noqa: TRY301
        except Exception as error:
            message = f'plugin "{plugin.name}" could not judge this Module: {type(error).__name__}: {error}'
            yield Finding(path="", message=message[:500], severity=Severity.WARNING)
        else:
            yield from found[:_PLUGIN_FINDINGS_MOST]


# ── AdmissionReview ───────────────────────────────────────────────────────────────────────────────────────────


def admit(review: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """Answer an AdmissionReview (`admission.k8s.io/v1`) of one of our kinds. Never raises.

    An object being deleted, a status, and an update that leaves the specification as it is, are let through:
    what is stored already must stay possible to finish and to delete.
    """
    request = review.get("request")
    request = request if isinstance(request, Mapping) else {}
    manifest, old = request.get("object"), request.get("oldObject")
    response: dict[str, Any] = {"uid": str(request.get("uid", "")), "allowed": True}
    if not request.get("uid"):
        response |= _refusal(["the AdmissionReview holds no request with a uid"], 400)
    elif request.get("operation") in ("CREATE", "UPDATE") and not request.get("subResource"):
        unchanged = (
            isinstance(old, Mapping) and isinstance(manifest, Mapping) and old.get("spec") == manifest.get("spec")
        )
        if not unchanged and at(manifest, "metadata", "deletionTimestamp") is None:
            judgement = judge(manifest, catalog, old)
            if judgement.errors:
                response |= _refusal([line(finding) for finding in judgement.errors], 422)
            if judgement.warnings:
                # The API server cuts warnings at 256 characters each and 4,096 in all.
                response["warnings"] = [line(finding)[:256] for finding in judgement.warnings[:16]]
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _refusal(lines: list[str], code: int) -> dict[str, Any]:
    shown_lines = lines[:20] + ([f"and {len(lines) - 20} more"] if len(lines) > 20 else [])  # noqa: PLR2004
    reason = "Invalid" if code == 422 else "BadRequest"  # noqa: PLR2004
    return {
        "allowed": False,
        "status": {
            "apiVersion": "v1",
            "kind": "Status",
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": "; ".join(shown_lines),
        },
    }


def line(finding: Finding) -> str:
    """Return a finding as `path: what is wrong`, without anything that a terminal would obey."""
    text = f"{finding.path}: {finding.message}" if finding.path else finding.message
    return printable(text)


def printable(text: str) -> str:
    """Return `text` with each character that is not printable written out as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)
