"""A real control plane to measure an operator on: its nodes, its audit log, and the operator as a process of its own.

Whatever the operator is, it is measured the same way: its requests by the API server's audit log, its CPU and memory
by the kernel's accounts of all the processes that its command starts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import yaml
from apiserver.client import Api
from apiserver.conftest import register
from apiserver.samples import a_node, core
from controlplane.controlplane import ControlPlane
from embedded_cluster import memory, realistic

from kmm.api.crd import custom_resource_definition
from kmm.api.kinds import KINDS

NAMESPACE = "kmm-system"
# Who asks: the operator; who makes Modules, and looks; and a neighbour, who has an ordinary reader's rights.
USER, PERSON, NEIGHBOUR = "operator", "admin", "nobody"
WRITES = ("create", "update", "patch", "delete")
OURS = (str(Path(sys.executable).parent / "kmm"), "run")
KERNEL_LABEL = "kmm.node.kubernetes.io/kernel-version.full"
_CLIENTS = 4
_WITHIN_S = 400.0
_LOOK_S = 0.3
_STOPPED_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A line of the audit log. `at_s`, `ended_s`: seconds since the epoch, by the API server's clock."""

    user: str
    verb: str
    resource: str
    subresource: str
    name: str
    code: int
    at_s: float
    ended_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What the processes of an operator used so far. `rss_mib`, `peak_mib`: what is resident now, and was at most."""

    cpu_s: float
    rss_mib: float
    peak_mib: float


class Operator:
    """An operator that runs, in a process group of its own. Its environment has the kubeconfig."""

    def __init__(self, words: Sequence[str], kubeconfig: Path, log: Path, more: Mapping[str, str]) -> None:
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "OPERATOR_NAMESPACE": NAMESPACE,
            "KMM_METRICS_ADDRESS": "127.0.0.1:0",
            "KMM_HEALTH_ADDRESS": "127.0.0.1:0",
            **more,
        }
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    def check(self) -> None:
        """Raise SystemExit where it has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"the operator has ended:\n{self.log.read_text(errors='replace')[-2000:]}")

    def used(self) -> Used:
        """Return what it has used since it was started, whatever its command has started besides."""
        self.check()
        ticks, rss_mib, peak_mib = 0, 0.0, 0.0
        for pid, fields in group(self._process.pid):
            with suppress(OSError, KeyError):  # it has just ended
                found = memory(pid)
                rss_mib, peak_mib = rss_mib + found["VmRSS"], peak_mib + found["VmHWM"]
                ticks += sum(int(each) for each in fields[11:15])  # its own, and of its children that have ended
        return Used(cpu_s=ticks / os.sysconf("SC_CLK_TCK"), rss_mib=rss_mib, peak_mib=peak_mib)

    def stop(self) -> None:
        """End it, as a kubelet does, and all that it has started."""
        until = time.monotonic() + _STOPPED_WITHIN_S
        self._signal(signal.SIGTERM)
        while self._process.poll() is None or group(self._process.pid):
            if time.monotonic() > until:
                self._signal(signal.SIGKILL)
                break
            time.sleep(_LOOK_S / 10)
        self._process.wait()

    def _signal(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signum)


def group(leader: int) -> list[tuple[int, list[str]]]:
    """Return the living processes of a group: their ids, and what /proc/ID/stat says of each from its state on."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == leader and fields[0] != "Z":
                found.append((int(stat.parent.name), fields))
    return found


class Arena:
    """A control plane, as a context manager. `daemons`: whether anybody makes pods of DaemonSets, and runs them."""

    def __init__(self, folder: Path, *, daemons: bool) -> None:
        # Without pods there is nothing for kwok to do but to keep the nodes' leases, at the API server's cost; and
        # nobody must miss them. Nodes come as they are to be: no taint that somebody has to take off.
        controllers = "*" if daemons else "*,-daemonset-controller,-node-lifecycle-controller"
        flags = ["--disable-admission-plugins=TaintNodesByCondition"]
        self.plane = ControlPlane(folder, controllers=controllers, kwok=daemons, apiserver_flags=flags)
        self.folder = folder
        self._read = 0
        self._seen: list[Request] = []
        self._running: Operator | None = None

    def __enter__(self) -> Self:
        self.plane.__enter__()
        self.api = Api(self.plane.url, self.plane.ca_file, self.plane.admin_token)
        for kind in KINDS:
            register(self.api, custom_resource_definition(kind))
        self.made(self.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}))
        for name in ("kmm-operator-module-loader", "kmm-operator-device-plugin"):
            self.made(self.api.post(core(NAMESPACE, "serviceaccounts"), {"metadata": {"name": name}}))
        for user, role in ((USER, "cluster-admin"), (NEIGHBOUR, "view")):
            binding = {
                "metadata": {"name": user},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
            }
            self.made(self.api.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding))
        return self

    def __exit__(self, *error: object) -> None:
        self.plane.__exit__(*error)

    @staticmethod
    def made(answer: Any) -> Any:
        """Return what was answered to a write that must not fail."""
        if answer.code not in (200, 201):
            raise SystemExit(f"the API server refuses: {answer.body}")
        return answer.body

    def each(self, ask: Callable[[Any], Any], over: Iterable[Any], clients: int = _CLIENTS) -> None:
        """Make many writes, a few at a time."""
        with ThreadPoolExecutor(clients) as pool:
            for answer in pool.map(ask, over):
                self.made(answer)

    def post_all(self, path: str, bodies: Iterable[Mapping[str, Any]]) -> None:
        self.each(lambda body: self.api.post(path, body), bodies)

    def add_nodes(self, count: int, kernels: Sequence[str], *, large: bool = False, labelled: bool = True) -> None:
        """Let nodes join that are ready; where they are `labelled`, an operator has nothing to do with them."""

        def node(number: int) -> dict[str, Any]:
            kernel = kernels[number % len(kernels)]
            made = a_node(f"n{number}", {"a": "b"} | ({KERNEL_LABEL: kernel} if labelled else {}), kernel)
            made["metadata"].setdefault("annotations", {})
            if large:
                realistic(made)
            return made

        self.post_all("/api/v1/nodes", map(node, range(count)))

    def change_kernel(self, node: str, kernel: str) -> None:
        """Let a node come back with another kernel, as after an upgrade."""
        patch = {"status": {"nodeInfo": {"kernelVersion": kernel}}}
        self.made(self.api.patch(f"/api/v1/nodes/{node}/status", patch))

    @contextmanager
    def operator(self, words: Sequence[str], more: Mapping[str, str] | None = None) -> Iterator[Operator]:
        """Run an operator, from when it leads and is quiet."""
        config = yaml.safe_load(self.plane.kubeconfig(USER).read_text())
        kubeconfig = self.folder / "measured.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config))
        began = len(self.requests())
        running = self._running = Operator(words, kubeconfig, self.folder / "operator.log", more or {})
        try:
            self.until(lambda: led(self.requests()[began:]), "the operator leads")
            yield running
        finally:
            self._running = None
            running.stop()

    def requests(self) -> list[Request]:
        """Return all that has been asked and answered so far."""
        with self.plane.audit_log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # it is being written
                self._read += len(line)
                said = json.loads(line)
                if said["stage"] == "ResponseStarted":
                    continue  # a watch, which is told of again when it ends
                about = said.get("objectRef") or {}
                request = Request(
                    user=said["user"]["username"],
                    verb=said["verb"],
                    resource=about.get("resource", ""),
                    subresource=about.get("subresource", ""),
                    name=about.get("name", ""),
                    code=(said.get("responseStatus") or {}).get("code", 0),
                    at_s=_seconds(said["requestReceivedTimestamp"]),
                    ended_s=_seconds(said["stageTimestamp"]),
                )
                self._seen.append(request)
        return self._seen

    def asked(self, since: int = 0) -> list[Request]:
        """Return the operator's requests, but those for its lease."""
        return [
            each
            for each in self.requests()[since:]
            if each.user == USER and each.resource != "leases" and each.verb != "watch"
        ]

    def quiet(self, for_s: float = 3.0) -> None:
        """Wait until the operator has asked nothing for a while."""

        def still() -> bool:
            asked = self.asked()
            return time.time() - max((each.ended_s for each in asked), default=0.0) > for_s

        self.until(still, "the operator is quiet")

    def until(self, look: Callable[[], Any], what: str) -> None:
        """Wait for a condition. The figures come from the audit log: looking seldom costs none of their precision."""
        until = time.monotonic() + _WITHIN_S
        while not look():
            if self._running:
                self._running.check()
            if time.monotonic() > until:
                raise SystemExit(f"never: {what}")
            time.sleep(_LOOK_S)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def led(requests: Iterable[Request]) -> list[Request]:
    """Return the operator's writes of its lease."""
    return [
        each
        for each in requests
        if each.user == USER and each.resource == "leases" and each.verb in ("create", "update") and each.code < 300
    ]


def counted(requests: Iterable[Request]) -> tuple[int, int]:
    """Return how many requests, and how many of events, which are counted apart."""
    kinds = Counter(each.resource == "events" for each in requests)
    return kinds[False], kinds[True]


def answered(requests: Iterable[Request]) -> list[Request]:
    """Return the requests that were not refused: how many there are of the others depends on a machine's pace."""
    return [each for each in requests if each.code < 300 and each.resource != "events"]


def at_once(requests: Iterable[Request]) -> int:
    """Return how many requests were under way at the same time, at most."""
    edges = [edge for each in requests for edge in ((each.at_s, 1), (each.ended_s, -1))]
    return max(accumulate(change for _, change in sorted(edges)), default=0)
