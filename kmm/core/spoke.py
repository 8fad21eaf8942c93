"""The plan for one Module in a cluster: every rule put together. Pure: the same view gives the same plan."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from kmm.catalog import Catalog
from kmm.core import names
from kmm.core.actions import Action, Announce, Create, Delete, Plan, Probe, Replace, SetStatus
from kmm.core.base_images import BaseImageMissingError, BaseImageUndecidedError
from kmm.core.choice import UndecidedError, builder_to_keep, ignored, makers
from kmm.core.device_plugin import render_device_plugin
from kmm.core.diagnosis import diagnose, is_news
from kmm.core.diff import NameTakenError, Wanted, bring
from kmm.core.images import (
    ImageStep,
    InputMissingError,
    Makers,
    Phase,
    certificate,
    deletes,
    image_step,
    kept_until_s,
)
from kmm.core.loader_daemonset import DAEMON_SET, render_loader
from kmm.core.mapping import KernelTarget, resolve
from kmm.core.place import is_kept
from kmm.core.reasons import About, Reason, reason_of
from kmm.core.rendered import RendererError
from kmm.core.status import FIELDS_IGNORED, KERNELS_MOST, KernelState, kernels_named, readable, status
from kmm.core.view import DaemonSet, KernelNodes, Operator, Present, Subject, Task, View
from kmm.errors import PluginError, SpecError

_Wrong: TypeAlias = tuple[Reason, str] | None

_ENFORCE = "pod-security.kubernetes.io/enforce"
_WHY_NOT_LOADED = frozenset(each for each in Reason if each.about is About.LOADER)
# What a person would want to be told when it begins for a kernel, and not only to find in the status.
_TOLD = _WHY_NOT_LOADED | frozenset(
    {
        Reason.NO_MAPPING,
        Reason.MAPPING_UNREADABLE,
        Reason.NAME_TAKEN,
        Reason.BUILD_FAILED,
        Reason.SIGN_FAILED,
        Reason.BUILT_BUT_NOT_FOUND,
        Reason.REGISTRY_FORBIDDEN,
        Reason.ARCHITECTURE_MISSING,
        Reason.INPUT_MISSING,
        Reason.BASE_IMAGE_MISSING,
        Reason.PLUGIN_MISSING,
        Reason.RENDERER_FAILED,
    }
)


_UNWANTED = "nothing wants what it makes"
_NAMED = 5  # kernels that an event names


@dataclass(frozen=True, slots=True, kw_only=True)
class _KernelPlan:
    state: KernelState
    actions: tuple[Action, ...] = ()
    wake_at_s: float | None = None
    starts: int = 0
    queued: bool = False
    alone: str = ""
    awaits: bool = False


def plan_module(subject: Subject, view: View, catalog: Catalog, now_s: float) -> Plan:
    """Return what to do for one Module now. `now_s`: seconds since the epoch."""
    if subject.deleting or not view.synced:
        # A Module on its way out takes its objects along (owner references); before every watch has synced,
        # what is not seen may yet be there.
        return Plan()
    written, view = view.status, replace(view, status=readable(view.status))
    blocked = blockage(subject, view)
    kernels: list[_KernelPlan] = []
    kept: Mapping[str, float] = {}
    actions: list[Action] = []
    wrong: _Wrong = None
    if blocked is None:
        slots, makes = view.build_slots, dict[str, str]()
        # A kernel that has tasks goes on with them: whose image has the same name comes after it.
        busy = {task.kernel for task in view.tasks}
        for kernel in sorted(view.targets, key=lambda each: (each not in busy, each)):
            planned = _plan_kernel(subject, kernel, replace(view, build_slots=slots), catalog, now_s, makes)
            slots -= planned.starts + planned.queued
            if planned.alone:
                view = replace(view, using=view.using | {planned.alone})
            kernels.append(_with_refusal(planned, view))
        kernels.sort(key=lambda each: (not each.state.failed, each.state.kernel))
        for planned in kernels:
            actions += planned.actions
        device_plugin, wrong = _plan_device_plugin(subject, view, catalog)
        wrong = wrong or _refusal(device_plugin, view)
        kept = _kept(view, now_s)
        collected = _collect(subject, view, {each.state.kernel: each.state for each in kernels}, kept)
        actions += [*device_plugin, *collected]
    # What a loader proves is not asked for again: of its digest the answers still tell.
    digests = {asked.image: said.digest for asked, said in view.answers.items() if isinstance(said, Present)}
    states = [
        replace(state, digest=digests.get(state.image, "")) if state.image_ready and not state.digest else state
        for state in (each.state for each in kernels)
    ]
    made = status(subject, view, states, blocked, wrong, builder_to_keep(subject.spec, catalog, view), now_s)
    if made != written:
        # It is written as a merge patch: what is no longer said has to be taken away by name.
        gone = dict.fromkeys(written.keys() - made.keys())
        actions += [*_announce(view, states, made), SetStatus(status={**gone, **made})]
    wakes = [*kept.values(), *(each.wake_at_s for each in kernels if each.wake_at_s is not None)]
    return Plan(
        actions=tuple(actions),
        wake_at_s=min(wakes, default=None),
        reasons={state.kernel: f"{state.reason}: {state.message}".rstrip(": ") for state in states}
        | ({"": f"{blocked[0]}: {blocked[1]}"} if blocked else {}),
        starts=sum(each.starts for each in kernels),
        queued=any(each.queued for each in kernels),
        alone=frozenset(each.alone for each in kernels if each.alone),
        awaits=any(each.awaits for each in kernels),
    )


def blockage(subject: Subject, view: View) -> tuple[Reason, str] | None:
    """Return why nothing is done for a Module, or None. What runs for it is kept."""
    if subject.spec is None:
        first = subject.errors[0] if subject.errors else None
        return Reason.INVALID_SPEC, f"{first.path}: {first.message}" if first else "the specification cannot be used"
    container = subject.spec.module_loader.container if subject.spec.module_loader else None
    if container is None:
        return Reason.INVALID_SPEC, "spec.moduleLoader.container: is required"
    if container.version is not None:
        return (
            Reason.VERSION_UNSUPPORTED,
            "ordered upgrade is not supported yet: delete the Module and create it without version",
        )
    if not is_privileged(subject.ref.namespace, view.namespace_labels, view.operator):
        where = subject.ref.namespace
        message = f"privileged pods are not allowed in {where}: label it {_ENFORCE}=privileged, or add it to "
        return Reason.NAMESPACE_NOT_PRIVILEGED, message + "privilegedNamespaces"
    return None


def is_privileged(namespace: str, labels: Mapping[str, str], operator: Operator) -> bool:
    """Whether loaders may be rendered in a namespace. On OpenShift its security context constraints decide."""
    return (
        operator.openshift
        or namespace == operator.namespace
        or namespace in operator.privileged_namespaces
        or labels.get(_ENFORCE) == "privileged"
    )


def _plan_kernel(
    subject: Subject, kernel: str, view: View, catalog: Catalog, now_s: float, makes: dict[str, str]
) -> _KernelPlan:
    nodes = view.targets[kernel]
    target: KernelTarget | None = None
    try:
        container = subject.spec.module_loader.container if subject.spec and subject.spec.module_loader else None
        target = resolve(container, subject.ref, kernel) if container else None
        if target is None:
            count = f"{nodes.nodes} targeted node{'s run' if nodes.nodes > 1 else ' runs'}"
            message = f"no kernel mapping fits the kernel {kernel}, which {count}"
            state = KernelState(
                kernel=kernel,
                nodes=nodes.nodes,
                reason=Reason.NO_MAPPING,
                message=message,
                mapped=False,
                settled=True,
            )
            return _KernelPlan(state=state)
        return _plan_target(subject, target, nodes, view, catalog, now_s, makes)
    except SpecError as error:
        stuck = _stuck(kernel, nodes, target, _OF_ERROR.get(type(error), Reason.MAPPING_UNREADABLE), str(error))
        asked = error.questions if isinstance(error, BaseImageUndecidedError) else ()
        return replace(stuck, actions=tuple(Probe(question=each) for each in asked))
    except PluginError as error:
        return _stuck(kernel, nodes, target, _of_plugin(error), str(error))


_OF_ERROR: Mapping[type[SpecError], Reason] = {
    NameTakenError: Reason.NAME_TAKEN,
    InputMissingError: Reason.INPUT_MISSING,
    BaseImageMissingError: Reason.BASE_IMAGE_MISSING,
    BaseImageUndecidedError: Reason.BASE_IMAGE_UNDECIDED,
}


def _of_plugin(error: PluginError) -> Reason:
    if isinstance(error, UndecidedError):
        return Reason.BUILDER_UNDECIDED
    return Reason.RENDERER_FAILED if isinstance(error, RendererError) else Reason.PLUGIN_MISSING


def _refusal(actions: Iterable[Action], view: View) -> _Wrong:
    """Return why the API server would not have one of these writes when it was asked last."""
    wanted = [each.name for each in actions if isinstance(each, Create | Replace)]
    said = next((view.refused[name] for name in wanted if name in view.refused), "")
    return (Reason.WRITE_REFUSED, said) if said else None


def _with_refusal(planned: _KernelPlan, view: View) -> _KernelPlan:
    """Return a kernel's plan that says so where a write of it was refused; it is tried again all the same."""
    if (refusal := _refusal(planned.actions, view)) is None:
        return planned
    reason, said = refusal
    if planned.state.settled:  # what is loaded goes on
        state = replace(planned.state, message=f"{planned.state.message}; {reason}: {said}")
    else:
        state = replace(planned.state, reason=reason, message=said, failed=True)
    return replace(planned, state=state)


def _stuck(kernel: str, nodes: KernelNodes, target: KernelTarget | None, reason: Reason, message: str) -> _KernelPlan:
    return _KernelPlan(
        state=KernelState(
            kernel=kernel,
            nodes=nodes.nodes,
            reason=reason,
            message=message,
            image=target.image if target else "",
            failed=reason not in (Reason.BUILDER_UNDECIDED, Reason.BASE_IMAGE_UNDECIDED),
        )
    )


def _plan_target(
    subject: Subject,
    target: KernelTarget,
    nodes: KernelNodes,
    view: View,
    catalog: Catalog,
    now_s: float,
    makes: dict[str, str],
) -> _KernelPlan:
    label = names.kernel_label_values({*view.kernels, target.kernel})[target.kernel]
    chosen = makers(catalog, view)
    noted = certificate(target.sign, subject, view, chosen) if target.sign else ""
    wanted = Wanted(
        role=names.LOADER,
        kernel=target.kernel,
        name=names.daemon_set_name(subject.ref.name, subject.uid, names.LOADER, target.kernel, None),
        manifest=render_loader(subject, target, label, view.operator),
        annotations={},
    )
    owned = [each for each in view.daemon_sets if each.role == names.LOADER and _is_for(each, target.kernel, label)]
    if target.build is None and target.sign is None:
        planned = _loading(subject, wanted, owned, target, nodes, view)
        left = _ends((task for task in view.tasks if task.kernel == target.kernel), subject, view)
        return replace(planned, actions=(*planned.actions, *left))
    loader = max((each.uid for each in owned), default="")
    # What we rendered before, edited by somebody or not, had an image.
    proven = any(
        not each.deleting
        and each.annotations.get(names.LAST_HASH) == wanted.hash
        and (not noted or each.annotations.get(names.CERTIFICATE) == noted)
        for each in owned
    )
    warning = _warning(target, chosen)
    # `makes`: which kernel each image is made for, so that no two are made under one name.
    first = makes.setdefault(target.image, target.kernel)
    made_for = "" if first == target.kernel else first
    step = image_step(subject, target, nodes, view, chosen, now_s, proven=proven, loader=loader, made_for=made_for)
    if step.phase is Phase.READY:
        if step.certificate:
            wanted = replace(wanted, annotations={names.CERTIFICATE: step.certificate})
        planned = _loading(subject, wanted, owned, target, nodes, view)
        state = replace(planned.state, digest=step.digest, warning=warning)
        if step.reason is not Reason.IMAGES_READY:
            state = replace(state, message=f"{state.message}; {step.reason}: {step.message}".rstrip(": "))
        if planned.actions or planned.state.reason is Reason.IMAGE_PULL_FAILED:
            # Tasks go only once the loader is there: it is then what proves that the image is.
            return replace(planned, state=state)
        return _carrying(replace(planned, state=state), step)
    state = KernelState(
        kernel=target.kernel,
        nodes=nodes.nodes,
        available=_available(owned),
        reason=step.reason,
        message=step.message,
        image=target.image,
        digest=step.digest,
        failed=step.phase is Phase.BLOCKED,
        attempts=step.attempts,
        last_failure_s=step.last_failure_s,
        inputs=step.inputs,
        warning=warning,
    )
    return _carrying(_KernelPlan(state=state), step)


def _warning(target: KernelTarget, chosen: Makers) -> str:
    """Return what of a mapping comes to nothing, whatever becomes of its image."""
    if target.build is None:
        return ""
    try:
        return ignored(target, chosen.builder(target.build.builder))
    except PluginError:
        return ""  # which is told where it is in the way


def _carrying(planned: _KernelPlan, step: ImageStep) -> _KernelPlan:
    """Return a kernel's plan with what brings its image on."""
    return replace(
        planned,
        actions=step.actions,
        wake_at_s=step.wake_at_s,
        starts=step.starts,
        queued=step.queued,
        alone=step.alone,
        awaits=step.awaits,
    )


def _loading(
    subject: Subject, wanted: Wanted, owned: Sequence[DaemonSet], target: KernelTarget, nodes: KernelNodes, view: View
) -> _KernelPlan:
    actions = tuple(bring(wanted, owned, subject, view))
    available = _available(owned)
    state = KernelState(
        kernel=target.kernel,
        nodes=nodes.nodes,
        available=available,
        reason=Reason.LOADING,
        image=target.image,
        image_ready=True,
    )
    failures = sorted(
        (not is_news(pod), pod.node, found)
        for pod in view.pods
        if pod.module_uid == subject.uid and pod.role == names.LOADER and pod.kernel == target.kernel
        if (found := diagnose(pod))
    )
    before = _previous(view, target.kernel)
    # Why it failed is said once, before CrashLoopBackOff takes its place: it is kept until it is loaded or changed.
    repeated = all(again for again, _, _ in failures)
    said = reason_of(before.get("reason"))
    kept = said in _WHY_NOT_LOADED and (repeated if failures else available < nodes.nodes and not actions)
    if failures and not kept:
        reason, message = failures[0][2]
        more = f" (and on {len(failures) - 1} more nodes)" if len(failures) > 1 else ""
        state = replace(state, reason=reason, message=message + more, failed=True)
    elif said is not None and kept:
        state = replace(state, reason=said, message=before.get("message", ""), failed=True)
    elif available >= nodes.nodes and not actions:
        state = replace(state, reason=Reason.LOADED, message=f"loaded on {available} nodes", settled=True)
    else:
        state = replace(state, message=f"loaded on {available} of {nodes.nodes} nodes")
    return _KernelPlan(state=state, actions=actions)


def _available(owned: Sequence[DaemonSet]) -> int:
    return sum(each.available for each in owned if not each.deleting)


def _previous(view: View, kernel: str) -> Mapping[str, Any]:
    """Return what the status says of a kernel now."""
    return next((each for each in view.status.get("kernels") or () if each.get("kernelVersion") == kernel), {})


def _is_for(owned: DaemonSet, kernel: str, label: str) -> bool:
    """Whether a loader is for that kernel: by its own noted kernel, else (the Go operator's) by label.

    What is noted can be edited: it counts where it fits the label in the selector, which cannot.
    """
    noted, selected = owned.annotations.get(names.VERBATIM_KERNEL), owned.selector.get(names.KERNEL, "")
    if noted and names.is_label_of(selected, noted):
        return noted == kernel
    return selected == label


def _plan_device_plugin(subject: Subject, view: View, catalog: Catalog) -> tuple[list[Action], _Wrong]:
    owned = [each for each in view.daemon_sets if each.role == names.DEVICE_PLUGIN]
    asked = subject.spec.device_plugin if subject.spec else None
    if asked is None:
        return [_delete(each, "the Module has no device plugin") for each in owned if not each.deleting], None
    try:
        renderer = catalog.device_plugin(asked.renderer or view.operator.device_plugin)
        wanted = Wanted(
            role=names.DEVICE_PLUGIN,
            kernel="",
            name=names.daemon_set_name(subject.ref.name, subject.uid, names.DEVICE_PLUGIN, "", None),
            manifest=render_device_plugin(subject, renderer, view.operator),
            annotations={},
        )
        return list(bring(wanted, owned, subject, view)), None
    except NameTakenError as error:
        return [], (Reason.NAME_TAKEN, str(error))
    except SpecError as error:
        return [], (Reason.MAPPING_UNREADABLE, f"the device plugin: {error}")
    except PluginError as error:
        return [], (_of_plugin(error), f"the device plugin: {error}")  # what runs is kept


def _kept(view: View, now_s: float) -> dict[str, float]:
    """Return until when tasks of kernels that no node has now are kept, by uid.

    A node that comes and goes must not have what fails begun anew each time.
    """
    until = {task.uid: kept_until_s(task) for task in view.tasks if task.kernel not in view.targets}
    return {uid: until_s for uid, until_s in until.items() if until_s is not None and now_s < until_s}


def _collect(subject: Subject, view: View, states: Mapping[str, KernelState], kept: Collection[str]) -> list[Action]:
    """Delete loaders and tasks that nothing wants: their kernel is not targeted, or lost its mapping."""
    wanted = {kernel for kernel, state in states.items() if state.mapped}
    labels = names.kernel_label_values({*view.kernels, *wanted})
    found: list[Action] = [
        _delete(each, "no targeted node with a kernel mapping runs its kernel")
        for each in view.daemon_sets
        if each.role == names.LOADER
        and not each.deleting
        and not any(_is_for(each, kernel, labels[kernel]) for kernel in wanted)
    ]
    unwanted = (task for task in view.tasks if task.kernel not in wanted and task.uid not in kept)
    return [*found, *_ends(unwanted, subject, view)]


def _ends(tasks: Iterable[Task], subject: Subject, view: View) -> list[Delete]:
    """Return what ends tasks that nothing wants, but for those that stay all the same."""
    unwanted = [task for task in tasks if not is_kept(task, subject.ref, view.secrets)]
    return [end for task in unwanted for end in deletes(task, _UNWANTED)]


def _announce(view: View, states: Sequence[KernelState], made: Mapping[str, Any]) -> list[Announce]:
    """Return what has begun since the last status: what is in the way, by kernel, and that all is loaded."""
    before = {each.get("kernelVersion"): each.get("reason") for each in view.status.get("kernels") or ()}
    begun: dict[Reason, list[KernelState]] = {}
    for state in states[:KERNELS_MOST]:  # of the others it is not known what was told
        if state.reason in _TOLD and before.get(state.kernel) != state.reason:
            begun.setdefault(state.reason, []).append(state)
    told = [
        # One event for those that the same has befallen, however many they are.
        Announce(
            reason=reason,
            message=f"{kernels_named([each.kernel for each in those], _NAMED)}: {those[0].message}",
            warning=True,
            with_status=True,
        )
        for reason, those in begun.items()
    ]
    was, now = (_of_type(each, FIELDS_IGNORED) for each in (view.status, made))
    if now and was.get("message") != now["message"]:
        told.append(Announce(reason=Reason.FIELDS_IGNORED, message=now["message"], warning=True, with_status=True))
    was, now = (_of_type(each, "Ready") for each in (view.status, made))
    if now.get("reason") == Reason.READY and was.get("reason") != Reason.READY:
        told.append(Announce(reason=Reason.LOADED, message=now["message"], with_status=True))
    return told


def _of_type(status_: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    return next((each for each in status_.get("conditions") or () if each.get("type") == type_), {})


def _delete(owned: DaemonSet, reason: str) -> Delete:
    return Delete(kind=DAEMON_SET, name=owned.name, uid=owned.uid, reason=reason)
