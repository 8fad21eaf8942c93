"""What plugins render: checked, and finished with what only the core may say."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from kmm.contract import Kind, Manifest, Renderer
from kmm.core import names
from kmm.core.view import Subject
from kmm.errors import PluginError

R = TypeVar("R")

MODULE_API_VERSION = "kmm.sigs.x-k8s.io/v1beta1"


def render(renderer: Renderer[R], request: R, namespace: str) -> Sequence[Manifest]:
    """Return what `renderer` makes of `request`. Raises PluginError for what it may not make, or raises itself."""
    try:
        made = renderer.render(request)
    except Exception as error:  # a plugin may raise anything, and must stop nobody else
        raise RendererError(f'"{renderer.name}" could not render: {type(error).__name__}: {error}'[:500]) from None
    try:
        made = json.loads(json.dumps(made, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise RendererError(f'"{renderer.name}" rendered what JSON cannot write') from None
    allowed = {(kind.api_version, kind.kind) for kind in renderer.owns}
    if not isinstance(made, list | tuple) or not made:
        raise RendererError(f'"{renderer.name}" rendered nothing')
    for manifest in made:
        kind = (manifest.get("apiVersion"), manifest.get("kind")) if isinstance(manifest, Mapping) else ("", "")
        if not all(isinstance(each, str) for each in kind) or kind not in allowed:
            raise RendererError(f'"{renderer.name}" rendered {kind}, which is not among the kinds that it owns')
        metadata = manifest.get("metadata") or {}
        if not isinstance(metadata, Mapping) or not all(
            isinstance(metadata.get(key) or {}, Mapping) for key in ("labels", "annotations")
        ):
            raise RendererError(f'"{renderer.name}" rendered an object whose metadata cannot be read')
        if metadata.get("namespace", namespace) != namespace:
            raise RendererError(f'"{renderer.name}" rendered an object for another namespace')
        if not _has_whole_pods(manifest):
            raise RendererError(f'"{renderer.name}" rendered an object whose pod template is none')
    return made


def _has_whole_pods(manifest: Mapping[str, Any]) -> bool:
    """Whether a pod template, where there is one, is such that the core can finish it."""
    is_daemon_set = manifest.get("kind") == "DaemonSet"
    spec = manifest.get("spec", {})
    template = spec.get("template") if isinstance(spec, Mapping) else spec
    if not isinstance(spec, Mapping) or not isinstance(template, Mapping):
        return isinstance(spec, Mapping) and template is None and not is_daemon_set
    metadata, pod = template.get("metadata") or {}, template.get("spec") or {}
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("labels") or {}, Mapping):
        return False
    if not isinstance(pod, Mapping):
        return False
    every = [pod.get(key) or [] for key in ("containers", "initContainers")]
    return (bool(every[0]) or not is_daemon_set) and all(
        isinstance(each, list) and all(isinstance(container, dict) for container in each) for each in every
    )


class RendererError(PluginError):
    """A plugin raised while it rendered, or rendered what it may not."""


def finished(
    manifest: Manifest,
    subject: Subject,
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    namespace: str = "",
) -> dict[str, Any]:
    """Return a rendered object with its name, namespace, labels, annotations and owner: ours, whatever it says.

    `namespace`: where it is not that of the Module, and there can be no owner.
    """
    made = copy.deepcopy(dict(manifest))
    own = made.pop("metadata", None) or {}
    metadata = {
        "name": name,
        "namespace": subject.ref.namespace,
        "labels": {**(own.get("labels") or {}), **labels},
        "annotations": {**(own.get("annotations") or {}), **annotations},
        "ownerReferences": [
            {
                "apiVersion": MODULE_API_VERSION,
                "kind": "Module",
                "name": subject.ref.name,
                "uid": subject.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if namespace not in ("", subject.ref.namespace):
        # The garbage collector takes what has an owner in another namespace for an orphan.
        del metadata["ownerReferences"]
        metadata["namespace"] = namespace
    return {"apiVersion": made.pop("apiVersion"), "kind": made.pop("kind"), "metadata": metadata, **made}


def finished_task(
    manifest: Manifest,
    subject: Subject,
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    namespace: str = "",
) -> dict[str, Any]:
    """Return a task's object, finished, and its pods as they must be: found, without rights, saying why they fail."""
    if namespace not in ("", subject.ref.namespace):
        labels = {**labels, names.MODULE_NAMESPACE: subject.ref.namespace}
        annotations = {**annotations, names.MODULE_UID: subject.uid}
    made = finished(manifest, subject, name, labels, annotations, namespace)
    template = (made.get("spec") or {}).get("template")
    if not isinstance(template, dict) or not isinstance(template.get("spec"), dict):
        return made  # it has no pod template: a Build, or what a task needs beside its Job
    template["metadata"] = dict(template.get("metadata") or {})
    template["metadata"]["labels"] = {**(template["metadata"].get("labels") or {}), **labels}
    pod = template["spec"]
    pod["automountServiceAccountToken"] = False
    for container in [*(pod.get("initContainers") or ()), *(pod.get("containers") or ())]:
        container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    return made


def running(objects: Sequence[Manifest]) -> Sequence[Manifest]:
    """Return which objects of an attempt run something that ends: those with a pod template, else the first.

    The first alone: a Build; or what was made first of an attempt whose maker died, and stands for what comes.
    """
    found = [each for each in objects if isinstance((each.get("spec") or {}).get("template"), Mapping)]
    return found or objects[:1]


def kind_of(manifest: Manifest, owns: Sequence[Kind]) -> Kind:
    """Return which of a renderer's kinds an object is of."""
    return next(kind for kind in owns if (kind.api_version, kind.kind) == (manifest["apiVersion"], manifest["kind"]))
