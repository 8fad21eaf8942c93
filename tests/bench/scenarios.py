"""What operators of this kind have to do, on a real control plane: each scenario returns its figures.

Durations are in seconds by the API server's own clock, from its audit log; the clock starts with the first object
that a person makes, the operator being ready. Leases are not counted, events are counted apart.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apiserver.samples import a_module, core, modules, sets
from arena import NAMESPACE, USER, Arena, Operator, Request, counted, led
from registry.client import Client
from registry.docker_registry import DockerRegistry

from kmm.embedded.image import image

KERNELS = ("6.1.0-1-amd64", "6.1.0-2-amd64", "6.1.0-3-amd64")
DEVICE_PLUGIN = {"container": {"image": "registry.example.com/device-plugin:1"}}
P = "kmm.node.kubernetes.io/"
CHURN_RATE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Under:
    """What is measured. `command`: starts an operator; `environment`: what it finds there besides."""

    command: str
    environment: Mapping[str, str] = field(default_factory=dict)


Figures = dict[str, float]


@contextmanager
def _arena(*, daemons: bool = False) -> Iterator[Arena]:
    with tempfile.TemporaryDirectory() as folder, Arena(Path(folder), daemons=daemons) as arena:
        yield arena


def _modules(count: int, **more: Any) -> list[dict[str, Any]]:
    return [a_module(f"m{number}", devicePlugin=DEVICE_PLUGIN, **more) for number in range(count)]


def _made(requests: Sequence[Request], resource: str = "daemonsets") -> list[Request]:
    return [each for each in requests if each.verb == "create" and each.resource == resource and each.code == 201]


def _figures(arena: Arena, operator: Operator, since: int, cpu_s: float, wall_s: float) -> Figures:
    used = operator.used()
    requests, events, _ = counted(arena.asked(since))
    return {
        "wall_s": wall_s,
        "cpu_s": used.cpu_s - cpu_s,
        "rss_mib": used.rss_mib,
        "peak_mib": used.peak_mib,
        "requests": requests,
        "events": events,
    }


def _began(requests: Sequence[Request], resource: str = "modules") -> float:
    """Return when the first object was asked for by somebody other than the operator."""
    return min(each.at_s for each in requests if each.user != USER and each.resource == resource)


# ── Converge, and the upgrade of a node ───────────────────────────────────────────────────────────────────────────


def converge(under: Under, *, nodes: int = 100, count: int = 50, upgrades: int = 5) -> tuple[Figures, Figures]:
    """Apply many Modules at once, until every DaemonSet is there; then upgrade nodes, one after the other."""
    with _arena() as arena:
        arena.add_nodes(nodes, KERNELS)
        with arena.operator(under.command, under.environment) as operator:
            arena.quiet()
            since, cpu_s = len(arena.requests()), operator.used().cpu_s
            with _another_client(arena) as waited:
                arena.post_all(modules(NAMESPACE), _modules(count))
                wanted = count * (len(KERNELS) + 1)
                arena.until(lambda: len(_made(arena.asked(since))) == wanted, f"{wanted} DaemonSets")
            arena.quiet()
            wall_s = max(each.ended_s for each in _made(arena.asked(since))) - _began(arena.requests()[since:])
            figures = _figures(arena, operator, since, cpu_s, wall_s)
            figures["doubled"] = _doubled(arena, wanted)
            figures["other_p99_ms"] = _p99_ms(waited)
            return figures, _upgrade(arena, operator, count, upgrades)


def _doubled(arena: Arena, wanted: int) -> int:
    return len(arena.api.get(sets(NAMESPACE)).body["items"]) - wanted


def _upgrade(arena: Arena, operator: Operator, count: int, times: int) -> Figures:
    """Give one node after the other a kernel that none had."""
    walls, asked, cpu = [], [], []
    for number in range(times):
        since, cpu_s = len(arena.requests()), operator.used().cpu_s
        arena.change_kernel(f"n{number}", f"7.{number}.0")
        arena.until(lambda since=since: len(_made(arena.asked(since))) == count, f"{count} loaders for a new kernel")
        arena.quiet()
        requests = arena.requests()[since:]
        walls.append(max(each.ended_s for each in _made(arena.asked(since))) - _began(requests, "nodes"))
        asked.append(counted(arena.asked(since))[0])
        cpu.append(operator.used().cpu_s - cpu_s)
    return {
        "wall_s": statistics.median(walls),
        "first_s": walls[0],
        "last_s": walls[-1],
        "cpu_s": statistics.median(cpu),
        "requests": statistics.median(asked),
        "first_requests": asked[0],
        "last_requests": asked[-1],
    }


@contextmanager
def _another_client(arena: Arena, every_s: float = 0.01) -> Iterator[list[float]]:
    """Let somebody else ask for something small all the while; the seconds that each answer took."""
    waited: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(every_s):
            began = time.perf_counter()
            arena.made(arena.api.get("/api/v1/namespaces/default"))
            waited.append(time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waited
    finally:
        ended.set()
        thread.join()


def _p99_ms(waited: Sequence[float]) -> float:
    return sorted(waited)[int(len(waited) * 0.99)] * 1e3


def unbothered(*, nodes: int = 100, count: int = 50) -> Figures:
    """Apply the same Modules without any operator: what another client's requests take then."""
    with _arena() as arena:
        arena.add_nodes(nodes, KERNELS)
        with _another_client(arena) as waited:
            arena.post_all(modules(NAMESPACE), _modules(count))
            time.sleep(1)
        return {"other_p99_ms": _p99_ms(waited)}


# ── Converge with images that are there ───────────────────────────────────────────────────────────────────────────


def existing(under: Under, *, nodes: int = 100, count: int = 50) -> Figures:
    """The same with `build` sections whose images are in a registry; then the operator is started again."""
    with _arena() as arena, _registry(arena.folder) as (host, log):
        arena.add_nodes(nodes, KERNELS)
        dockerfile = {"metadata": {"name": "d"}, "data": {"dockerfile": "FROM scratch"}}
        arena.made(arena.api.post(core(NAMESPACE, "configmaps"), dockerfile))
        container = {
            "modprobe": {"moduleName": "m"},
            "registryTLS": {"insecure": True},
            "build": {"dockerfileConfigMap": {"name": "d"}},
        }
        bodies = []
        for number in range(count):
            mapping = {"regexp": ".*", "containerImage": f"{host}/m{number}:$KERNEL_FULL_VERSION"}
            spec = {"container": {**container, "kernelMappings": [mapping]}}
            bodies.append(a_module(f"m{number}", devicePlugin=DEVICE_PLUGIN, moduleLoader=spec))
            _push(host, f"m{number}", KERNELS)
        config = arena.folder / "kmm.yaml"
        config.write_text(json.dumps({"plugins": {"options": {"oci": {"allowAddresses": ["127.0.0.0/8"]}}}}))
        environment = {"KMM_CONFIG": str(config), **under.environment}
        before = len(log())
        with arena.operator(under.command, environment) as operator:
            arena.quiet()
            since, cpu_s = len(arena.requests()), operator.used().cpu_s
            arena.post_all(modules(NAMESPACE), bodies)
            wanted = count * (len(KERNELS) + 1)
            arena.until(lambda: len(_made(arena.asked(since))) == wanted, f"{wanted} DaemonSets")
            arena.quiet()
            wall_s = max(each.ended_s for each in _made(arena.asked(since))) - _began(arena.requests()[since:])
            figures = _figures(arena, operator, since, cpu_s, wall_s)
            figures["to_registry"] = len(log()) - before
        before, since = len(log()), len(arena.requests())
        with arena.operator(under.command, environment):
            arena.quiet()
            figures["to_registry_again"] = len(log()) - before
            figures["writes_again"] = sum(each.verb not in ("get", "list") for each in arena.asked(since))
        return figures


@contextmanager
def _registry(folder: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Run Debian's registry; give its host and what it was asked."""
    with DockerRegistry(folder / "registry", access_log=True) as registry:
        yield registry.host, lambda: re.findall(r'"[A-Z]+ /v2/[^"]*"', registry.log_file.read_text())


def _push(host: str, repository: str, tags: Sequence[str]) -> None:
    client = Client(f"http://{host}", "", "", "")
    for tag in tags:
        answer = client.push(repository, tag, image([{"/x": repository.encode()}]))
        if answer.status != 201:
            raise SystemExit(f"the registry refuses: {answer.data!r}")


# ── Settle ────────────────────────────────────────────────────────────────────────────────────────────────────────


def settle(under: Under, *, nodes: int = 100, count: int = 10) -> Figures:
    """Apply Modules until every pod runs, every label and status is right, and nothing moves."""
    with _arena(daemons=True) as arena:
        arena.add_nodes(nodes, KERNELS)
        with arena.operator(under.command, under.environment) as operator:
            arena.quiet()
            since, cpu_s = len(arena.requests()), operator.used().cpu_s
            arena.post_all(modules(NAMESPACE), _modules(count))
            wanted = {f"{P}{NAMESPACE}.m{n}.{w}" for n in range(count) for w in ("ready", "device-plugin-ready")}

            def settled() -> bool:
                found = arena.api.get("/api/v1/nodes").body["items"]
                time.sleep(0.5)  # whoever looks must not be what is measured
                return all(wanted <= each["metadata"]["labels"].keys() for each in found) and all(
                    each.get("status", {}).get(part, {}).get("availableNumber") == nodes
                    for each in arena.api.get(modules(NAMESPACE)).body["items"]
                    for part in ("moduleLoader", "devicePlugin")
                )

            arena.until(settled, "every label and status is right")
            arena.quiet(5.0)
            asked = arena.asked(since)
            wall_s = max(each.ended_s for each in asked) - _began(arena.requests()[since:])
            figures = _figures(arena, operator, since, cpu_s, wall_s)
            figures["label_writes"] = sum(each.verb == "patch" and each.resource == "nodes" for each in asked)
            figures["status_writes"] = sum(each.subresource == "status" for each in asked)
            templates = [
                {key: each["metadata"][key] for key in ("labels", "annotations", "name")} | {"spec": each["spec"]}
                for each in arena.api.get(sets(NAMESPACE)).body["items"]
            ]
    figures["floor_s"] = _floor(templates, nodes, sorted(wanted))
    figures["over_floor"] = figures["wall_s"] / figures["floor_s"]
    return figures


def _floor(templates: Sequence[Mapping[str, Any]], nodes: int, labels: Sequence[str]) -> float:
    """Return how long the control plane takes for the same objects and labels, all applied at once by nobody."""
    with _arena(daemons=True) as arena:
        arena.add_nodes(nodes, KERNELS)
        since = len(arena.requests())
        arena.post_all(
            sets(NAMESPACE),
            [
                {"metadata": {key: each[key] for key in ("name", "labels", "annotations")}, "spec": each["spec"]}
                for each in templates
            ],
        )
        patch = {"metadata": {"labels": dict.fromkeys(labels, "")}}
        arena.each(lambda number: arena.api.patch(f"/api/v1/nodes/n{number}", patch), range(nodes))

        def available() -> bool:
            time.sleep(0.5)
            found = [each.get("status", {}) for each in arena.api.get(sets(NAMESPACE)).body["items"]]
            return all(each.get("numberAvailable", 0) == each.get("desiredNumberScheduled", 0) > 0 for each in found)

        arena.until(available, "every pod runs")
        requests = arena.requests()[since:]
        return max(each.ended_s for each in requests if each.resource == "daemonsets" and each.verb != "watch") - (
            _began(requests, "daemonsets")
        )


# ── Nodes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def churn(under: Under, *, nodes: int = 1_000, count: int = 50, seconds: float = 60, large: bool = False) -> Figures:
    """Let nodes report, as their kubelets do all the time: nothing of it matters to an operator."""
    with _arena() as arena:
        arena.add_nodes(nodes, KERNELS, large=large)
        arena.post_all(modules(NAMESPACE), _modules(count))
        with arena.operator(under.command, under.environment) as operator:
            arena.until(lambda: len(_made(arena.asked())) == count * (len(KERNELS) + 1), "the DaemonSets")
            arena.quiet(5.0)
            since, cpu_s, began = len(arena.requests()), operator.used().cpu_s, time.monotonic()
            for number in range(int(seconds * CHURN_RATE)):
                patch = {"status": {"addresses": [{"type": "Hostname", "address": f"h{number}"}]}}
                arena.made(arena.api.patch(f"/api/v1/nodes/n{number % nodes}/status", patch))
                time.sleep(max(0.0, (number + 1) / CHURN_RATE - (time.monotonic() - began)))
            figures = _figures(arena, operator, since, cpu_s, time.monotonic() - began)
            figures["cpu_s_per_minute"] = figures["cpu_s"] * 60 / figures["wall_s"]
            return figures


def label(under: Under, *, nodes: int = 1_000) -> Figures:
    """Start where no node has its kernel as a label."""
    with _arena() as arena:
        arena.add_nodes(nodes, KERNELS, labelled=False)
        since = len(arena.requests())
        with arena.operator(under.command, under.environment) as operator:
            arena.until(lambda: len(_labelled(arena, since)) == nodes, f"{nodes} labels")
            arena.quiet()
            leads_s = min(each.ended_s for each in led(arena.requests()[since:]))
            wall_s = max(each.ended_s for each in _labelled(arena, since)) - leads_s
            figures = _figures(arena, operator, since, 0.0, wall_s)
            figures["writes"] = len(_labelled(arena, since))
            return figures


def _labelled(arena: Arena, since: int) -> list[Request]:
    return [each for each in arena.asked(since) if each.verb == "patch" and each.resource == "nodes"]


def remember(under: Under, *, nodes: int = 5_000) -> Figures:
    """Start in a cluster of many large nodes, and settle."""
    with _arena() as arena:
        arena.add_nodes(nodes, KERNELS, large=True)
        with arena.operator(under.command, under.environment) as operator:
            arena.post_all(modules(NAMESPACE), _modules(1))
            arena.until(lambda: len(_made(arena.asked())) == len(KERNELS) + 1, "the DaemonSets")
            arena.quiet()
            time.sleep(10)
            used = operator.used()
            return {"rss_mib": used.rss_mib, "peak_mib": used.peak_mib, "cpu_s": used.cpu_s}
