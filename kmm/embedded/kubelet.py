"""A kubelet for all nodes: pods bound to a node live here, with the states, words and events of the real one.

What a container does is a `Program`; where its image is from is a `Pull`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kmm.embedded.builtin import ENDED
from kmm.embedded.controller import Controller
from kmm.embedded.objects import Deletion, Objects, now_text
from kmm.embedded.program import Exit, Program, Run, idle, perform, said
from kmm.embedded.storage import Event, Record
from kmm.embedded.volume import Absent, Volumes, expanded

_LOG = logging.getLogger(__name__)


class PullError(Exception):
    """An image cannot be pulled; the text is the container runtime's."""


Pull = Callable[[str, Mapping[str, Any]], Awaitable[None]]


async def present(_image: str, _pod: Mapping[str, Any]) -> None:
    """Find every image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a kubelet is; these are the real one's figures."""

    relist_s: float = 1
    back_off_s: float = 10
    longest_back_off_s: float = 300

    def after(self, failures: int) -> float:
        """Return the delay after so many failures in a row."""
        return float(min(self.back_off_s * 2 ** (failures - 1), self.longest_back_off_s))


class Kubelet(Controller):
    """Keeps a task for each pod that is bound to a node. `unreachable`: nodes that hear and say nothing."""

    component = "kubelet"

    def __init__(
        self,
        objects: Objects,
        folder: Path,
        *,
        program: Program = idle,
        pull: Pull = present,
        pace: Pace | None = None,
    ) -> None:
        super().__init__(objects)
        self.folder, self.program, self.pull, self.pace = folder, program, pull, pace or Pace()
        self.unreachable: set[str] = set()
        self._lives: dict[str, _Life] = {}

    def seen(self, event: Event) -> None:
        record = event.record
        if record.resource.key == ("", "pods") and record.fields[0]:
            self.enqueue(record.uid)

    def reach(self, node: str, *, reachable: bool) -> None:
        """Cut a node off, or connect it again."""
        if reachable:
            self.unreachable.discard(node)
            for pod in self.storage.records(self.objects.resource("Pod")):
                if pod.fields[0] == node:
                    self.enqueue(pod.uid)
        else:
            self.unreachable.add(node)

    def sync(self, key: str) -> None:
        record = self.storage.by_uid(key)
        life = self._lives.get(key)
        if record is None:
            if life:
                life.end()
            return
        if record.fields[0] in self.unreachable:
            return
        if life is None:
            if record.fields[1] in ENDED and not record.deleting:
                return
            life = self._lives[key] = _Life(self, record)
            life.begin()
        else:
            life.publish()
        if record.deleting:
            life.terminate(record.read()["metadata"].get("deletionGracePeriodSeconds", 0))

    def forget(self, uid: str) -> None:
        """Drop a life that is over."""
        self._lives.pop(uid, None)

    def stop(self) -> None:
        super().stop()
        for life in list(self._lives.values()):
            life.end()

    async def stopped(self) -> None:
        """Wait until every life has ended."""
        await asyncio.gather(*(life.task for life in self._lives.values() if life.task), return_exceptions=True)


class _Container:
    """The state of one container."""

    def __init__(self, spec: Mapping[str, Any], kind: str, waiting: str) -> None:
        self.spec, self.kind, self.name = spec, kind, spec["name"]
        self._state: dict[str, Any] = {"waiting": {"reason": waiting}}
        self.last: dict[str, Any] = {}
        self.ready = self.started = False
        self.restarts = -1
        self.run: Run | None = None
        self.task: asyncio.Task[Exit] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """What it is in: waiting, running or terminated; how it ended before is kept."""
        return self._state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if "terminated" in self._state and "terminated" not in state:
            self.last = self._state
        self._state = state

    def wait(self, reason: str, message: str = "") -> None:
        self.ready = self.started = False
        self.state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}

    def status(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "image": self.spec.get("image", ""),
            "imageID": self.spec.get("image", "") if self.restarts >= 0 else "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": max(self.restarts, 0),
            "state": self.state,
            "lastState": self.last,
        }


class _Life:
    """One pod on one node, from the binding to its end."""

    def __init__(self, kubelet: Kubelet, record: Record) -> None:
        self._kubelet, self._record = kubelet, record
        self.pod: dict[str, Any] = record.read()
        spec = self.pod["spec"]
        waiting = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
        self._init = [_Container(each, "initContainers", waiting) for each in spec.get("initContainers") or ()]
        self._main = [_Container(each, "containers", waiting) for each in spec["containers"]]
        self._node: str = spec["nodeName"]
        self._id = f"{record.name}_{record.namespace}({record.uid})"
        self._folder = kubelet.folder / "pods" / record.uid
        self._volumes = Volumes(kubelet.objects, self.pod, self._folder, self._kernel())
        self._started_at = now_text()
        self._sandbox = False
        self._phase = "Pending"
        self._until: float | None = None  # by the loop's clock
        self._terminating = asyncio.Event()
        self._hurry = asyncio.Event()  # `_until` is another one than before
        self.task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self.task = asyncio.create_task(self._live())

    def end(self) -> None:
        """Kill what runs, as when a pod is deleted by force."""
        for container in (*self._init, *self._main):
            if container.task:
                container.task.cancel()
            if container.run:
                container.run.stopped.set()  # a plain function cannot be cancelled
        if self.task:
            self.task.cancel()

    def terminate(self, grace_s: float) -> None:
        until = asyncio.get_running_loop().time() + max(grace_s, 1)
        if self._until is None or until < self._until:
            self._until = until
            self._terminating.set()
            self._hurry.set()

    async def _live(self) -> None:
        try:
            work = asyncio.create_task(self._work())
            told = asyncio.create_task(self._terminating.wait())
            try:
                await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    work.result()
                else:
                    await self._stop_all()
            finally:
                work.cancel()
                told.cancel()
                await asyncio.gather(work, told, return_exceptions=True)
            self._conclude()
            await self._terminating.wait()
            while self._node in self._kubelet.unreachable:  # noqa: ASYNC110 -- rare, and once a second
                await asyncio.sleep(self._kubelet.pace.relist_s)
            self.publish()
            self._delete()
        except asyncio.CancelledError:
            pass
        except Exception:
            _LOG.exception("the kubelet lost %s", self._id)
        finally:
            self._kubelet.forget(self._record.uid)
            if self._folder.exists():
                # Volumes may hold a great many files, and everybody waits for this thread.
                await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _work(self) -> None:
        self.publish()
        await self._mount()
        self._sandbox = True
        for container in self._init:
            if not await self._keep(container):
                return
        for container in self._main:
            if "waiting" in container.state:
                container.wait("ContainerCreating")
        await asyncio.gather(*(self._keep(container) for container in self._main))

    async def _mount(self) -> None:
        delay_s = self._kubelet.pace.relist_s / 2
        while True:
            try:
                self._volumes.check()
            except Absent as absent:
                self._announce("Warning", "FailedMount", str(absent))
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, 122)

    async def _keep(self, container: _Container) -> bool:
        """Run a container, again and again where its pod wants that; return whether it ended well."""
        policy = self.pod["spec"].get("restartPolicy", "Always")
        always = policy == "Always" and container.kind == "containers"
        failures = 0
        while True:
            await self._pull(container)
            done = await self._once(container)
            self.publish()
            if done is not None and done.code == 0 and not always:
                return True
            if done is not None and policy == "Never":
                return False
            await asyncio.sleep(self._kubelet.pace.relist_s)
            if container.state.get("waiting", {}).get("reason") == "CreateContainerConfigError":
                continue  # it never ran: nothing crashed
            failures += 1
            if failures > 1:
                wait_s = self._kubelet.pace.after(failures - 1)
                where = f"container={container.name} pod={self._id}"
                container.wait("CrashLoopBackOff", f"back-off {_duration(wait_s)} restarting failed {where}")
                self._announce(
                    "Warning",
                    "BackOff",
                    f"Back-off restarting failed container {container.name} in pod {self._id}",
                    container,
                )
                self.publish()
                await asyncio.sleep(wait_s)

    async def _pull(self, container: _Container) -> None:
        image = container.spec.get("image", "")
        failures = 0
        if container.restarts >= 0 and container.spec.get("imagePullPolicy") != "Always":
            return
        while True:
            if not failures:
                self._announce("Normal", "Pulling", f'Pulling image "{image}"', container)
            try:
                await self._kubelet.pull(image, self.pod)
            except PullError as error:
                failures += 1
                container.wait("ErrImagePull", str(error))
                self._announce("Warning", "Failed", f'Failed to pull image "{image}": {error}', container)
                self._announce("Warning", "Failed", "Error: ErrImagePull", container)
                self.publish()
                await asyncio.sleep(self._kubelet.pace.relist_s)
                container.wait("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {error}')
                self._announce("Normal", "BackOff", f'Back-off pulling image "{image}"', container)
                self._announce("Warning", "Failed", "Error: ImagePullBackOff", container)
                self.publish()
                await asyncio.sleep(self._kubelet.pace.after(failures))
            else:
                self._announce("Normal", "Pulled", f'Successfully pulled image "{image}"', container)
                return

    async def _once(self, container: _Container) -> Exit | None:
        """Run a container once; `None` where it could not even start, and the state says why."""
        try:
            environment = self._volumes.environment(container.spec)
        except Absent as absent:
            container.wait("CreateContainerConfigError", str(absent))
            self._announce("Warning", "Failed", f"Error: {absent}", container)
            return None
        simulated = self._kubelet.program is idle
        container.restarts += 1
        run = container.run = Run(
            pod=self.pod,
            container=container.spec,
            node=self._node,
            kernel=self._kernel(),
            argv=tuple(
                expanded(each, environment)
                for each in (*(container.spec.get("command") or ()), *(container.spec.get("args") or ()))
            ),
            env=environment,
            mounts={} if simulated else self._volumes.mounts(container.spec),
        )
        self._announce("Normal", "Created", "Container created", container)
        since = now_text()
        container.task = asyncio.create_task(perform(self._kubelet.program, run))
        await asyncio.sleep(0)  # whoever reads that it runs may count on its having begun
        self._announce("Normal", "Started", "Container started", container)
        failed = await self._hook(container, "postStart")
        if failed is not None:
            self._announce("Warning", "FailedPostStartHook", "PostStartHook failed", container)
            self._announce("Normal", "Killing", "FailedPostStartHook", container)
            grace_s = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
            until = asyncio.get_running_loop().time() + grace_s
            done = await self._stop(container, lambda: until)
            container.state = _terminated(container, done, since)
            container.wait("PostStartHookError", failed)
            return None
        if not container.task.done():
            container.ready = container.started = True
            container.state = {"running": {"startedAt": since}}
            self.publish()
        done = await asyncio.shield(container.task)
        container.ready = container.started = False
        if container.kind == "initContainers" and done.code == 0:
            container.ready = True
        container.state = _terminated(container, done, since)
        return done

    async def _hook(self, container: _Container, hook: str, timeout_s: float | None = None) -> str | None:
        """Run a hook of a container; return why it failed, in the kubelet's words."""
        handler = (container.spec.get("lifecycle") or {}).get(hook) or {}
        if "exec" not in handler or container.run is None:
            return None
        argv = tuple(handler["exec"].get("command") or ())
        hooked = replace(container.run, hook=hook, argv=argv, stopped=asyncio.Event())
        try:
            done = await asyncio.wait_for(perform(self._kubelet.program, hooked), timeout_s)
        except TimeoutError:
            return f"{hook} did not end in time"
        if done.code == 0:
            return None
        what = f'Exec lifecycle hook ([{" ".join(argv)}]) for Container "{container.name}" in Pod "{self._id}" failed'
        error = f"command '{' '.join(argv)}' exited with {done.code}: {done.output}"
        return f"{what} - error: {error}, message: {json.dumps(done.output, ensure_ascii=False)}"

    async def _stop(self, container: _Container, until: Callable[[], float]) -> Exit:
        """Stop a container: preStop, SIGTERM, and SIGKILL at the end of its grace period, which may be moved."""
        if container.task is None:
            return Exit()
        loop = asyncio.get_running_loop()
        left_s = until() - loop.time()
        if not container.task.done() and await self._hook(container, "preStop", left_s) is not None:
            self._announce("Warning", "FailedPreStopHook", "PreStopHook failed", container)
        if container.run:
            container.run.stopped.set()
        least = loop.time() + self._kubelet.pace.relist_s
        while not container.task.done() and (left_s := max(until(), least) - loop.time()) > 0:
            self._hurry.clear()
            hurry = asyncio.create_task(self._hurry.wait())
            await asyncio.wait((container.task, hurry), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
        if not container.task.done():
            container.task.cancel()
            await asyncio.gather(container.task, return_exceptions=True)
            return Exit(code=137)
        return container.task.result() if not container.task.cancelled() else Exit(code=137)

    async def _stop_all(self) -> None:
        async def stop(container: _Container) -> None:
            running = "running" in container.state
            if running:
                self._announce("Normal", "Killing", f"Stopping container {container.name}", container)
            since = container.state.get("running", {}).get("startedAt", self._started_at)
            done = await self._stop(container, lambda: self._until or 0)
            if container.task:
                container.ready = container.started = False
                container.state = _terminated(container, done, since)

        await asyncio.gather(*(stop(container) for container in (*self._init, *self._main)))

    def _conclude(self) -> None:
        """Say how the pod ended."""
        ends = [container.state.get("terminated") for container in self._main]
        self._phase = "Succeeded" if all(end and end["exitCode"] == 0 for end in ends) else "Failed"
        self.publish()

    def _known(self) -> Record | None:
        """Return what the API server has; `None` where the pod is gone from there, or cannot be told of."""
        return None if self._node in self._kubelet.unreachable else self._kubelet.storage.by_uid(self._record.uid)

    def _delete(self) -> None:
        if record := self._known():
            self._kubelet.objects.delete(record, Deletion(uid=record.uid, grace_s=0))

    def publish(self) -> None:
        """Write the pod's status, if it is another one than before."""
        record = self._known()
        if record is None:
            return
        body = record.read()
        before = body.get("status") or {}
        if self._phase not in ENDED:
            waits = any("waiting" in each.state and not each.last for each in self._main)
            self._phase = "Pending" if waits else "Running"
        status = {key: before[key] for key in ("qosClass",) if key in before}
        status |= {
            "phase": self._phase,
            "observedGeneration": body["metadata"].get("generation", 1),
            "startTime": self._started_at,
            "hostIP": "127.0.0.1",
            "conditions": self._conditions(before.get("conditions") or ()),
            "containerStatuses": [each.status() for each in self._main],
        }
        if self._init:
            status["initContainerStatuses"] = [each.status() for each in self._init]
        if status != before:
            self._kubelet.objects.set_status(record, status)

    def _conditions(self, before: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        unready = [each.name for each in self._main if not each.ready]
        uninitialised = [each.name for each in self._init if not each.ready]
        ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(self._phase)
        not_ready = (
            ended or "ContainersNotReady",
            "" if ended else f"containers with unready status: {_list(unready)}",
        )
        not_initialised = ("ContainersNotInitialized", f"containers with incomplete status: {_list(uninitialised)}")
        wanted: list[tuple[str, bool, tuple[str, str]]] = [
            ("PodReadyToStartContainers", self._sandbox and not ended, ("", "")),
            ("Initialized", not uninitialised, not_initialised),
            ("Ready", not unready and not ended, not_ready),
            ("ContainersReady", not unready and not ended, not_ready),
            ("PodScheduled", True, ("", "")),
        ]
        known = {each["type"]: each for each in before}
        found = [dict(each) for each in before if each["type"] not in {kind for kind, _, _ in wanted}]
        for kind, holds, (reason, message) in wanted:
            was = known.get(kind, {})
            condition = {"type": kind, "status": str(holds)}
            since = was.get("lastTransitionTime") if was.get("status") == str(holds) else None
            condition["lastTransitionTime"] = since or now_text()
            if not holds and reason:
                condition |= {"reason": reason} | ({"message": message} if message else {})
            found.append(condition)
        return found

    def _kernel(self) -> str:
        node = self._kubelet.storage.get(self._kubelet.objects.resource("Node"), "", self._node)
        return str(((node.read().get("status") or {}).get("nodeInfo") or {}).get("kernelVersion", "")) if node else ""

    def _announce(self, kind: str, reason: str, message: str, container: _Container | None = None) -> None:
        if record := self._known():
            field = f"spec.{container.kind}{{{container.name}}}" if container else ""
            self._kubelet.announce(record, kind, reason, message, field=field)


def _terminated(container: _Container, done: Exit, since: str) -> dict[str, Any]:
    ended: dict[str, Any] = {
        "exitCode": done.code,
        "reason": "Completed" if done.code == 0 else "Error",
        "startedAt": since,
        "finishedAt": now_text(),
    }
    message = said(container.spec, done)
    return {"terminated": ended | ({"message": message} if message else {})}


def _list(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def _duration(seconds: float) -> str:
    """Return a duration as Go writes it."""
    if seconds < 60:
        return f"{seconds:g}s"
    return f"{int(seconds // 60)}m{seconds % 60:g}s"
