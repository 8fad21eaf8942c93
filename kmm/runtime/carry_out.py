"""What a plan asks for, done: the one place that writes. Each write can fail without harm, and be made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from kmm.contract import Kind, ModuleRef
from kmm.core import names
from kmm.core.actions import Action, Announce, Create, Delete, LabelNode, Probe, Release, Replace, SetStatus
from kmm.core.loader_daemonset import DAEMON_SET
from kmm.core.reasons import Reason
from kmm.core.view import Question, Subject
from kmm.errors import KmmError
from kmm.runtime.cluster import Cluster
from kmm.runtime.kinds import (
    MODULE,
    NODE,
    POD,
    owner_of_task,
    path_of,
    read_node,
    trim_daemon_set,
    trim_module,
    trim_node,
)
from kmm.runtime.store import Store
from kmm.runtime.transport import (
    JSON_PATCH,
    MERGE_PATCH,
    AlreadyExists,
    Answer,
    Conflict,
    NotFound,
    Transport,
)
from kmm.runtime.watch import item_of


class Hands:
    """Carries out actions. `ask` puts a question to a registry; `tell` makes an event about a Module."""

    def __init__(
        self,
        transport: Transport,
        cluster: Cluster,
        ask: Callable[[Question, Subject], None],
        tell: Callable[[Subject, Announce], None],
    ) -> None:
        self._transport, self._cluster, self._ask, self._tell = transport, cluster, ask, tell

    def refused(self, subject: Subject, action: Action, error: KmmError) -> str:
        """Tell that the API server will not have something; return what was told."""
        what = f"{type(action).__name__} {getattr(action, 'name', '')}".strip()
        message = f"the API server refuses what is wanted ({what}): {error}"
        self._tell(subject, Announce(reason=Reason.WRITE_REFUSED, message=message, warning=True))
        return message

    def carry_out(self, action: Action, subject: Subject | None, seen: int = 0) -> None:
        """Do one thing. `seen`: the version of the Module that was planned from.

        Raises:
            Conflict: somebody else was first: decide again.
            ApiError, Unreachable: it was not done, or nobody knows.
        """
        match action:
            case LabelNode():
                answer = self._transport.ask(
                    "PATCH", path_of(NODE, "", action.node), {"metadata": {"labels": action.labels}}, MERGE_PATCH
                )
                self._cluster.nodes.put(item_of(answer.read(read_node), trim_node))
            case Release():
                self._release(action)
            case _ if subject is None:
                raise ValueError(f"{type(action).__name__} is about a Module")
            case Create():
                self._create(action, subject)
            case Replace():
                self._replace(action, subject.ref)
            case Delete():
                self._delete(action, subject.ref)
            case SetStatus():
                self._set_status(action, subject, seen)
            case Probe():
                self._ask(action.question, subject)
            case Announce():
                self._tell(subject, action)

    def _store(self, kind: Kind) -> tuple[Store[Any], Callable[[Mapping[str, Any]], Any]]:
        if kind == DAEMON_SET:
            return self._cluster.daemon_sets, trim_daemon_set
        return self._cluster.tasks[kind], self._cluster.trim_task

    @staticmethod
    def _remember(store: Store[Any], answer: Answer, trim: Callable[[Mapping[str, Any]], Any]) -> None:
        store.put(item_of(answer.read(), trim))

    def _create(self, action: Create, subject: Subject) -> None:
        store, trim = self._store(action.kind)
        # What was there may have gone with its Module, of which another watch tells a moment later.
        if store.had(action.namespace, action.name) and not self._is_there(subject):
            raise Conflict(HTTPStatus.NOT_FOUND, "NotFound", "its Module is gone")
        try:
            answer = self._transport.ask("POST", path_of(action.kind, action.namespace), action.manifest)
        except AlreadyExists:
            path = path_of(action.kind, action.namespace, action.name)
            body = self._transport.ask("GET", path).read()
            if owner_of_task(body["metadata"], self._cluster.operator.namespace) == subject.uid:
                # Made before, and its answer was lost; or somebody took off the labels that we see it by.
                labels = action.manifest["metadata"]["labels"]
                if labels.items() <= (body["metadata"].get("labels") or {}).items():
                    store.put(item_of(body, trim))
                else:
                    patch = {"metadata": {"uid": body["metadata"]["uid"], "labels": labels}}
                    self._remember(store, self._transport.ask("PATCH", path, patch, MERGE_PATCH), trim)
                return
            # Not ours: nothing is touched, and the next plan says so.
            self._cluster.take(subject.uid, action.name)
            raise
        self._remember(store, answer, trim)

    def _is_there(self, subject: Subject) -> bool:
        """Ask whether a Module still exists, and is to stay."""
        ref, modules = subject.ref, self._cluster.modules
        try:
            body = self._transport.ask("GET", path_of(MODULE, ref.namespace, ref.name)).read()
        except NotFound:
            modules.drop(ref.namespace, ref.name, subject.uid)
            return False
        modules.put(item_of(body, trim_module))
        return bool(body["metadata"]["uid"] == subject.uid and "deletionTimestamp" not in body["metadata"])

    def _replace(self, action: Replace, module: ModuleRef) -> None:
        store, trim = self._store(action.kind)
        patch: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/uid", "value": action.uid},
            {"op": "test", "path": "/metadata/generation", "value": action.generation},
        ]
        patch += [
            {"op": "add", "path": f"/spec/{_escaped(key)}", "value": value} for key, value in action.spec.items()
        ]
        patch += [
            {"op": "add", "path": f"/metadata/annotations/{_escaped(key)}", "value": value}
            for key, value in action.annotations.items()
        ]
        patch += [
            {"op": "add", "path": f"/metadata/labels/{_escaped(key)}", "value": value}
            for key, value in action.labels.items()
        ]
        path = path_of(action.kind, module.namespace, action.name)
        try:
            answer = self._transport.ask("PATCH", path, patch, JSON_PATCH)
        except NotFound as gone:
            store.drop(module.namespace, action.name, action.uid)
            raise Conflict(gone.code, gone.reason, str(gone)) from gone
        self._remember(store, answer, trim)

    def collect(self, action: Delete) -> None:
        """Delete what a Module that is gone has left elsewhere. Raises as `carry_out`."""
        self._delete(action, ModuleRef(namespace=action.namespace, name=""))

    def _delete(self, action: Delete, module: ModuleRef) -> None:
        store, trim = self._store(action.kind)
        options = {"preconditions": {"uid": action.uid}, "propagationPolicy": "Background"}
        namespace = action.namespace or module.namespace
        try:
            answer = self._transport.ask("DELETE", path_of(action.kind, namespace, action.name), options)
        except NotFound:
            store.drop(namespace, action.name, action.uid)
            return
        body = answer.read()
        if body.get("kind") == action.kind.kind and body["metadata"].get("finalizers"):
            store.put(item_of(body, trim))  # it goes when its finalizers do
        else:
            store.drop(namespace, action.name, action.uid)

    def _set_status(self, action: SetStatus, subject: Subject, seen: int) -> None:
        # Lists are replaced whole: only over the version that the plan was made from.
        body = {"metadata": {"resourceVersion": str(seen), "uid": subject.uid}, "status": action.status}
        path = path_of(MODULE, subject.ref.namespace, subject.ref.name) + "/status"
        try:
            answer = self._transport.ask("PATCH", path, body, MERGE_PATCH)
        except NotFound:
            return
        self._remember(self._cluster.modules, answer, trim_module)

    def _release(self, action: Release) -> None:
        path = path_of(POD, action.namespace, action.name)
        try:
            meta = self._transport.ask("GET", path).read()["metadata"]
            finalizers = meta.get("finalizers") or []
            if meta["uid"] != action.uid or names.HELD_BY_THE_GO_OPERATOR not in finalizers:
                return
            patch = [
                {"op": "test", "path": "/metadata/uid", "value": action.uid},
                {"op": "test", "path": "/metadata/finalizers", "value": finalizers},
                {
                    "op": "replace",
                    "path": "/metadata/finalizers",
                    "value": [each for each in finalizers if each != names.HELD_BY_THE_GO_OPERATOR],
                },
            ]
            self._transport.ask("PATCH", path, patch, JSON_PATCH)
        except NotFound:
            return


def _escaped(key: str) -> str:
    """Return a key as a JSON pointer has it."""
    return key.replace("~", "~0").replace("/", "~1")
