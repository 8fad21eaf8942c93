"""The cluster as far as it is known: a store for each kind, and the views of it that plans are made from."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from kmm.admission import judge
from kmm.api.schema import at, items
from kmm.catalog import Catalog
from kmm.contract import Kind, ModuleRef, Progress, Renderer, State
from kmm.core import names
from kmm.core.images import BUILD
from kmm.core.loader_daemonset import DAEMON_SET
from kmm.core.placement import Node, by_kernel, is_targeted, targeted
from kmm.core.rendered import running
from kmm.core.view import (
    Answer,
    KernelNodes,
    Listed,
    Operator,
    Owned,
    Pod,
    Question,
    Subject,
    Task,
    TaskPod,
    Unknown,
    View,
)
from kmm.loader import OWN_DISTRIBUTIONS
from kmm.runtime.answers import Answers
from kmm.runtime.kinds import (
    MODULE,
    NAMESPACE,
    NODE,
    POD,
    OwnedObject,
    PodFacts,
    path_of,
    read_node,
    read_pod,
    trim_daemon_set,
    trim_module,
    trim_namespace,
    trim_node,
    trim_pod,
    trim_task,
)
from kmm.runtime.lease import boot_time_s
from kmm.runtime.references import Referred
from kmm.runtime.slots import Slots
from kmm.runtime.store import Item, Store
from kmm.runtime.watch import Source

_SAID = 4_096  # characters of what a task says: as much as the kubelet keeps of it
_WHY = 300  # of why a kind could not be listed


class Cluster:
    """What is known. `operator`: what the configuration says; `slots`: how many tasks may run at once.

    `openshift_builds`: tells whether the API server has OpenShift's builds.
    """

    def __init__(
        self,
        catalog: Catalog,
        operator: Operator,
        openshift_builds: Callable[[], bool | Unknown] = lambda: False,
        *,
        slots: int = 5,
    ) -> None:
        self.lock = threading.RLock()
        self.catalog, self.operator = catalog, operator
        self.slots = Slots(slots, self._under_way, self.lock)
        self._openshift_builds = openshift_builds
        self.nodes: Store[Node] = Store(self.lock, kernel=lambda item: item.value.kernel)
        self.modules: Store[Mapping[str, Any]] = Store(self.lock)
        self.namespaces: Store[Mapping[str, str]] = Store(self.lock)
        self.daemon_sets: Store[OwnedObject] = Store(self.lock, owner=lambda item: item.value.owner)
        self.pods: Store[PodFacts] = Store(
            self.lock,
            owner=lambda item: item.value.owner,
            node=lambda item: item.value.node,
            task_of=lambda item: _task_of(*self.module_of(item)) if _pushes(item) else "",
            alone=lambda item: pod_alone(item) if _pushes(item) else "",
        )
        makes: list[Renderer[Any]] = [*catalog.builders.values(), *catalog.signers.values()]
        self.tasks: dict[Kind, Store[OwnedObject]] = {
            kind: Store(
                self.lock,
                owner=lambda item: item.value.owner,
                home=lambda item: _task_of(*found) if (found := self.home(item)) else "",
                alone=lambda item: alone_of(item.value),
            )
            for kind in dict.fromkeys(kind for each in makes for kind in each.owns)
        }
        ours = names.MODULE_NAME
        self.followed: list[tuple[Source[Any], Store[Any]]] = [
            (Source(path=path_of(NODE), read=read_node, trim=trim_node), self.nodes),
            (Source(path=path_of(MODULE), trim=trim_module), self.modules),
            (Source(path=path_of(NAMESPACE), trim=trim_namespace, metadata_only=True), self.namespaces),
            (Source(path=path_of(DAEMON_SET), trim=trim_daemon_set, selector=ours), self.daemon_sets),
            (Source(path=path_of(POD), read=read_pod, trim=trim_pod, selector=ours), self.pods),
        ]
        for kind, store in self.tasks.items():
            tasks = Source(
                path=path_of(kind), trim=self.trim_task, selector=f"{ours},{names.JOB_TYPE}", optional=True
            )
            self.followed.append((tasks, store))
        self._answers = Answers()
        self._taken: dict[str, set[str]] = {}
        self._refused: dict[str, Mapping[str, str]] = {}
        self._subjects: dict[str, Subject] = {}
        self._targets: dict[str, tuple[int, Mapping[str, KernelNodes]]] = {}
        self._over_since: dict[str, float] = {}  # by the clock that nobody sets
        self._why: dict[str, str] = {}  # by the path of a kind of tasks that could not be listed
        for store in self.tasks.values():
            store.heard.append(self._task_gone)
        # What strangers' plugins offer, by name: they must not hold all workers.
        self._strangers: dict[str, str] = {}
        for plugin in catalog.plugins:
            offers: list[Renderer[Any]] = [*plugin.builders, *plugin.signers, *plugin.device_plugins]
            if plugin.distribution not in OWN_DISTRIBUTIONS:
                self._strangers |= {offer.name: plugin.distribution for offer in offers}
                self._strangers |= {driver.name: plugin.distribution for driver in plugin.drivers}

    def trim_task(self, body: Mapping[str, Any]) -> OwnedObject:
        """Return a task's object as it is kept."""
        return trim_task(body, self.operator.namespace)

    def module_of(self, pod: Item[PodFacts]) -> tuple[str, str]:
        """Return the namespace and name of the Module that a pod is of, by its labels."""
        return self._home(pod.namespace, _labels_of(pod)), pod.value.module

    def _home(self, namespace: str, labels: Mapping[str, str]) -> str:
        """Return the namespace of the Module that an object is of: in the operator's, what its label says."""
        noted = labels.get(names.MODULE_NAMESPACE, "") if namespace == self.operator.namespace else ""
        return noted or namespace

    def homes(self) -> Iterator[tuple[str, str]]:
        """Yield the Modules, there or not, of tasks that have no owner."""
        for store in self.tasks.values():
            for each in store.values("home") - {""}:
                namespace, _, name = each.partition("/")
                yield namespace, name

    def home(self, item: Item[OwnedObject]) -> tuple[str, str] | None:
        """Return which Module, there or not, a task without an owner is of.

        Labels alone do not make it ours: it has the uid of its Module where no owner can be, and no other owner.
        """
        meta = (item.value.manifest or {}).get("metadata", {})
        labels, uid = meta.get("labels") or {}, (meta.get("annotations") or {}).get(names.MODULE_UID)
        namespace = self._home(item.namespace, labels)
        if namespace == item.namespace or not uid or item.value.owner != uid:
            return None
        return namespace, labels.get(names.MODULE_NAME, "")

    def orphans(self, namespace: str, name: str) -> tuple[Task, ...]:
        """Return tasks that no garbage collector takes: of a Module that had this name and is gone."""
        with self.lock:
            module = self.modules.get(namespace, name)
            objects = [
                (kind, item)
                for kind, store in self.tasks.items()
                for item in store.by("home", _task_of(namespace, name))
                if not (module and module.uid == item.value.owner)
            ]
        return tuple(self._attempts_at(objects, lambda _: ""))

    def rivals(self, subject: Subject) -> tuple[Task, ...]:
        """Return the tasks of other Modules that read a Secret alone; what they said is not shown."""
        with self.lock:
            objects = [
                (kind, item)
                for kind, store in self.tasks.items()
                for each in store.values("alone") - {""}
                for item in store.by("alone", each)
                if item.value.owner != subject.uid
            ]
        return tuple(self._attempts_at(objects, lambda _: ""))

    def read_yet(self) -> frozenset[str]:
        """Return what stands for the Secrets that are read alone by pods that have not ended."""
        return self.pods.values("alone") - {""}

    def unsynced(self) -> list[str]:
        """Return the kinds whose watch has not listed once, and without which nothing can be planned."""
        return [source.plural for source, store in self.followed if not (source.optional or store.synced.is_set())]

    def unlisted(self) -> Mapping[Kind, str]:
        """Return the kinds of tasks of which it is not known yet which there are, and why.

        An API group of their own may be away while all others are there.
        """
        return {
            kind: self._why.get(path_of(kind), "it has not been read yet")
            for kind, store in self.tasks.items()
            if not store.synced.is_set()
        }

    def not_listed(self, source: Source[Any], error: Exception) -> bool:
        """Learn why a kind cannot be followed; return whether that is news. The first words stand while it lasts."""
        if not source.optional or source.path in self._why:
            return False
        if any(path_of(kind) == source.path for kind in self.unlisted()):
            self._why[source.path] = f"the API server did not say: {error}"[:_WHY]
        return source.path in self._why

    def known(self, namespace: str, name: str) -> Subject | None:
        """Return a Module as it was judged last, or None where that has not been done for what it is now."""
        item = self.modules.get(namespace, name)
        found = self._subjects.get(item.uid) if item else None
        return found if item and found and (found.generation, found.deleting) == _state_of(item) else None

    def subject(self, namespace: str, name: str) -> Subject | None:
        """Return a Module as plans see it, or None where it is gone.

        It is judged once a generation, which asks plugins: never under the lock.
        """
        item = self.modules.get(namespace, name)
        if item is None:
            return None
        known = self.known(namespace, name)
        if known is None or known.uid != item.uid:
            generation, deleting = _state_of(item)
            judgement = judge(item.value, self.catalog)
            driver = at(item.value, "spec", "driver")
            known = Subject(
                ref=ModuleRef(namespace=namespace, name=name),
                uid=item.uid,
                generation=generation,
                deleting=deleting,
                spec=judgement.value.spec if judgement.usable else None,
                errors=judgement.errors,
                driver=driver if isinstance(driver, str) else "",
            )
            with self.lock:
                if self.modules.by_uid(item.uid):  # else it has been forgotten meanwhile
                    self._subjects[item.uid] = known
        return known

    def provider(self, namespace: str, name: str) -> str:
        """Return the distribution, not ours, whose plugin works for a Module; empty where all are ours.

        By what the user wrote: it is asked before the Module is judged.
        """
        item = self.modules.get(namespace, name)
        if item is None or not self._strangers:
            return ""
        spec = item.value["spec"]
        container = at(spec, "moduleLoader", "container")
        parts = (container, *items(container, "kernelMappings"))
        kept = at(item.value["status"], "builder")
        builder = self.operator.builder or (kept if isinstance(kept, str) else None)
        asked = {
            at(spec, "driver"),
            at(spec, "devicePlugin", "renderer") or (at(spec, "devicePlugin") and self.operator.device_plugin),
            *(at(part, "build", "builder") or (at(part, "build") and builder) for part in parts),
            *(at(part, "sign", "signer") or (at(part, "sign") and self.operator.signer) for part in parts),
        }
        return next((found for each, found in self._strangers.items() if each in asked), "")

    def forget(self, uid: str) -> None:
        """Drop what was kept for a Module that is gone."""
        self._subjects.pop(uid, None)
        self._targets.pop(uid, None)
        self._taken.pop(uid, None)
        self._refused.pop(uid, None)
        self._answers.forget(uid)

    def targeting(self, *nodes: Node) -> Iterator[tuple[str, str]]:
        """Yield the Modules that target one of these nodes, or may."""
        for item in self.modules.items():
            subject = self.known(*item.key)
            if subject is None or (subject.spec and any(is_targeted(subject.spec, node) for node in nodes)):
                yield item.key

    def selected(self) -> frozenset[str]:
        """Return the labels of nodes that Modules select by."""
        found = [self.known(*item.key) for item in self.modules.items()]
        return frozenset(key for each in found if each and each.spec for key in each.spec.selector)

    def view(
        self,
        subject: Subject,
        referred: Referred,
        mask: Callable[[str], str] = str,
        base_images: Mapping[str, Listed | Unknown] = MappingProxyType({}),
        using: frozenset[str] = frozenset(),
    ) -> View:
        """Return the view that a Module is planned from. `mask`: hides what a task must not have said.

        `using`: what stands for Secrets that others start tasks with, to be alone.
        """
        with self.lock:
            module = self.modules.get(subject.ref.namespace, subject.ref.name)
            namespace = self.namespaces.get("", subject.ref.namespace)
            owned = [item for item in self.daemon_sets.by("owner", subject.uid) if item.value.daemon_set]
            # Of the others their DaemonSet's status says enough.
            pods = [
                self._pod(pod, daemon_set, subject.uid)
                for daemon_set in owned
                for pod in self.pods.by("owner", daemon_set.uid)
                if pod.value.waiting_reason
            ]
            task_pods = [
                _task_pod(item) for item in self.pods.by("task_of", _task_of(subject.ref.namespace, subject.ref.name))
            ]
            kernels = self.kernels()
            targets = self._targets_of(subject)
        tasks = tuple(self._tasks(subject, mask))  # asks plugins: not under the lock
        answers, stale = self._answers.of(subject.uid)
        return View(
            targets=targets,
            kernels=kernels,
            daemon_sets=tuple(item.value.daemon_set for item in owned if item.value.daemon_set),
            tasks=tasks,
            rivals=self.rivals(subject) if referred.alone else (),
            using=using | self.read_yet(),
            pods=tuple(pods),
            task_pods=tuple(task_pods),
            answers=answers,
            stale=stale,
            access=referred.access,
            pull_secrets=referred.pull_secrets,
            dockerfiles=referred.dockerfiles,
            secrets=referred.secrets,
            taken=frozenset(self._taken.get(subject.uid, ())),
            refused=self._refused.get(subject.uid, {}),
            build_slots=self.slots.left(subject),
            namespace_labels=namespace.value if namespace else {},
            status=module.value["status"] if module else {},
            operator=self.operator,
            openshift_builds=self._openshift_builds(),
            base_images=base_images,
            synced=not self.unsynced(),
            unlisted=self.unlisted(),
        )

    def moved(self) -> None:
        """Learn that nodes have changed in what decides where drivers run."""
        with self.lock:
            self._targets.clear()

    def _targets_of(self, subject: Subject) -> Mapping[str, KernelNodes]:
        """Return the targeted nodes of a Module by kernel: looked for once, until nodes or the Module change."""
        if subject.spec is None:
            return {}
        generation, found = self._targets.get(subject.uid, (None, {}))
        if generation != subject.generation:
            nodes = targeted(subject.spec, [item.value for item in self.nodes.items()])
            found = by_kernel({kernel: each for kernel, each in nodes.items() if kernel})
            if self.modules.by_uid(subject.uid):  # else it has been forgotten meanwhile
                self._targets[subject.uid] = (subject.generation, found)
        return found

    def _under_way(self) -> Counter[str]:
        """Return how many tasks run, by the uid of their Module: those that nothing says the end of."""
        found: Counter[str] = Counter()
        with self.lock:
            attempts: dict[tuple[str, ...], list[Item[OwnedObject]]] = {}
            for store in self.tasks.values():
                for item in store.items():
                    if key := _attempt_of(item):
                        attempts.setdefault((item.value.owner, *key), []).append(item)
            for (owner, *_), objects in attempts.items():
                run = running([item.value.manifest or {} for item in objects])
                found[owner] += sum(not self._has_ended(item) for item in objects if item.value.manifest in run)
        return found

    def _has_ended(self, item: Item[OwnedObject]) -> bool:
        """Whether something says that an object of a task has ended."""
        pods = [pod.value.manifest or {} for pod in self.pods.by("owner", item.uid)]
        return _finished_at_s([item.value.manifest or {}], pods) is not None

    def on_node(self, name: str) -> tuple[Node, list[Pod], dict[ModuleRef, str], frozenset[str]] | None:
        """Return a node, our pods on it, every Module's uid, and every kernel; None where the node is gone."""
        with self.lock:
            item = self.nodes.get("", name)
            if item is None:
                return None
            # Where its DaemonSet has gone before it, it may still have to be released.
            pods = [
                self.pod_of(pod)
                for pod in self.pods.by("node", name)
                if self.daemon_sets.by_uid(pod.value.owner) or (pod.value.held and pod.value.deleting)
            ]
            modules = {ModuleRef(namespace=each.namespace, name=each.name): each.uid for each in self.modules.items()}
            return item.value, pods, modules, self.kernels()

    def module(self, uid: str) -> tuple[str, str] | None:
        """Return the namespace and name of a Module by its uid."""
        item = self.modules.by_uid(uid)
        return item.key if item else None

    def owner(self, uid: str) -> tuple[str, str] | None:
        """Return the Module that owns the DaemonSet or task of a uid."""
        for store in (self.daemon_sets, *self.tasks.values()):
            if found := store.by_uid(uid):
                return self.module(found.value.owner)
        return None

    def kernels(self) -> frozenset[str]:
        """Return the kernels of all nodes."""
        return self.nodes.values("kernel")

    def take(self, uid: str, name: str) -> None:
        """Learn that a stranger's object has the name that one of a Module's would have."""
        with self.lock:
            self._taken.setdefault(uid, set()).add(name)

    def refuse(self, uid: str, refused: Mapping[str, str]) -> bool:
        """Learn what the API server would not have of a Module's, and why; return whether it is other than before."""
        with self.lock:
            before = self._refused.pop(uid, {})
            if refused and self.modules.by_uid(uid):  # else it has been forgotten meanwhile
                self._refused[uid] = refused
            return refused.keys() != before.keys()

    def retry_names(self, uid: str) -> None:
        """Forget which names were taken: a stranger's object may have gone."""
        with self.lock:
            self._taken.pop(uid, None)

    def learn(self, subject: Subject, question: Question, answer: Answer, fresh_s: float) -> None:
        """Learn what a registry said to a Module. `fresh_s`: how long something may be started from it."""
        with self.lock:
            if self.modules.by_uid(subject.uid):  # else it has been forgotten meanwhile
                self._answers.learn(subject.uid, question, answer, fresh_s)

    def pod_of(self, pod: Item[PodFacts]) -> Pod:
        """Return a pod as plans see it; of a kernel and a Module where its DaemonSet is still there."""
        daemon_set = self.daemon_sets.by_uid(pod.value.owner)
        return self._pod(pod, daemon_set, daemon_set.value.owner if daemon_set else "")

    @staticmethod
    def _pod(pod: Item[PodFacts], daemon_set: Item[OwnedObject] | None, module_uid: str) -> Pod:
        facts, owner = pod.value, daemon_set.value.daemon_set if daemon_set else None
        return Pod(
            name=pod.name,
            uid=pod.uid,
            module=ModuleRef(namespace=pod.namespace, name=facts.module),
            module_uid=module_uid,
            role=facts.role,
            node=facts.node,
            kernel=owner.kernel if owner else "",
            ready=facts.ready,
            deleting=facts.deleting,
            held=facts.held,
            waiting_reason=facts.waiting_reason,
            waiting_message=facts.waiting_message,
            termination_message=facts.termination_message,
        )

    def _tasks(self, subject: Subject, mask: Callable[[str], str]) -> Iterator[Task]:
        """Yield the attempts at builds and signatures of a Module, each with all its objects and pods observed."""
        every = [(kind, item) for kind, store in self.tasks.items() for item in store.by("owner", subject.uid)]
        return self._attempts_at(every, mask)

    def _attempts_at(
        self, objects: Iterable[tuple[Kind, Item[OwnedObject]]], mask: Callable[[str], str]
    ) -> Iterator[Task]:
        attempts: dict[tuple[str, ...], list[tuple[Kind, Item[OwnedObject]]]] = {}
        for kind, item in objects:
            if key := _attempt_of(item):
                attempts.setdefault((*key, item.value.owner), []).append((kind, item))
        for (job_type, *_), made in attempts.items():
            # The first that was rendered has the attempt's name, the others have a number behind it.
            yield self._task(job_type, sorted(made, key=lambda each: (len(each[1].name), each[1].name)), mask)

    def _task(self, job_type: str, objects: list[tuple[Kind, Item[OwnedObject]]], mask: Callable[[str], str]) -> Task:
        (kind, first), *others = objects
        manifests = [item.value.manifest or {} for _, item in objects]
        pods = [pod.value.manifest or {} for _, item in objects for pod in self.pods.by("owner", item.uid)]
        progress = self._observed(kind, job_type, manifests, pods)
        over = progress.state in (State.SUCCEEDED, State.FAILED)
        return Task(
            **_identity(kind, first),
            job_type=job_type,
            # Masked whole, then cut: a part of a value would not be found.
            progress=replace(progress, reason=mask(progress.reason)[:_SAID], message=mask(progress.message)[:_SAID]),
            finished_at_s=self._finished_at_s(first.uid, manifests, pods) if over else None,
            beside=tuple(Owned(**_identity(*each)) for each in others),
        )

    def _finished_at_s(self, uid: str, manifests: list[Any], pods: list[Any]) -> float | None:
        """Return when a task ended; at the latest when that was first seen, however wrong our clock is."""
        said_s = _finished_at_s(manifests, pods)
        if said_s is None:
            return None
        with self.lock:
            seen_s = self._over_since.setdefault(uid, boot_time_s())
        return min(said_s, time.time() - (boot_time_s() - seen_s))

    def _task_gone(self, before: Item[OwnedObject] | None, after: Item[OwnedObject] | None) -> None:
        if before and not (after and after.uid == before.uid):
            self._over_since.pop(before.uid, None)

    def _observed(self, kind: Kind, job_type: str, manifests: list[Any], pods: list[Any]) -> Progress:
        """Return what the renderer that made a task reads from it: others may make the same kinds."""
        offers: Mapping[str, Renderer[Any]] = self.catalog.builders if job_type == BUILD else self.catalog.signers
        made_by = ((manifests[0].get("metadata") or {}).get("annotations") or {}).get(names.PROVIDER, "")
        able = [each for name, each in offers.items() if kind in each.owns and made_by in ("", name)]
        if len(able) != 1:
            gone = f'"{made_by[:80]}", which made it, is not installed any more'
            return Progress(state=State.RUNNING, message=gone if made_by else "nobody knows what made it")
        try:
            return able[0].observe(manifests, pods)
        except Exception as error:  # a plugin may raise anything, and must not stop the others
            return Progress(state=State.RUNNING, message=f"{able[0].name} cannot read it: {type(error).__name__}")


def _identity(kind: Kind, item: Item[OwnedObject]) -> dict[str, Any]:
    meta = (item.value.manifest or {}).get("metadata", {})
    return {
        "kind": kind,
        "name": item.name,
        "uid": item.uid,
        "namespace": item.namespace,
        "generation": meta.get("generation", 1),
        "created": meta.get("creationTimestamp") or "",
        "deleting": "deletionTimestamp" in meta,
        "labels": meta.get("labels") or {},
        "annotations": meta.get("annotations") or {},
    }


def alone_of(task: OwnedObject) -> str:
    """Return what stands for the Secret that a task reads alone; empty where it reads none so."""
    meta = (task.manifest or {}).get("metadata", {})
    return str((meta.get("annotations") or {}).get(names.ALONE, ""))


def pod_alone(pod: Item[PodFacts]) -> str:
    """Return what stands for the Secret that a pod reads alone; empty where it reads none so."""
    return str(_labels_of(pod).get(names.ALONE, ""))


def _task_of(namespace: str, module: str) -> str:
    return f"{namespace}/{module}"


def _labels_of(pod: Item[PodFacts]) -> Mapping[str, str]:
    return (pod.value.manifest or {}).get("metadata", {}).get("labels") or {}


def _pushes(pod: Item[PodFacts]) -> bool:
    """Whether a pod is of a build or signature, and may still push."""
    phase = ((pod.value.manifest or {}).get("status") or {}).get("phase")
    return bool(_labels_of(pod).get(names.JOB_TYPE)) and phase not in ("Succeeded", "Failed")


def _task_pod(pod: Item[PodFacts]) -> TaskPod:
    labels = _labels_of(pod)
    return TaskPod(
        name=pod.name,
        node=pod.value.node,
        job_type=labels.get(names.JOB_TYPE, ""),
        label=labels.get(names.TARGET_KERNEL, ""),
    )


def _attempt_of(item: Item[OwnedObject]) -> tuple[str, str, str] | None:
    """Return of which attempt an object is: at a build or signature, for a kernel, the number."""
    meta = (item.value.manifest or {}).get("metadata", {})
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    if not labels.get(names.JOB_TYPE):
        return None
    return labels[names.JOB_TYPE], annotations.get(names.VERBATIM_KERNEL, ""), annotations.get(names.ATTEMPT, "")


def _state_of(module: Item[Mapping[str, Any]]) -> tuple[int, bool]:
    meta = module.value["metadata"]
    return meta.get("generation", 1), "deletionTimestamp" in meta


def _finished_at_s(manifests: list[Any], pods: list[Any]) -> float | None:
    """Return when a task ended, by the last word of its objects or its containers."""
    found: list[str] = []
    for manifest in manifests:
        status = manifest.get("status") or {}
        found += [status[key] for key in ("completionTime", "completionTimestamp") if status.get(key)]
        found += [
            each["lastTransitionTime"]
            for each in status.get("conditions") or ()
            if each.get("lastTransitionTime")
            and each.get("status") == "True"
            and each.get("type") in ("Complete", "Failed", "Error", "Cancelled")
        ]
    for pod in pods:
        for each in (pod.get("status") or {}).get("containerStatuses") or ():
            ended = (each.get("state") or {}).get("terminated") or {}
            found += [ended["finishedAt"]] if ended.get("finishedAt") else []
    try:
        return max((datetime.fromisoformat(each).timestamp() for each in found), default=None)
    except (TypeError, ValueError):
        return None
