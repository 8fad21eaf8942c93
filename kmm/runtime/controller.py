"""Keys in, plans carried out: the workers. Controllers keep the names that logs and dashboards know."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import Any, TypeAlias

from kmm.api.metadata import PREFIX
from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.actions import Action, Announce, Create, LabelNode, Plan, Probe, Replace, SetStatus
from kmm.core.images import deletes
from kmm.core.node import plan_node
from kmm.core.place import is_kept, secret_key
from kmm.core.placement import Node
from kmm.core.spoke import plan_module
from kmm.core.view import Answer, Present, Question, SecretFacts, Subject, Task, View
from kmm.errors import KmmError
from kmm.runtime.base_images import BaseImageLists
from kmm.runtime.carry_out import Hands
from kmm.runtime.cluster import Cluster, alone_of, pod_alone
from kmm.runtime.kinds import OwnedObject, PodFacts
from kmm.runtime.lease import NotLeader
from kmm.runtime.masking import Masks
from kmm.runtime.metrics import Metrics
from kmm.runtime.observers import Observers
from kmm.runtime.queue import Queue
from kmm.runtime.references import References, Referred
from kmm.runtime.store import Item
from kmm.runtime.transport import AlreadyExists, ApiError, Conflict
from kmm.runtime.turns import Turns
from kmm.runtime.unloads import Unloads
from kmm.runtime.written import Written, written

Key: TypeAlias = tuple[str, str, str]  # controller, namespace, name
FOR_MODULES, FOR_NODES, FOR_PODS = "Module", "NodeKernel", "PodNodeModule"
FOR_BASE_IMAGES = "imagestream"
_NODES, _MODULES = 0, 1  # nodes are served first: what they say decides where drivers run
_UNSYNCED_S = 0.1
_MODULE_GONE = "its Module is gone"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many work, and how often the same is written: one node's labels, one Module's status; names looked at.

    `asking_s`: how long the first status of a Module waits for what registries are about to answer. `listing_s`: how
    long all wait at first for kinds of tasks that the API server does not tell of; from then on, who needs them.
    `kept_s`: how often Secrets that nothing refers to any more are read, while tasks are kept because of them.
    """

    workers: int = 8
    node_every_s: float = 2.0
    status_every_s: float = 1.0
    asking_s: float = 0.5
    taken_s: float = 30.0
    listing_s: float = 5.0
    kept_s: float = 300.0


class Controller:
    """Follows the stores, and lets workers bring each key where it is to be."""

    def __init__(
        self,
        cluster: Cluster,
        hands: Hands,
        references: References,
        base_images: BaseImageLists,
        unloads: Unloads,
        masks: Masks,
        secret: Callable[[str, str], SecretFacts | None],
        observers: Observers,
        metrics: Metrics,
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace or Pace()
        workers = self._pace.workers
        self.queue: Queue[Key] = Queue(group_of=self._provider, most=max(1, workers // 2))
        self._labels: Mapping[str, str] = {}
        self._cluster, self._hands, self._references = cluster, hands, references
        self._base_images, self._unloads = base_images, unloads
        self._masks, self._secret, self._observers, self._metrics = masks, secret, observers, metrics
        self._written: dict[Key, Written] = {}
        self._turns: Turns[Key] = Turns()
        # Each is told the uid of a Module that is gone.
        self.forgetters: list[Callable[[str], None]] = [cluster.forget, references.forget]
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(workers)
        ]
        cluster.nodes.heard.append(self._heard_of_node)
        cluster.modules.heard.append(self._heard_of_module)
        cluster.namespaces.heard.append(self._heard_of_namespace)
        cluster.daemon_sets.heard.append(self._heard_of_owned)
        cluster.pods.heard.append(self._heard_of_pod)
        for store in cluster.tasks.values():
            store.heard.append(self._heard_of_owned)
            store.heard.append(self._heard_of_task)
            store.on_sync.append(self.reconsider)

    def watched(self) -> dict[str, list[str]]:
        """Return the kinds that each controller watches."""
        every = [source.plural for source, _ in self._cluster.followed]
        return {
            FOR_MODULES: every,
            FOR_NODES: ["nodes", "modules", "pods"],
            FOR_PODS: ["pods"],
            # Once a Dockerfile asks for it.
            **({FOR_BASE_IMAGES: lists} if (lists := self._base_images.plurals()) else {}),
        }

    def start(self) -> None:
        """Begin with all there is."""
        for item in self._cluster.nodes.items():
            self._add(FOR_NODES, "", item.name)
        for module in self._cluster.modules.items():
            self._add(FOR_MODULES, *module.key)
        for gone in self._cluster.homes():
            self._add(FOR_MODULES, *gone)
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Take no more keys, and wait for what is under way."""
        self.queue.close()
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def changed_in(self, namespace: str) -> None:
        """Look again at the Modules of a namespace: something that they refer to has changed."""
        followers = self._references.followers(namespace)
        for item in self._cluster.modules.items():
            if item.namespace == namespace or item.uid in followers:
                self._add(FOR_MODULES, *item.key)
        if namespace == self._cluster.operator.namespace:
            for home in self._cluster.homes():  # what Modules that are gone have left may be kept because of it
                self._add(FOR_MODULES, *home)

    def reconsider(self) -> None:
        """Look again at every Module: what is known of the whole cluster has changed."""
        for item in self._cluster.modules.items():
            self._add(FOR_MODULES, *item.key)

    def answered(self, question: Question, answer: Answer, subject: Subject, fresh_s: float) -> None:
        """Learn what a registry said, and look again at the Module that asked."""
        if question.files and isinstance(answer, Present):
            self._base_images.learn(question, answer)
            answer = replace(answer, files={})  # it is known now, for all Modules
        self._cluster.learn(subject, question, answer, fresh_s)
        self._add(FOR_MODULES, subject.ref.namespace, subject.ref.name)

    def _provider(self, key: Key) -> str:
        """Return whose plugin a Module works with, where it is somebody else's."""
        return self._cluster.provider(key[1], key[2]) if key[0] == FOR_MODULES else ""

    # ── What wakes whom ───────────────────────────────────────────────────────────────────────────────────────

    def _add(self, controller: str, namespace: str, name: str) -> None:
        self.queue.add((controller, namespace, name), _NODES if controller == FOR_NODES else _MODULES)

    def _add_rested(self, node: str) -> None:
        """Look again at a node to which something may have been added: that waits until it may be written."""
        key = (FOR_NODES, "", node)
        self.queue.add_after(key, self._left_s(key), _NODES)

    def _heard_of_node(self, before: Item[Node] | None, after: Item[Node] | None) -> None:
        known = [each.value for each in (before, after) if each]
        selected = self._cluster.selected()
        old, new = (None if each is None else _placed(each.value, selected) for each in (before, after))
        if old == new:
            self._add_rested(known[0].name)
            return
        self._add(FOR_NODES, "", known[0].name)
        self._cluster.moved()
        for key in self._cluster.targeting(*known):
            self._add(FOR_MODULES, *key)
        # The label of a kernel depends on which others there are.
        labels = names.kernel_label_values(self._cluster.kernels())
        for kernel in labels.keys() & self._labels.keys():
            if labels[kernel] != self._labels[kernel]:
                for other in self._cluster.nodes.by("kernel", kernel):
                    self._add(FOR_NODES, "", other.name)
        self._labels = labels

    def _heard_of_module(self, before: Item[Any] | None, after: Item[Any] | None) -> None:
        for each in (before, after):
            if each is not None:
                self._add(FOR_MODULES, *each.key)
        if (before and before.uid) != (after and after.uid):
            if before:
                for forget in self.forgetters:
                    forget(before.uid)
            # Labels that name a Module go with it.
            for each in (before, after):
                said = _labels_of(*each.key) if each else set[str]()
                for node in self._cluster.nodes.items():
                    if any(label in node.value.labels for label in said):
                        self._add(FOR_NODES, "", node.name)

    def _heard_of_namespace(self, before: Item[Any] | None, after: Item[Any] | None) -> None:
        for each in (before, after):
            if each is not None:
                self.changed_in(each.name)

    def _heard_of_owned(self, before: Item[OwnedObject] | None, after: Item[OwnedObject] | None) -> None:
        for each in (before, after):
            module = self._cluster.module(each.value.owner) if each else None
            if module and before and after and _counts_differ(before.value, after.value):
                # That is only for the status, which need not be planned before it may be written.
                key = (FOR_MODULES, *module)
                self.queue.add_after(key, self._left_s(key), _MODULES)
            elif module:
                self._add(FOR_MODULES, *module)
        for each in (after,) if before is None and after else ():
            for pod in self._cluster.pods.by("owner", each.uid):  # heard of before it
                if pod.value.node:
                    self._add_rested(pod.value.node)

    def _heard_of_task(self, before: Item[OwnedObject] | None, after: Item[OwnedObject] | None) -> None:
        self._call()  # it may have made room
        if any(each and alone_of(each.value) for each in (before, after)):
            self._call_next()
        if after and (home := self._cluster.home(after)) and not self._cluster.module(after.value.owner):
            self._add(FOR_MODULES, *home)  # it has been made for a Module that is gone

    def _call_next(self) -> None:
        """Look again at the Modules that wait until a task may be alone with a Secret."""
        for key in self._turns.called():
            self._add(*key)

    def _heard_of_pod(self, before: Item[PodFacts] | None, after: Item[PodFacts] | None) -> None:
        lost = before is not None and _counts(before.value) and not (after and _counts(after.value))
        if before and pod_alone(before):
            self._call_next()
        for each in (before, after):
            if each is None:
                continue
            if each.value.node and each.value.role:
                if lost or (each.value.held and each.value.deleting):
                    self._add(FOR_NODES, "", each.value.node)
                else:
                    self._add_rested(each.value.node)
            owner = self._cluster.owner(each.value.owner)
            if not owner and not each.value.role and each.value.module:
                # Its task is gone, and another may wait until it has ended.
                self._add(FOR_MODULES, *self._cluster.module_of(each))
            # What a ready pod changes for its Module is told by its DaemonSet's status.
            if owner and (not each.value.role or each.value.waiting_reason):
                self._add(FOR_MODULES, *owner)

    # ── What is done ──────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        # What is not seen yet may be there: nothing is planned before all has been listed.
        while self._cluster.unsynced() and not self.queue.closed.wait(_UNSYNCED_S):
            pass
        until = time.monotonic() + self._pace.listing_s
        while self._cluster.unlisted() and time.monotonic() < until and not self.queue.closed.wait(_UNSYNCED_S):
            pass
        while (key := self.queue.take()) is not None:
            lane = _NODES if key[0] == FOR_NODES else _MODULES
            try:
                with self._metrics.reconcile(key[0]):
                    self._reconcile(key)
                self.queue.succeeded(key)
            except NotLeader:
                self.queue.back_off(key, lane, least_s=1)  # it may be back in time; else the queue is closed
            except Conflict as error:
                _LOG.debug("%s %s/%s: again: %s", *key, error)
                self.queue.back_off(key, lane)
            except KmmError as error:
                delay_s = self.queue.back_off(key, lane, least_s=getattr(error, "retry_after_s", None) or 0)
                _LOG.warning("%s %s/%s: %s; again in %.1f s", *key, error, delay_s)
            except Exception:  # one bad key must not end the others
                self.queue.back_off(key, lane, least_s=1)
                _LOG.exception("%s %s/%s", *key)
            finally:
                self.queue.done(key, lane)

    def _reconcile(self, key: Key) -> None:
        controller, namespace, name = key
        if controller == FOR_NODES:
            self._reconcile_node(key, name)
        else:
            self._reconcile_module(key, ModuleRef(namespace=namespace, name=name))

    def _reconcile_node(self, key: Key, name: str) -> None:
        found = self._cluster.on_node(name)
        if found is None:
            self._written.pop(key, None)
            return
        plan = plan_node(*found)
        if plan.actions and self._too_soon(key, _NODES):
            plan = Plan(actions=tuple(urgent for each in plan.actions if (urgent := _urgent(each))))
        self._carry_out(key, plan, None, 0)

    def _reconcile_module(self, key: Key, module: ModuleRef) -> None:
        waits = False
        try:
            waits = self._bring_on(key, module)
        finally:
            # Whoever cannot be brought on holds no slot back.
            if not waits and self._cluster.slots.leave(module):
                self._call()

    def _bring_on(self, key: Key, module: ModuleRef) -> bool:
        """Do what there is to do for a Module; return whether it waits for a slot."""
        self._collect(key, module)
        subject = self._cluster.subject(module.namespace, module.name)
        if subject is None:
            self._written.pop(key, None)
            self._turns.leave(key)
            return False
        self._unloads.follow(module.namespace)
        if not self._references.follow(subject):
            self.queue.add_after(key, _UNSYNCED_S, _MODULES)
            return False
        referred = self._references.read(subject)
        item = self._cluster.modules.get(*key[1:])
        seen = item.version if item else 0
        self._base_images.follow(text for _, text in referred.dockerfiles.values())
        mask = partial(self._mask, module.namespace, referred)
        if referred.alone:
            self._turns.wait(key)
        using = self._turns.taken(subject.uid)
        view = self._cluster.view(subject, referred, mask, self._base_images.known(), using)
        view = replace(view, secrets=self._with_alone(key, view.tasks, module, view.secrets))
        now_s = time.time()
        plan = plan_module(subject, view, self._cluster.catalog, now_s)
        while plan.starts and not self._reserve(subject, plan, view):
            view = replace(view, build_slots=self._cluster.slots.left(subject))
            if plan.alone:
                using = self._turns.taken(subject.uid) | self._cluster.read_yet()
                view = replace(view, using=using, rivals=self._cluster.rivals(subject))
            plan = plan_module(subject, view, self._cluster.catalog, now_s)
        if not plan.awaits:
            self._turns.leave(key)
        if view.taken:
            self._cluster.retry_names(subject.uid)
            self.queue.add_after(key, self._pace.taken_s, _MODULES)
        writes = any(isinstance(action, SetStatus) for action in plan.actions)
        if key not in self._written and any(isinstance(action, Probe) for action in plan.actions):
            self._written[key] = Written(at_s=time.monotonic(), rest_s=self._pace.asking_s)
        if writes and self._too_soon(key, _MODULES):
            plan = replace(plan, actions=tuple(each for each in plan.actions if not _of_status(each)))
        try:
            self._carry_out(key, plan, subject, seen)
        finally:
            if plan.starts:
                self._cluster.slots.release(subject)
                self._call()
            if plan.alone:
                self._turns.release(subject.uid)
                self._call_next()
        if plan.wake_at_s is not None:
            self.queue.add_after(key, max(0.05, plan.wake_at_s - now_s), _MODULES)
        had = max(0, view.build_slots - plan.starts)
        if plan.queued and (again_s := self._cluster.slots.wait(subject, had)) is not None:
            self.queue.add_after(key, again_s, _MODULES)
        return plan.queued

    def _call(self) -> None:
        """Look again at the Modules that wait for a slot, where one is free."""
        for module in self._cluster.slots.called():
            self._add(FOR_MODULES, module.namespace, module.name)

    def _reserve(self, subject: Subject, plan: Plan, view: View) -> bool:
        """Take the slots and turns that a plan needs; False where others have taken some meanwhile."""
        if plan.alone:
            if not self._turns.take(subject.uid, plan.alone):
                return False
            # Whoever had the turn before may have started a task that the plan did not see.
            rivals = self._cluster.rivals(subject)
            if plan.alone & self._cluster.read_yet() or any(
                each.alone in plan.alone and each.keeps_others_out for each in rivals
            ):
                self._turns.release(subject.uid)
                return False
        if self._cluster.slots.reserve(subject, plan.starts, view.build_slots):
            return True
        if plan.alone:
            self._turns.release(subject.uid)
        return False

    def _mask(self, namespace: str, referred: Referred, text: str) -> str:
        """Return what a task said without what the Module's Secrets hold.

        Those of the operator's namespace are not looked for: what becomes of a user's text must not tell what they
        hold. Who reads them there says nothing of them.
        """
        return self._masks.mask(namespace, referred.hidden, referred.pull_secrets, text)

    def _with_alone(
        self, key: Key, tasks: Iterable[Task], module: ModuleRef, secrets: Mapping[str, SecretFacts]
    ) -> Mapping[str, SecretFacts]:
        """Return Secrets with those that tasks read alone or were refused, whoever refers to them.

        Raises:
            ApiError, Unreachable: one of them cannot be read.
        """
        found = dict(secrets)
        for task in tasks:
            name = secret_key(task.namespace, task.alone_with, module)
            if not (task.alone and task.alone_with and task.keeps_others_out) or name in found:
                continue
            self.queue.add_after(key, self._pace.kept_s, _MODULES)  # nobody tells of it
            if (facts := self._secret(task.namespace, task.alone_with)) is not None:
                found[name] = facts
        return found

    def _collect(self, key: Key, module: ModuleRef) -> None:
        """Delete what a Module of this name that is gone has left in the operator's namespace.

        What cannot be deleted stays, and stops nothing else.
        """
        for task in self._cluster.orphans(module.namespace, module.name):
            try:
                if not is_kept(task, module, self._with_alone(key, [task], module, {})):
                    for delete in deletes(task, _MODULE_GONE):
                        began = time.monotonic()
                        self._hands.collect(delete)
                        self._observers.tell(delete, None, time.monotonic() - began)
                        _log(delete, key)
            except NotLeader:
                raise
            except KmmError as error:
                self.queue.add_after(key, self._pace.taken_s, _MODULES)
                _LOG.warning("%s/%s, whose Module is gone, is not deleted: %s", task.namespace, task.name, error)

    def _too_soon(self, key: Key, lane: int) -> bool:
        """Whether a key was written a moment ago; then it comes again when it may be."""
        if (left_s := self._left_s(key)) > 0:
            self.queue.add_after(key, left_s, lane)
            return True
        return False

    def _left_s(self, key: Key) -> float:
        """Return for how long a key is not to be written again."""
        last = self._written.get(key)
        return last.left_s(time.monotonic()) if last else 0.0

    def _write(self, key: Key) -> None:
        """Note that a key has been written."""
        every_s = self._pace.node_every_s if key[0] == FOR_NODES else self._pace.status_every_s
        self._written[key] = written(self._written.get(key), time.monotonic(), every_s)

    def _carry_out(self, key: Key, plan: Plan, subject: Subject | None, seen: int) -> None:
        """Do all that can be done: what fails for one kernel must not stop the others.

        `seen`: the version of the Module that was planned from.
        """
        done = _Done()
        for action in plan.actions:
            if not _of_status(action):
                self._try(action, key, subject, seen, done)
        # A status that was planned from other refusals would tell what is not so: it is planned again.
        outdated = subject is not None and self._cluster.refuse(subject.uid, done.refused)
        # The status first: it is what remembers that something was told.
        for action in sorted(plan.actions, key=lambda each: isinstance(each, Announce)):
            if _of_status(action) and not outdated:
                self._try(action, key, subject, seen, done)
        if done.failed is not None:
            raise done.failed
        if outdated:
            self._add(*key)

    def _try(self, action: Action, key: Key, subject: Subject | None, seen: int, done: _Done) -> None:
        """Do one thing, unless it would tell what is not so; note what becomes of it."""
        if isinstance(action, SetStatus | Announce) and not done.is_true(action):
            return
        began = time.monotonic()
        try:
            with self._metrics.action(type(action).__name__):
                self._hands.carry_out(action, subject, seen)
        except NotLeader:
            raise
        except KmmError as error:
            done.note(action, error)
            if subject is not None and _is_refusal(error):
                said = self._hands.refused(subject, action, error)
                if isinstance(action, Create | Replace):
                    done.refused[action.name] = said
            elif _is_away(error) and isinstance(action, Create | Replace):
                # No event: it may be over in a moment, and is not in the status before it has happened twice.
                done.refused[action.name] = f"the API server does not do what is wanted ({action.name}): {error}"
        else:
            if isinstance(action, SetStatus | LabelNode):
                self._write(key)
            _log(action, key)
            self._observers.tell(action, subject, time.monotonic() - began)


@dataclass(slots=True)
class _Done:
    """What became of a plan: the failure that counts, what was not done, and what was refused and why, by name."""

    failed: KmmError | None = None
    undone: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def note(self, action: Action, error: KmmError) -> None:
        """Learn that something was not done. That somebody was first counts least."""
        self.undone.add(getattr(action, "name", ""))
        if isinstance(error, AlreadyExists):
            self.failed = Conflict(error.code, error.reason, str(error))
        elif self.failed is None or isinstance(self.failed, Conflict):
            self.failed = error

    def is_true(self, action: SetStatus | Announce) -> bool:
        """Whether what is to be told is so after all that was not done."""
        if isinstance(action, Announce) and action.made:
            return self.undone.isdisjoint(action.made)
        return self.failed is None or _is_refusal(self.failed) or _is_away(self.failed)


def _is_refusal(error: KmmError) -> bool:
    """Whether the API server will not have it, however often it is asked: a person has to know."""
    return (
        isinstance(error, ApiError)
        and not isinstance(error, Conflict | AlreadyExists)
        and HTTPStatus.BAD_REQUEST <= error.code < HTTPStatus.INTERNAL_SERVER_ERROR
        and error.code != HTTPStatus.TOO_MANY_REQUESTS
    )


def _is_away(error: KmmError) -> bool:
    """Whether who serves that kind is away, which need not be so of the others."""
    return isinstance(error, ApiError) and error.code == HTTPStatus.SERVICE_UNAVAILABLE


def _of_status(action: Action) -> bool:
    return isinstance(action, SetStatus) or (isinstance(action, Announce) and action.with_status)


def _labels_of(namespace: str, name: str) -> set[str]:
    return {
        names.ready_label(namespace, name),
        names.device_plugin_ready_label(namespace, name),
        *(names.older_labels(name) or ()),
    }


def _placed(node: Node, selected: Collection[str]) -> tuple[Any, ...]:
    """Return what of a node decides what Modules are planned: of our own labels, those that Modules select by."""
    labels = {key: value for key, value in node.labels.items() if not key.startswith(PREFIX) or key in selected}
    return (node.kernel, labels, node.taints, node.architecture, node.os_image)


def _counts_differ(before: OwnedObject, after: OwnedObject) -> bool:
    """Whether two states of a DaemonSet differ in nothing but how many pods there are."""
    old, new = before.daemon_set, after.daemon_set
    if old is None or new is None:
        return False
    return replace(old, scheduled=new.scheduled, ready=new.ready, available=new.available) == new


def _counts(pod: PodFacts) -> bool:
    """Whether a label of its node may be due to a pod."""
    return pod.ready and not pod.deleting


def _urgent(action: Action) -> Action | None:
    """Return what of an action for a node cannot wait: what its labels say and is not so any more."""
    if not isinstance(action, LabelNode):
        return action
    labels = {key: value for key, value in action.labels.items() if value is None or key == names.KERNEL}
    return replace(action, labels=labels) if labels else None


def _log(action: Action, key: Key) -> None:
    if isinstance(action, Probe | Announce):
        return
    # Under names that a log record does not use itself; the formatter takes the prefix off.
    said = {
        f"action_{field}": str(value) for field in ("name", "node", "reason") if (value := getattr(action, field, ""))
    }
    said = {name: value for name, value in said.items() if value}
    said |= {"controller": key[0], "object": "/".join(filter(None, key[1:]))}
    _LOG.info("%s", type(action).__name__, extra=said)
