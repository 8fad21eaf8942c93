"""The judgement of what a user wrote: the API's own, its names', and the installed plugins'.

`kmm validate` prints it, and the admission function answers an API server with it: one judgement.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from kmm.api import template
from kmm.api.kinds import KIND_BY_NAME, KINDS, ApiKind
from kmm.api.metadata import (
    LABEL_LONGEST,
    NAMESPACE_RULE,
    NOT_READ,
    ObjectMeta,
    is_label_key,
    is_label_value,
    is_namespace,
    name_findings,
)
from kmm.api.module import TEMPLATE_LONGEST, Build, ModuleSpec, Sign, wrong_patterns
from kmm.api.schema import at, camel, items, load, shown, spell
from kmm.catalog import Catalog
from kmm.contract import Finding, Manifest, Severity, nearest
from kmm.core.mapping import INJECTED_ARGS, merge_builds, merge_signs
from kmm.errors import PluginError
from kmm.oci import reference

# Of one object: a hostile file must not cost more to explain than to read.
_FINDINGS_MOST = 100


_OF_A_MAPPING = re.compile(r"\.kernelMappings\[\d+\]\.regexp$")


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
    def usable(self) -> bool:
        """Whether the operator can work with it: a regexp that cannot be read is an error of its mapping alone."""
        return self.value is not None and all(_OF_A_MAPPING.search(each.path) for each in self.errors)

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
        what="`regexp`: not RE2's syntax, larger than 64 KiB once compiled, or all of them together more than "
        "65,536 characters, of which a class such as `\\pL` counts as 100 and a counted repetition as 20",
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
    metadata = value.metadata if value else load(ObjectMeta, manifest.get("metadata", {}))[0]
    if metadata is not None:
        findings += name_findings(metadata, namespaced=kind.namespaced)
    if kind.kind == "Module":
        whole = _Whole(manifest.get("spec"), "spec", metadata, metadata.namespace if metadata else None)
        spec, more = _judge_spec(whole, value.spec if value else None, catalog)
        findings += more
        value = replace(value, spec=spec) if value and spec else None
    elif kind.kind == "ManagedClusterModule":
        # What the hub makes of it on each cluster: a Module of its name in the spoke namespace.
        namespace = at(manifest, "spec", "spokeNamespace")
        whole = _Whole(at(manifest, "spec", "moduleSpec"), "spec.moduleSpec", metadata, namespace)
        spec, more = _judge_spec(whole, value.spec.module_spec if value else None, catalog)
        findings += [*more, *_selector_advice(at(manifest, "spec", "selector"), "spec.selector")]
        if isinstance(namespace, str) and not is_namespace(namespace):
            findings.append(Finding(path="spec.spokeNamespace", message=f"{shown(namespace)} {NAMESPACE_RULE}"))
        value = replace(value, spec=replace(value.spec, module_spec=spec)) if value and spec else None
    if isinstance(old, Mapping) and kind.kind in ("Module", "ManagedClusterModule"):
        spec_at = ("spec", "moduleSpec") if kind.kind == "ManagedClusterModule" else ("spec",)
        before, after = (_resolved(at(each, *spec_at), catalog) for each in (old, manifest))
        for rule in ModuleSpec.TRANSITIONS:
            if not rule.allowed(before, after):
                findings.append(Finding(path=spell((*spec_at, *rule.path)), message=rule.message))
    wrong = {finding.path for finding in findings if finding.severity is Severity.ERROR}
    findings = [each for each in findings if each.severity is Severity.ERROR or each.path not in wrong]
    findings.sort(key=lambda finding: finding.severity is Severity.WARNING)
    findings = list(dict.fromkeys(findings))
    if len(findings) > _FINDINGS_MOST:
        more_of = Finding(
            path="", message=f"and {len(findings) - _FINDINGS_MOST:,} more", severity=findings[-1].severity
        )
        findings = [*findings[:_FINDINGS_MOST], more_of]
    return Judgement(value=value, findings=tuple(findings))


_KNOWN_TO_ALL = ("apiVersion", "kind", *(f"metadata.{name}" for name in NOT_READ))


def kind_of(manifest: Any) -> ApiKind | Finding:
    """Return which of our kinds an object is of, or what is wrong with its `apiVersion` and `kind`."""
    if not isinstance(manifest, Mapping):
        return Finding(path="", message="is not an object: a manifest begins with apiVersion and kind")
    api_version, name = manifest.get("apiVersion"), manifest.get("kind")
    if name is None:
        other = next((key for key in manifest if str(key).lower() == "kind"), None)
        hint = f"; it is spelled kind, not {shown(other)}" if other else ""
        return Finding(path="kind", message=f"is required: one of {', '.join(KIND_BY_NAME)}{hint}")
    if not isinstance(name, str):
        return Finding(path="kind", message=f"must be a string, one of {', '.join(KIND_BY_NAME)}")
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
    group = str(manifest.get("apiVersion") or "").partition("/")[0]
    groups = {kind.group for kind in KINDS}
    if group in groups or not isinstance(manifest.get("kind"), str):
        return True
    # A kind of ours with a misspelt group is meant to be ours; another project's Module is not.
    return manifest["kind"] in KIND_BY_NAME and (not group or bool(nearest(group, groups)))


@dataclass(frozen=True, slots=True)
class _Whole:
    """A Module's spec as the user wrote it, where it stands, and what the Module is or will be called."""

    spec: Any
    path: str
    metadata: ObjectMeta | None
    namespace: str | None


def _judge_spec(
    written: _Whole, value: ModuleSpec | None, catalog: Catalog
) -> tuple[ModuleSpec | None, list[Finding]]:
    """Return the value with its driver merged in, and what is wrong beyond what the schema says."""
    spec, path = written.spec, written.path
    if not isinstance(spec, Mapping):
        return value, []
    try:
        whole = catalog.whole_spec(spec)
    except PluginError as error:
        message = f"{error}; so nothing that it brings could be checked here"
        missing = Finding(path=f"{path}.driver", message=message, severity=Severity.WARNING)
        return value, [missing, *_wrong_patterns(spec, path), *_label_lengths(written, spec), *_advice(spec, path)]
    findings = [*_wrong_patterns(whole, path), *_label_lengths(written, whole), *_advice(whole, path)]
    if value is not None and at(spec, "driver") is not None:
        merged, found = load(ModuleSpec, whole)
        for finding in found:
            if finding.severity is Severity.ERROR:
                message = f"{finding.message} (once the driver {shown(spec['driver'])} is merged in)"
                findings.append(replace(finding, path=f"{path}.{finding.path}".rstrip("."), message=message))
        value = merged
    if value is not None:
        merged_spec = {**whole, "driver": spec["driver"]} if at(spec, "driver") else whole
        module = {
            "apiVersion": KIND_BY_NAME["Module"].api_version,
            "kind": "Module",
            "metadata": {"name": written.metadata.name if written.metadata else None, "namespace": written.namespace},
            "spec": merged_spec,
        }
        findings += [*_needs(value, path, catalog), *_plugin_findings(module, catalog)]
    return value, findings


def _wrong_patterns(spec: Manifest, path: str) -> Iterator[Finding]:
    for index, message in wrong_patterns(at(spec, "moduleLoader", "container")):
        yield Finding(path=f"{path}.moduleLoader.container.kernelMappings[{index}].regexp", message=message)


def _resolved(spec: object, catalog: Catalog) -> object:
    try:
        return catalog.whole_spec(spec) if isinstance(spec, Mapping) else spec
    except PluginError:
        return spec


def _label_lengths(written: _Whole, spec: Manifest) -> Iterator[Finding]:
    """Yield what is too long once namespace and name stand in the labels that this Module needs.

    Without a namespace in the manifest, what the name alone leaves no room for.
    """
    metadata = written.metadata
    if metadata is None or not (metadata.name or metadata.generate_name):
        return
    # The API server appends five characters to generateName.
    name = metadata.name or f"{metadata.generate_name}12345"
    parts = ["{}.ready"]
    if at(spec, "devicePlugin") is not None:
        parts.append("{}.device-plugin-ready")
    if at(spec, "moduleLoader", "container", "version") is not None:
        parts += ["version-module-loader.{}", "{}.version.ready", "version-module.{}"]
        parts += ["version-device-plugin.{}"] * (at(spec, "devicePlugin") is not None)
    room = LABEL_LONGEST - max(len(part.format("")) for part in parts)
    together = f"{written.namespace or 'd'}.{name}"
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

    yield from _selector_advice(at(spec, "selector"), f"{path}.selector")
    container = at(spec, "moduleLoader", "container")
    sections = [("moduleLoader.container", container)]
    mappings = items(container, "kernelMappings")
    sections += [(f"moduleLoader.container.kernelMappings[{index}]", each) for index, each in enumerate(mappings)]
    for where, section in sections:
        yield from _selector_advice(at(section, "build", "selector"), f"{path}.{where}.build.selector")
        for index, arg in enumerate(items(section, "build", "buildArgs")):
            if at(arg, "name") in INJECTED_ARGS:
                message = "is set by the operator for each kernel: the value that is given here is not used"
                yield warn(f"{where}.build.buildArgs[{index}]", message)
    version = at(container, "version")
    if isinstance(version, str) and not is_label_value(version):
        yield warn("moduleLoader.container.version", "is no possible value of a label, so no node can ask for it")
    for where, section in sections[1:] or sections:
        build = at(section, "build") or at(container, "build")
        sign = at(section, "sign") or at(container, "sign")
        config_map = at(section, "build", "dockerfileConfigMap", "name") or at(
            container, "build", "dockerfileConfigMap", "name"
        )
        if isinstance(at(build, "dockerfileConfigMap"), Mapping) and config_map is None:
            yield warn(f"{where}.build.dockerfileConfigMap", "names no ConfigMap, so there is nothing to build")
        unsigned = at(section, "sign", "unsignedImage") or at(container, "sign", "unsignedImage")
        if isinstance(sign, Mapping) and build is None and unsigned is None:
            yield warn(
                f"{where}.sign",
                "has neither unsignedImage nor a build beside it, so there is nothing to sign",
            )
    for where, templated in _templates(spec, sections):
        yield from (warn(where, message) for message in _template_advice(templated, in_image="mage" in where))


def _selector_advice(selector: object, path: str) -> Iterator[Finding]:
    impossible = (
        f"{key}={value}"
        for key, value in (selector.items() if isinstance(selector, Mapping) else ())
        if isinstance(value, str) and not (is_label_key(key) and is_label_value(value))
    )
    for label in islice(impossible, _FINDINGS_MOST):
        message = f"nothing can have the label {shown(label)}"
        yield Finding(path=path, message=message, severity=Severity.WARNING)


def _templates(spec: object, sections: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield every text that may hold variables, and where it is."""
    found = [("devicePlugin.container.image", at(spec, "devicePlugin", "container", "image"))]
    for where, section in sections:
        found.append((f"{where}.containerImage", at(section, "containerImage")))
        found.append((f"{where}.sign.unsignedImage", at(section, "sign", "unsignedImage")))
        for index, path in enumerate(items(section, "sign", "filesToSign")):
            found.append((f"{where}.sign.filesToSign[{index}]", path))
        for index, arg in enumerate(items(section, "build", "buildArgs")):
            found.append((f"{where}.build.buildArgs[{index}].value", at(arg, "value")))
    return ((where, text) for where, text in found if isinstance(text, str) and len(text) <= TEMPLATE_LONGEST)


def _template_advice(text: str, *, in_image: bool) -> Iterator[str]:
    try:
        for name in template.check(text):
            if name not in template.VARIABLES:
                yield f"${{{name}}} is no variable and stands for nothing{nearest(name, template.VARIABLES)}"
        if in_image:
            reference.parse(template.expand(text, lambda name: "6.1" if name in template.VARIABLES else None))
    except template.TemplateError:
        return  # an error of its own
    except reference.ReferenceError as error:
        yield f"{error} (with 6.1 for each variable)" if "$" in text else str(error)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A renderer that a Module asks for, and the parts of it that say how. `name`: None where the core chooses."""

    noun: str
    field: str
    path: str
    name: str | None
    parts: tuple[Any, ...]


def _asked_for(spec: ModuleSpec, path: str) -> Iterator[_Asked]:
    container = spec.module_loader.container if spec.module_loader else None
    if container is not None:
        merged: list[tuple[str, Build | None, Sign | None]] = [
            (
                f".kernelMappings[{index}]",
                mapping.build and merge_builds(container.build, mapping.build),
                mapping.sign and merge_signs(container.sign, mapping.sign),
            )
            for index, mapping in enumerate(container.kernel_mappings)
        ]
        # What only the container says is told once, there, if some mapping relies on it.
        relies = [
            section if not merged or any(each[place] is None for each in merged) else None
            for place, section in ((1, container.build), (2, container.sign))
        ]
        for where, build, sign in (*merged, ("", *relies)):
            at_section = f"{path}.moduleLoader.container{where}"
            if isinstance(build, Build):
                yield _Asked("builder", "builder", f"{at_section}.build", build.builder, (build,))
            if isinstance(sign, Sign):
                yield _Asked("signer", "signer", f"{at_section}.sign", sign.signer, (sign,))
    plugin = spec.device_plugin
    if plugin is not None and plugin.renderer is not None:
        parts = (plugin.container, plugin)
        yield _Asked("device-plugin renderer", "renderer", f"{path}.devicePlugin", plugin.renderer, parts)


def _needs(spec: ModuleSpec, path: str, catalog: Catalog) -> Iterator[Finding]:
    """Yield what the chosen builders, signers and renderers miss, and which of them are not installed."""
    kinds: dict[str, tuple[Mapping[str, Any], Callable[[str], Any]]] = {
        "builder": (catalog.builders, catalog.builder),
        "signer": (catalog.signers, catalog.signer),
        "device-plugin renderer": (catalog.device_plugins, catalog.device_plugin),
    }
    for asked in _asked_for(spec, path):
        offers, named = kinds[asked.noun]
        only = next(iter(offers)) if len(offers) == 1 else None
        name = asked.name or only  # of several, the operator's configuration chooses, which is not known here
        if name is None:
            continue
        try:
            requires = named(name).requires
        except PluginError as error:
            message = f"{error}; so its needs could not be checked here"
            yield Finding(path=f"{asked.path}.{asked.field}", message=message, severity=Severity.WARNING)
            continue
        for needed in requires:
            field = str(_FIELD_OF.get(needed, needed))
            lacking = f'is required by the {asked.noun} "{name}"'
            if field == _WHOLE_MODULES:
                if not _is_set(spec.image_repo_secret):
                    yield Finding(path=f"{path}.{camel(field)}", message=lacking)
                continue
            # What is no field of the section is the core's to give.
            values = [getattr(part, field) for part in asked.parts if hasattr(part, field)]
            if values and not any(map(_is_set, values)) and field != "unsigned_image":
                yield Finding(path=f"{asked.path}.{camel(field)}", message=lacking)


_WHOLE_MODULES = "image_repo_secret"
# The fields of a request that a Module spells in another way.
_FIELD_OF = {
    "push_secret": _WHOLE_MODULES,
    "pull_secret": _WHOLE_MODULES,
    "files": "files_to_sign",
    "builder_tag": "kaniko_params",
    "node_selector": "selector",
    "args": "build_args",
}


def _is_set(value: Any) -> bool:
    return bool(value.name) if hasattr(value, "name") else bool(value)


def _plugin_findings(manifest: Manifest, catalog: Catalog) -> Iterator[Finding]:
    for plugin in catalog.plugins:
        if plugin.validate_module is None:
            continue
        try:
            yield from _asked(plugin.validate_module, manifest)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything, and must stop nobody
            message = f'plugin "{plugin.name}" could not judge this Module: {type(error).__name__}'
            if isinstance(error, TypeError | ValueError | LookupError | ArithmeticError):
                message += f": {error}"[:400]
            yield Finding(path="", message=message, severity=Severity.WARNING)


def _asked(validate: Callable[[Manifest], Sequence[Finding]], manifest: Manifest) -> list[Finding]:
    """Return what a plugin finds, as plain findings. Raises whatever it raises, and TypeError for a wrong result."""
    found = validate(copy.deepcopy(dict(manifest)))
    if not isinstance(found, list | tuple) or not all(_is_finding(each) for each in found):
        raise TypeError("it returned something else than a list of findings")
    return [
        Finding(path=str(each.path), message=str(each.message), severity=each.severity)
        for each in found[:_FINDINGS_MOST]
    ]


def _is_finding(found: Any) -> bool:
    if not isinstance(found, Finding):
        return False
    values: list[Any] = [found.path, found.message]
    return all(isinstance(each, str) for each in values) and type(found.severity) is Severity


# ── AdmissionReview ───────────────────────────────────────────────────────────────────────────────────────────


def admit(review: object, catalog: Catalog) -> dict[str, Any]:
    """Answer an AdmissionReview (`admission.k8s.io/v1`) of one of our kinds. Never raises.

    An object being deleted, a status, and an update that leaves the specification as it is, are let through:
    what is stored already must stay possible to finish and to delete.
    """
    request = at(review, "request")
    request = request if isinstance(request, Mapping) else {}
    manifest, old = request.get("object"), request.get("oldObject")
    uid, operation = request.get("uid"), request.get("operation")
    response: dict[str, Any] = {"uid": uid if isinstance(uid, str) else "", "allowed": True}
    if not response["uid"] or operation not in ("CREATE", "UPDATE", "DELETE", "CONNECT"):
        response |= _refusal(["the AdmissionReview holds no request with a uid and an operation"], 400)
    elif operation in ("CREATE", "UPDATE") and not request.get("subResource"):
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
