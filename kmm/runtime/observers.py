"""What plugins that observe are told: each thing that was done, in a thread of its own, as long as they keep up."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from kmm.catalog import Catalog
from kmm.contract import ModuleRef, Record
from kmm.core.actions import Action, Announce, Create, Delete, LabelNode, Probe, Release, Replace, SetStatus
from kmm.core.view import Subject
from kmm.runtime.kinds import EVENT, MODULE, NODE, POD
from kmm.runtime.metrics import Metrics

_LOG = logging.getLogger(__name__)
_WAITING = 1_000


class Observers:
    """Tells plugins. What they raise is counted; where too much waits for them, records are dropped and counted."""

    def __init__(self, catalog: Catalog, metrics: Metrics) -> None:
        self._hooks: list[tuple[str, Callable[[Record], None]]] = [
            (plugin.name, plugin.observe) for plugin in catalog.plugins if plugin.observe
        ]
        self._metrics = metrics
        self._waiting: queue.Queue[Record | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="observers", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell nothing more; nobody waits for a plugin that hangs."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            _LOG.info("plugins that observe are too slow: the last records are not told")

    def tell(self, action: Action, subject: Subject | None, duration_s: float) -> None:
        """Tell of an action that was carried out, soon."""
        if not self._hooks or isinstance(action, Probe):
            return
        try:
            self._waiting.put_nowait(_record(action, subject, duration_s))
        except queue.Full:
            self._metrics.not_observed("dropped")

    def _run(self) -> None:
        while (record := self._waiting.get()) is not None:
            for name, hook in self._hooks:
                try:
                    hook(record)
                except Exception as error:  # a plugin may raise anything, and must not keep the others from hearing
                    self._metrics.not_observed("raised")
                    _LOG.debug("plugin %s raised %s while it observed", name, type(error).__name__)


def _record(action: Action, subject: Subject | None, duration_s: float) -> Record:
    module = subject.ref if subject else None
    kind, namespace, name = _object(action, module)
    return Record(
        at_s=time.time(),
        action=type(action).__name__,
        kind=kind,
        namespace=namespace,
        name=name,
        module=module,
        reason=str(getattr(action, "reason", "")),
        message=str(getattr(action, "message", "")),
        duration_s=duration_s,
        driver=subject.driver if subject else "",
    )


def _object(action: Action, module: ModuleRef | None) -> tuple[str, str, str]:
    """Return the kind, namespace and name of what an action is done to."""
    namespace = module.namespace if module else ""
    match action:
        case Replace():
            return action.kind.kind, namespace, action.name
        case Create() | Delete():
            return action.kind.kind, action.namespace or namespace, action.name
        case LabelNode():
            return NODE.kind, "", action.node
        case Release():
            return POD.kind, action.namespace, action.name
        case Announce():
            return EVENT.kind, namespace, module.name if module else ""
        case SetStatus() | Probe():
            return MODULE.kind, namespace, module.name if module else ""
