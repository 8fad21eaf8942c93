"""What a Module's status says: counts, conditions and a line for each kernel, written only when it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kmm.core import names
from kmm.core.reasons import Reason
from kmm.core.view import DaemonSet, Subject, View

KERNELS_MOST = 100
FIELDS_IGNORED = "FieldsIgnored"
"""The condition that is there only as long as something of the Module comes to nothing."""

_MESSAGE_LONGEST = 1024
_NAMED = 5  # kernels that a warning names


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelState:
    """Where a Module is for one kernel. `settled`: nothing more is to be done for it.

    `available`: the nodes on which it is loaded, where that is known. `warning`: what of its mapping comes to
    nothing.
    """

    kernel: str
    nodes: int
    reason: Reason
    message: str = ""
    mapped: bool = True
    available: int | None = None
    image: str = ""
    image_ready: bool = False
    digest: str = ""
    settled: bool = False
    failed: bool = False
    attempts: int = 0
    last_failure_s: float | None = None
    inputs: str = ""
    warning: str = ""


def timestamp(at_s: float) -> str:
    """Return seconds since the epoch as Kubernetes writes a time."""
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def kernels_named(kernels: Sequence[str], most: int) -> str:
    """Return "kernel a", or "kernels a, b and 7 more": of many, the first `most` are named."""
    more = f" and {len(kernels) - most} more" if len(kernels) > most else ""
    return f"kernel{'s' * (len(kernels) > 1)} {', '.join(kernels[:most])}{more}"


def status(
    subject: Subject,
    view: View,
    kernels: Sequence[KernelState],
    blocked: tuple[Reason, str] | None,
    wrong: tuple[Reason, str] | None,
    builder: str,
    now_s: float,
) -> dict[str, Any]:
    """Return the whole status.

    `blocked`: why nothing is done, so that what was known of the kernels is kept. `wrong`: with the device plugin.
    `builder`: that was chosen for the Module, which names none.
    """
    previous = {each.get("kernelVersion"): each for each in view.status.get("kernels") or ()}
    targeted = sum(nodes.nodes for nodes in view.targets.values())
    made: dict[str, Any] = {
        "observedGeneration": subject.generation,
        "moduleLoader": {
            "nodesMatchingSelectorNumber": targeted,
            "desiredNumber": sum(each.nodes for each in kernels if each.mapped),
            "availableNumber": _available(view.daemon_sets, names.LOADER),
        },
        "kernels": [_kernel(each, previous.get(each.kernel) or {}) for each in kernels[:KERNELS_MOST]],
        "conditions": _conditions(subject, view, kernels, blocked, wrong, targeted, now_s),
    }
    if blocked:
        made["kernels"] = list(view.status.get("kernels") or ())
        builder = view.status.get("builder", "")
        made["moduleLoader"]["desiredNumber"] = (view.status.get("moduleLoader") or {}).get("desiredNumber", 0)
    if builder:
        made["builder"] = builder
    if len(kernels) > KERNELS_MOST:
        made["kernelsNotShown"] = len(kernels) - KERNELS_MOST
    if subject.spec and subject.spec.device_plugin:
        made["devicePlugin"] = {
            "nodesMatchingSelectorNumber": targeted,
            "desiredNumber": sum(each.nodes for each in kernels if each.mapped),
            "availableNumber": _available(view.daemon_sets, names.DEVICE_PLUGIN),
        }
    return made


def readable(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return what can be read of a status, whoever wrote it: the rest counts as absent."""

    def listed(key: str, name: str) -> list[Mapping[str, Any]]:
        value = written.get(key)
        return [
            each
            for each in (value if isinstance(value, list) else ())
            if isinstance(each, Mapping) and all(isinstance(each.get(text, ""), str) for text in (name, *_TEXTS))
        ]

    loader = written.get("moduleLoader")
    builder = written.get("builder")
    return {
        **written,
        "builder": builder if isinstance(builder, str) else "",
        "kernels": listed("kernels", "kernelVersion"),
        "conditions": listed("conditions", "type"),
        "moduleLoader": loader if isinstance(loader, Mapping) else {},
    }


_TEXTS = ("reason", "message", "image", "digest", "status", "lastTransitionTime", "inputsHash")


def _available(owned: Sequence[DaemonSet], role: str) -> int:
    return sum(each.available for each in owned if each.role == role)


def _kernel(state: KernelState, previous: Mapping[str, Any]) -> dict[str, Any]:
    failed_at = None if state.last_failure_s is None else timestamp(state.last_failure_s)
    digest = state.digest or (previous.get("digest") if previous.get("image") == state.image else None)
    made = {
        "kernelVersion": state.kernel,
        "nodes": state.nodes,
        "available": state.available,
        "state": "Settled" if state.settled else "Failed" if state.failed else "Pending",
        "reason": str(state.reason),
        "message": state.message[:_MESSAGE_LONGEST],
        "image": state.image,
        "digest": digest,
        "attempts": state.attempts,
        "lastFailureTime": failed_at,
        "inputsHash": state.inputs,
    }
    return {
        key: value
        for key, value in made.items()
        if key == "kernelVersion" or (value not in (None, "") and (key != "attempts" or value))
    }


def _conditions(
    subject: Subject,
    view: View,
    kernels: Sequence[KernelState],
    blocked: tuple[Reason, str] | None,
    wrong: tuple[Reason, str] | None,
    targeted: int,
    now_s: float,
) -> list[dict[str, Any]]:
    lacking = [(each.reason, each.message) for each in kernels] + ([wrong] if wrong else [])
    plugins = next((each for each in lacking if each[0] in (Reason.PLUGIN_MISSING, Reason.RENDERER_FAILED)), None)
    wanted = [
        ("ImagesReady", *_images(kernels, blocked)),
        ("Loaded", *_loaded(kernels, blocked)),
        ("DevicePluginReady", *((False, *wrong) if wrong else _device_plugin(subject, view, kernels))),
        (
            "PluginsAvailable",
            plugins is None,
            *(plugins or (Reason.PLUGINS_AVAILABLE, "every plugin that is asked for is installed")),
        ),
    ]
    failed = next((each for each in (*wanted[3:], *wanted[:3]) if not each[1]), None)
    if blocked:
        ready = ("Ready", False, *blocked)
    elif not targeted:
        ready = ("Ready", True, Reason.NO_NODES, "no node has the selector's labels and only tolerated taints")
    elif failed:
        ready = ("Ready", False, failed[2], failed[3])
    else:
        ready = ("Ready", True, Reason.READY, f"loaded on {sum(each.nodes for each in kernels if each.mapped)} nodes")
    before = {each.get("type"): each for each in view.status.get("conditions") or ()}
    made = [
        _condition(subject, before.get(type_) or {}, type_, holds, reason, message, now_s)
        for type_, holds, reason, message in (ready, *wanted, *_warnings(kernels))
    ]
    ours = {*(each["type"] for each in made), *(() if blocked else (FIELDS_IGNORED,))}
    return made + [dict(each) for type_, each in before.items() if type_ not in ours]


def _warnings(kernels: Sequence[KernelState]) -> list[tuple[str, bool, Reason, str]]:
    """Return the condition that warns, where there is something to warn of."""
    found: dict[str, list[str]] = {}
    for each in kernels:
        if each.warning:
            found.setdefault(each.warning, []).append(each.kernel)
    said = "; ".join(f"{kernels_named(those, _NAMED)}: {warning}" for warning, those in found.items())
    return [(FIELDS_IGNORED, True, Reason.FIELDS_IGNORED, said)] if said else []


def _condition(
    subject: Subject, before: Mapping[str, Any], type_: str, holds: bool, reason: Reason, message: str, now_s: float
) -> dict[str, Any]:
    value = "True" if holds else "False"
    since = before.get("lastTransitionTime") if before.get("status") == value else None
    return {
        "type": type_,
        "status": value,
        "reason": str(reason),
        "message": message[:_MESSAGE_LONGEST],
        "lastTransitionTime": since or timestamp(now_s),
        "observedGeneration": subject.generation,
    }


def _images(kernels: Sequence[KernelState], blocked: tuple[Reason, str] | None) -> tuple[bool, Reason, str]:
    if blocked:
        return False, *blocked
    waiting = [each for each in kernels if each.mapped and not each.image_ready]
    if not waiting:
        return True, Reason.IMAGES_READY, "every image is there, or its pull decides"
    worst = next((each for each in waiting if each.failed), waiting[0])
    return False, worst.reason, _several(worst, waiting)


def _loaded(kernels: Sequence[KernelState], blocked: tuple[Reason, str] | None) -> tuple[bool, Reason, str]:
    if blocked:
        return False, *blocked
    waiting = [each for each in kernels if not each.settled]
    if not waiting:
        return True, Reason.LOADED, "loaded on every targeted node whose kernel has a mapping"
    worst = next((each for each in waiting if each.failed), waiting[0])
    return False, worst.reason, _several(worst, waiting)


def _several(worst: KernelState, waiting: Sequence[KernelState]) -> str:
    more = f" (and {len(waiting) - 1} more kernels)" if len(waiting) > 1 else ""
    said = worst.message[: _MESSAGE_LONGEST - len(worst.kernel) - len(more) - 16]
    return f"kernel {worst.kernel}: {said}{more}" if said else f"kernel {worst.kernel}{more}"


def _device_plugin(subject: Subject, view: View, kernels: Sequence[KernelState]) -> tuple[bool, Reason, str]:
    if subject.spec is None or subject.spec.device_plugin is None:
        return True, Reason.NO_DEVICE_PLUGIN, "none is asked for"
    # Not what is scheduled: before the ready labels have reached the nodes, that is none of none.
    desired = sum(each.nodes for each in kernels if each.mapped)
    available = _available(view.daemon_sets, names.DEVICE_PLUGIN)
    there = any(each.role == names.DEVICE_PLUGIN and not each.deleting for each in view.daemon_sets)
    said = f"available on {available} of {desired} nodes"
    if there and available >= desired:
        return True, Reason.DEVICE_PLUGIN_READY, said
    return False, Reason.DEVICE_PLUGIN_STARTING, said
