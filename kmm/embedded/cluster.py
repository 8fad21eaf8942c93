"""A whole cluster in this process: start it, ask it by HTTP(S), stop it."""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme
import yaml

from kmm.embedded.controller import Controller
from kmm.embedded.daemonset import DaemonSetController
from kmm.embedded.definition import DefinitionController
from kmm.embedded.fault import Faults
from kmm.embedded.garbage import GarbageCollector, NamespaceController
from kmm.embedded.job import JobController
from kmm.embedded.kubelet import Kubelet, Pace, Pull, present
from kmm.embedded.loop_thread import LoopThread
from kmm.embedded.node import NodeController, Scheduler
from kmm.embedded.objects import KEPT_NAMESPACES, MERGE_PATCH, Objects, now_text
from kmm.embedded.program import Program, idle
from kmm.embedded.server import Entry, Server, User
from kmm.embedded.storage import Storage

ADMIN = "admin"
UNKNOWN = ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")


class Cluster:
    """A cluster: API server, controllers, scheduler and kubelet, in a thread of this process.

    A context manager. `program`: what containers do; `pull`: where images come from; `pace`: how fast the kubelet
    and Jobs are; `folder`: where credentials and the pods' volumes are written (a temporary one, else); `tls`: serve
    HTTPS with an own CA; `bookmark_s`: how often watches tell how far they are; `history`: how many events of a
    resource are kept for watches that resume.
    """

    def __init__(
        self,
        *,
        program: Program = idle,
        pull: Pull = present,
        pace: Pace | None = None,
        folder: Path | str | None = None,
        tls: bool = True,
        host: str = "127.0.0.1",
        bookmark_s: float = 60,
        history: int = 5_000,
    ) -> None:
        for name, value in (("program", program), ("pull", pull)):
            if not callable(value):
                raise TypeError(f"{name} has to be a function, not {type(value).__name__}")
        self._temporary = tempfile.TemporaryDirectory(prefix="kmm-cluster-") if folder is None else None
        self.folder = Path(folder or (self._temporary.name if self._temporary else ""))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._host, self._tls = host, tls
        self._restarting = threading.Lock()
        pace = pace or Pace()
        self._tokens: dict[str, User] = {}
        self.storage = Storage(history=history)
        self.objects = Objects(self.storage)
        self.server = Server(self.objects, self._tokens, bookmark_s=bookmark_s)
        self.kubelet = Kubelet(self.objects, self.folder, program=program, pull=pull, pace=pace)
        self._controllers: list[Controller] = [
            DefinitionController(self.objects),
            NamespaceController(self.objects),
            NodeController(self.objects),
            Scheduler(self.objects),
            DaemonSetController(self.objects),
            JobController(self.objects, back_off_s=pace.back_off_s),
            GarbageCollector(self.objects),
            self.kubelet,
        ]
        self._authority = trustme.CA(organization_name="kmm embedded cluster") if tls else None
        self.admin_token = self.token(ADMIN, "system:masters")
        self._thread = LoopThread("Cluster")

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            if self._authority:
                self._authority.cert_pem.write_to_path(str(self.ca_file))
            self.call(self._start())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._thread.alive:
            return
        self.call(self._stop())
        self._thread.stop()
        if self._temporary:
            self._temporary.cleanup()

    @property
    def url(self) -> str:
        """Where it listens."""
        self._thread.running()
        return f"http{'s' if self._tls else ''}://{self._host}:{self.server.port}"

    @property
    def ca_file(self) -> Path:
        """The certificate of its CA, in PEM."""
        return self.folder / "ca.crt"

    @property
    def faults(self) -> Faults:
        """What is to go wrong."""
        return self.server.faults

    @property
    def log(self) -> list[Entry]:
        """The requests so far."""
        return list(self.server.log)

    def token(self, user: str, *groups: str) -> str:
        """Return a new bearer token by which someone is known."""
        token = secrets.token_hex(16)
        self._tokens[token] = User(user, groups)
        return token

    def kubeconfig(self, token: str = "") -> Path:
        """Write a kubeconfig for a token, the administrator's by default."""
        if token and token not in self._tokens:
            raise ValueError("no such token: cluster.token(user) makes one")
        path = self.folder / f"{self._tokens[token or self.admin_token].name.replace(':', '-')}.kubeconfig"
        cluster: dict[str, Any] = {"server": self.url}
        if self._tls:
            cluster["certificate-authority-data"] = base64.b64encode(self.ca_file.read_bytes()).decode()
        named = "kmm-embedded"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": named,
            "clusters": [{"name": named, "cluster": cluster}],
            "users": [{"name": named, "user": {"token": token or self.admin_token}}],
            "contexts": [{"name": named, "context": {"cluster": named, "user": named}}],
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def call(self, work: Any, *arguments: Any) -> Any:
        """Run a coroutine, or a function, in the cluster's thread; return what it returns.

        Raises:
            RuntimeError: it is not running; or it is called from that thread (an `async` program), which would
                wait for itself.
        """
        return self._thread.call(work, *arguments)

    def add_node(
        self,
        name: str,
        kernel: str,
        *,
        labels: Mapping[str, str] | None = None,
        ready: bool = True,
        more: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Let a node join. `more` may change it before."""
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": "KubeletReady" if ready else "KubeletNotReady",
            "lastHeartbeatTime": now_text(),
            "lastTransitionTime": now_text(),
        }
        own = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        node: dict[str, Any] = {
            "metadata": {"name": name, "labels": {**own, **(labels or {})}},
            "status": {
                "conditions": [condition],
                "addresses": [{"type": "Hostname", "address": name}],
                "capacity": {"cpu": "8", "memory": "32Gi", "pods": "250"},
                "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "250"},
                "nodeInfo": {
                    "architecture": "amd64",
                    "bootID": "",
                    "containerRuntimeVersion": "containerd://2.1.0",
                    "kernelVersion": kernel,
                    "kubeProxyVersion": "",
                    "kubeletVersion": "v1.36.3",
                    "machineID": "",
                    "operatingSystem": "linux",
                    "osImage": "embedded",
                    "systemUUID": "",
                },
            },
        }
        if more:
            more(node)
        self.call(self.objects.create, self.objects.resource("Node"), "", node)

    def change_kernel(self, node: str, kernel: str) -> None:
        """Let a node come back with another kernel, as after an upgrade."""
        patch = {"status": {"nodeInfo": {"kernelVersion": kernel}}}
        resource = self.objects.resource("Node")
        self.call(self.objects.patch, resource, "", node, patch, MERGE_PATCH, "status")

    def compact(self) -> None:
        """Forget all history: watches that resume from before get 410."""
        self.call(self.storage.compact)

    def restart(self, *, down_s: float = 0) -> None:
        """Stop the API server and start it again on its port, with what it stored."""

        async def again(seconds: float) -> None:
            await self.server.stop()
            await asyncio.sleep(seconds)
            await self.server.start(self._host, self._context())

        self._thread.running()
        with self._restarting:
            self.call(again(float(down_s)))

    def reach(self, node: str, *, reachable: bool) -> None:
        """Cut the kubelet of a node off from the cluster, or connect it again; its Ready condition says so."""

        def change() -> None:
            self.kubelet.reach(node, reachable=reachable)
            record = self.objects.get(self.objects.resource("Node"), "", node)
            status = record.read()["status"]
            for each in status["conditions"]:
                if each["type"] == "Ready":
                    said = ("True", "KubeletReady", "") if reachable else UNKNOWN
                    each["status"], each["reason"], each["message"] = said
                    each["lastTransitionTime"] = now_text()
            self.objects.set_status(record, status)

        self.call(change)

    async def _start(self) -> None:
        for name in (*KEPT_NAMESPACES, "kube-node-lease"):
            self.objects.create(self.objects.resource("Namespace"), "", {"metadata": {"name": name}})
        for controller in self._controllers:
            controller.start()
        await asyncio.sleep(0)  # the default service accounts
        await self.server.start(self._host, self._context())

    async def _stop(self) -> None:
        await self.server.stop()
        for controller in self._controllers:
            controller.stop()
        await self.kubelet.stopped()

    def _context(self) -> ssl.SSLContext | None:
        if self._authority is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert(self._host, "localhost").configure_cert(context)
        return context
