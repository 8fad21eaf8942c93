"""Kubernetes' own kinds, as far as a cluster with modules needs them: what they default to and what they refuse."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kmm.embedded import table
from kmm.embedded.failure import Cause, bad_request, refused, required, shown, wrong
from kmm.embedded.resource import Resource
from kmm.embedded.selector import accepts, of_object
from kmm.embedded.structure import Structure, definitions
from kmm.embedded.structure import objections as schema_objections

CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
ENDED = ("Succeeded", "Failed")  # the phases of a pod that is over
REVISION = "deprecated.daemonset.template.generation"
JOB_LABELS = ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name")

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_QUALIFIED = re.compile(rf"(({_LABEL})(\.{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_DATA_KEY_RULE = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
    "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def _kind(kind: str, plural: str, *short: str, **more: Any) -> Resource:
    return Resource(
        kind=kind,
        plural=plural,
        singular=kind.lower(),
        short_names=short,
        structure=Structure(definitions()[kind], custom=False),
        columns=table.builtin_columns().get(kind, ()),
        **more,
    )


_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
RESOURCES = (
    _kind(
        "Namespace", "namespaces", "ns", namespaced=False, status=True, selectable=("status.phase",)
    ),
    _kind(
        "Node",
        "nodes",
        "no",
        namespaced=False,
        status=True,
        born_with_status=True,
        selectable=("spec.unschedulable",),
    ),
    _kind(
        "Pod",
        "pods",
        "po",
        status=True,
        generation=True,
        categories=("all",),
        selectable=("spec.nodeName", "status.phase", "spec.restartPolicy", "spec.serviceAccountName"),
    ),
    _kind("ConfigMap", "configmaps", "cm"),
    _kind("Secret", "secrets", selectable=("type",)),
    _kind("ServiceAccount", "serviceaccounts", "sa"),
    _kind(
        "Event",
        "events",
        "ev",
        selectable=(*(f"involvedObject.{each}" for each in _INVOLVED), "reason", "type", "reportingComponent"),
    ),
    _kind(
        "DaemonSet", "daemonsets", "ds", group="apps", status=True, generation=True, categories=("all",)
    ),
    _kind(
        "Job", "jobs", group="batch", status=True, generation=True, categories=("all",),
        selectable=("status.successful",),
    ),
    _kind("Lease", "leases", group="coordination.k8s.io"),
    _kind(
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd",
        "crds",
        group="apiextensions.k8s.io",
        namespaced=False,
        status=True,
        generation=True,
        categories=("api-extensions",),
    ),
)  # fmt: skip
BY_KIND = {each.kind: each for each in RESOURCES}


def default(resource: Resource, body: dict[str, Any], old: Mapping[str, Any] | None) -> None:
    """Write into an object what its kind says where its author said nothing."""
    if resource.custom:
        return
    meta, spec = body["metadata"], body.get("spec")
    match resource.kind:
        case "Namespace":
            finalizers = body.setdefault("spec", {}).setdefault("finalizers", [])
            if old is None and "kubernetes" not in finalizers:
                finalizers.append("kubernetes")
            meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta.get("name", "")
            body.setdefault("status", {}).setdefault("phase", "Active")
        case "Node":
            body.setdefault("spec", {})
            body.setdefault("status", {})
        case "Secret":
            body.setdefault("type", "Opaque")
            for key, text in (body.pop("stringData", None) or {}).items():
                body.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()
            _check_base64(body.get("data"))
        case "ConfigMap":
            _check_base64(body.get("binaryData"))
        case "Event":
            body.setdefault("source", {})
        case "Pod" if spec:
            _default_pod(spec, of_template=False)
            body.setdefault("status", {}).setdefault("phase", "Pending")
            body["status"].setdefault("qosClass", "BestEffort")
        case "DaemonSet" if spec:
            strategy = spec.setdefault("updateStrategy", {})
            if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
                rolling = strategy.setdefault("rollingUpdate", {})
                rolling.setdefault("maxUnavailable", 1)
                rolling.setdefault("maxSurge", 0)
            spec.setdefault("revisionHistoryLimit", 10)
            _default_pod(spec.setdefault("template", {}).setdefault("spec", {}), of_template=True)
            revision = 1 if old is None else int(old["metadata"]["annotations"][REVISION])
            changed = old is not None and old["spec"]["template"] != spec["template"]
            meta.setdefault("annotations", {})[REVISION] = str(revision + changed)
            status = body.setdefault("status", {})
            for key in ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"):
                status.setdefault(key, 0)
        case "Job" if spec:
            _default_job(body, spec)
        case "CustomResourceDefinition" if spec:
            names = spec.get("names") or {}
            names.setdefault("singular", names.get("kind", "").lower())
            names.setdefault("listKind", f"{names.get('kind', '')}List")
            spec.setdefault("conversion", {"strategy": "None"})
            if CLEANUP not in (finalizers := meta.setdefault("finalizers", [])) and "deletionTimestamp" not in meta:
                finalizers.append(CLEANUP)


def _default_job(body: dict[str, Any], spec: dict[str, Any]) -> None:
    for key, value in (
        ("backoffLimit", 6),
        ("completions", 1),
        ("parallelism", 1),
        ("completionMode", "NonIndexed"),
        ("manualSelector", False),
        ("suspend", False),
        ("podReplacementPolicy", "TerminatingOrFailed"),
    ):
        spec.setdefault(key, value)
    template = spec.setdefault("template", {})
    _default_pod(template.setdefault("spec", {}), of_template=True)
    if not spec.get("manualSelector") and "selector" not in spec:
        uid, name = body["metadata"].get("uid", ""), body["metadata"].get("name", "")
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        labels |= dict(zip(JOB_LABELS, (uid, name, uid, name), strict=True))
        spec["selector"] = {"matchLabels": {JOB_LABELS[0]: uid}}
    body.setdefault("status", {})


def _default_pod(spec: dict[str, Any], *, of_template: bool) -> None:
    for key, value in (
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("schedulerName", "default-scheduler"),
        ("terminationGracePeriodSeconds", 30),
    ):
        spec.setdefault(key, value)
    spec.setdefault("securityContext", {})
    if not of_template:
        spec.setdefault("serviceAccountName", "default")
        spec.setdefault("enableServiceLinks", True)
        spec.setdefault("priority", 2_000_001_000 if "priorityClassName" in spec else 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        tolerations = spec.setdefault("tolerations", [])
        for taint in ("not-ready", "unreachable"):
            key = f"node.kubernetes.io/{taint}"
            if not any(
                (each.get("key") in (key, None)) and each.get("effect", "NoExecute") == "NoExecute"
                for each in tolerations
            ):
                tolerations.append(
                    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                )
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        _default_container(container)
    for volume in spec.get("volumes", ()):
        for source in ("secret", "configMap", "projected", "downwardAPI"):
            if source in volume:
                volume[source].setdefault("defaultMode", 420)
        if "hostPath" in volume:
            volume["hostPath"].setdefault("type", "")


def _default_container(container: dict[str, Any]) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    image = container.get("image", "")
    tag = image.rpartition("/")[2].partition(":")[2]
    fixed = "@" in image or tag not in ("", "latest")
    container.setdefault("imagePullPolicy", "IfNotPresent" if fixed else "Always")
    for port in container.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", ()):
        if "fieldRef" in (variable.get("valueFrom") or {}):
            variable["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        for key, value in (
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ):
            if probe in container:
                container[probe].setdefault(key, value)


def objections(resource: Resource, body: Mapping[str, Any], old: Mapping[str, Any] | None) -> Iterator[Cause]:
    """Yield what the API server has against an object beyond its schema."""
    meta = body["metadata"]
    yield from _meta(meta, "metadata", a_label=resource.kind == "Namespace")
    spec = body.get("spec") or {}
    was = (old or {}).get("spec") or {}
    match resource.kind if not resource.custom else "":
        case "DaemonSet":
            yield from _daemon_set(spec)
            if old and spec.get("selector") != was.get("selector"):
                yield wrong("spec.selector", spec.get("selector"), "field is immutable")
        case "Job":
            if spec.get("template", {}).get("spec", {}).get("restartPolicy") not in ("OnFailure", "Never"):
                yield required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
            yield from _pod_spec(spec.get("template", {}).get("spec") or {}, "spec.template.spec")
            for key in ("backoffLimit", "completions", "parallelism", "activeDeadlineSeconds"):
                if (spec.get(key) or 0) < 0:
                    yield wrong(f"spec.{key}", spec[key], "must be greater than or equal to 0")
            for key in ("template", "selector", "completions"):
                if old and spec.get(key) != was.get(key):
                    yield wrong(f"spec.{key}", spec.get(key), "field is immutable")
        case "Pod":
            yield from _pod(spec, was if old else None)
        case "ConfigMap" | "Secret":
            for key in (*(body.get("data") or {}), *(body.get("binaryData") or {})):
                if not _KEY.fullmatch(key) or key in (".", ".."):
                    yield wrong(f"data[{key}]", key, f"{_DATA_KEY_RULE} '{_KEY.pattern}')")
            if old and old.get("immutable") and any(body.get(key) != old.get(key) for key in ("data", "binaryData")):
                yield refused("data", "field is immutable when `immutable` is set")
            if old and resource.kind == "Secret" and body.get("type") != old.get("type"):
                yield wrong("type", body.get("type"), "field is immutable")
        case "Event":
            said = (body.get("involvedObject") or {}).get("namespace", "")
            if not old and (said or "default") != meta.get("namespace"):
                yield wrong("involvedObject.namespace", said, "does not match event.namespace")
        case "CustomResourceDefinition":
            yield from _definition(body, spec, was)


def _meta(meta: Mapping[str, Any], path: str, *, a_label: bool = False) -> Iterator[Cause]:
    name = meta.get("name")
    if not name and not meta.get("generateName"):
        yield required(f"{path}.name", "name or generateName is required")
    elif name and (not _SUBDOMAIN.fullmatch(name) or len(name) > 253):
        yield wrong(f"{path}.name", name, _SUBDOMAIN_RULE)
    elif name and a_label and ("." in name or len(name) > 63):
        yield wrong(f"{path}.name", name, "must be no more than 63 characters and a lowercase RFC 1123 label")
    for key, value in (meta.get("labels") or {}).items():
        if not _QUALIFIED.fullmatch(key):
            yield wrong(f"{path}.labels", key, _KEY_RULE)
        if len(value) > 63:
            yield wrong(f"{path}.labels", value, "must be no more than 63 bytes")
        elif not _VALUE.fullmatch(value):
            yield wrong(f"{path}.labels", value, _VALUE_RULE)
    annotations = meta.get("annotations") or {}
    if sum(len(key) + len(value) for key, value in annotations.items()) > 256 * 1024:
        yield Cause(f"{path}.annotations", "FieldValueTooLong", "Too long: may not be more than 262144 bytes")
    for key in annotations:
        if not _QUALIFIED.fullmatch(key.lower()):
            yield wrong(f"{path}.annotations", key, _KEY_RULE)
    for each in meta.get("finalizers") or ():
        if not _QUALIFIED.fullmatch(each):
            yield wrong(f"{path}.finalizers", each, _KEY_RULE)
    owners = meta.get("ownerReferences") or ()
    for owner in owners:
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                yield wrong(f"{path}.ownerReferences.{key}", "", "must not be empty")
    controllers = [owner for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        yield wrong(f"{path}.ownerReferences", owners, "Only one reference can have Controller set to true")


def _daemon_set(spec: Mapping[str, Any]) -> Iterator[Cause]:
    template = spec.get("template") or {}
    selector = of_object(spec.get("selector"))
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector == ():
        yield wrong("spec.selector", spec["selector"], "empty selector is invalid for daemonset")
    if selector is None or not accepts(selector, labels):
        yield wrong("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy != "Always":
        message = f'Unsupported value: {shown(policy)}: supported values: "Always"'
        yield Cause("spec.template.spec.restartPolicy", "FieldValueNotSupported", message)
    unavailable = ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("maxUnavailable", 1)
    if not re.fullmatch(r"\d{1,9}|\d{1,3}%", str(unavailable)):
        detail = "a valid percent string must be a numeric string followed by an ending '%'"
        yield wrong("spec.updateStrategy.rollingUpdate.maxUnavailable", unavailable, detail)
    yield from _pod_spec(template.get("spec") or {}, "spec.template.spec")


def _pod(spec: Mapping[str, Any], was: Mapping[str, Any] | None) -> Iterator[Cause]:
    yield from _pod_spec(spec, "spec")
    if was is None:
        return
    kept, before = _fixed(spec), _fixed(was)
    if kept != before:
        yield refused(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        )


def _fixed(spec: Mapping[str, Any]) -> dict[str, Any]:
    fixed = {key: value for key, value in spec.items() if key not in ("activeDeadlineSeconds", "tolerations")}
    for key in ("containers", "initContainers"):
        fixed[key] = [{**each, "image": ""} for each in spec.get(key, ())]
    return fixed


def _pod_spec(spec: Mapping[str, Any], path: str) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    if spec.get("nodeName") and not _SUBDOMAIN.fullmatch(spec["nodeName"]):
        yield wrong(f"{path}.nodeName", spec["nodeName"], _SUBDOMAIN_RULE)
    volumes = set()
    for index, volume in enumerate(spec.get("volumes", ())):
        found = list(_volume(volume, f"{path}.volumes[{index}]"))
        yield from found
        if not found:
            volumes.add(volume.get("name"))
    names: set[str] = set()
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind, ())):
            at = f"{path}.{kind}[{index}]"
            if not container.get("image"):
                yield required(f"{at}.image")
            if not re.fullmatch(_LABEL, container.get("name", "")):
                yield wrong(f"{at}.name", container.get("name", ""), _LABEL_RULE)
            if container.get("name") in names:
                yield Cause(f"{at}.name", "FieldValueDuplicate", f'Duplicate value: "{container["name"]}"')
            names.add(container.get("name", ""))
            for mount, each in enumerate(container.get("volumeMounts", ())):
                yield from _local(each.get("subPath") or "-", f"{at}.volumeMounts.subPath")
                if each.get("name") not in volumes:
                    message = f'Not found: "{each.get("name")}"'
                    yield Cause(f"{at}.volumeMounts[{mount}].name", "FieldValueNotFound", message)


def _volume(volume: Mapping[str, Any], at: str) -> Iterator[Cause]:
    if not re.fullmatch(_LABEL, volume.get("name", "")):
        yield wrong(f"{at}.name", volume.get("name", ""), _LABEL_RULE)
    if ".." in (volume.get("hostPath") or {}).get("path", "").split("/"):
        yield wrong(f"{at}.hostPath.path", volume["hostPath"]["path"], "must not contain '..'")
    for source in (volume, *(volume.get("projected") or {}).get("sources", ())):
        for kind in ("secret", "configMap"):
            for number, item in enumerate((source.get(kind) or {}).get("items") or ()):
                yield from _local(item.get("path", ""), f"{at}.{kind}.items[{number}].path")


def _local(path: str, at: str) -> Iterator[Cause]:
    if path.startswith("/"):
        yield wrong(at, path, "must be a relative path")
    if ".." in path.split("/"):
        yield wrong(at, path, "must not contain '..'")


def _definition(body: Mapping[str, Any], spec: Mapping[str, Any], was: Mapping[str, Any]) -> Iterator[Cause]:
    wanted = f"{spec.get('names', {}).get('plural')}.{spec.get('group')}"
    if body["metadata"].get("name") != wanted:
        yield wrong("metadata.name", body["metadata"].get("name"), 'must be spec.names.plural+"."+spec.group')
    if spec.get("group") in {each.group for each in RESOURCES}:
        yield wrong("spec.group", spec.get("group"), "is served by the API server itself")
    versions = spec.get("versions") or []
    if sum(bool(each.get("storage")) for each in versions) != 1:
        yield wrong("spec.versions", versions, "must have exactly one version marked as storage version")
    for index, each in enumerate(versions):
        schema = (each.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            yield required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required")
        else:
            yield from schema_objections(schema, "spec.validation.openAPIV3Schema")
    for key in ("scope", "group"):
        if was and spec.get(key) != was.get(key):
            yield wrong(f"spec.{key}", spec.get(key), "field is immutable")


def _check_base64(data: Mapping[str, str] | None) -> None:
    for key, value in (data or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except ValueError as error:
            raise bad_request(f"illegal base64 data in {key}: {error}") from error
