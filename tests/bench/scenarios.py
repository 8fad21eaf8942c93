"""What operators of this kind have to do, on a real control plane: each scenario returns its figures.

Durations are in seconds by the API server's own clock, from its audit log; the clock starts with the first object
that a person makes, the operator being ready. Leases are not counted, events are counted apart.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apiserver.samples import a_module, core, modules, sets
from arena import (
    NAMESPACE,
    NEIGHBOUR,
    PERSON,
    USER,
    WRITES,
    Arena,
    Operator,
    Request,
    answered,
    at_once,
    counted,
    led,
)
from registry.client import Client
from registry.docker_registry import DockerRegistry

from kmm.embedded.image import image

KERNELS = ("6.1.0-1-amd64", "6.1.0-2-amd64", "6.1.0-3-amd64")
DEVICE_PLUGIN = {"container": {"image": "registry.example.com/device-plugin:1"}}
P = "kmm.node.kubernetes.io/"
CHURN_RATE = 100
_LAST = "the-last-one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Under:
    """What is measured. `command`: the words that start an operator; `environment`: what it finds there besides."""

    command: Sequence[str]
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


def _figures(arena: Arena, operator: Operator, since: int, cpu_s: float) -> Figures:
    used, asked = operator.used(), arena.asked(since)
    requests, events = counted(asked)
    done = answered(asked)
    return {
        "cpu_s": used.cpu_s - cpu_s,
        "rss_mib": used.rss_mib,
        "peak_mib": used.peak_mib,
        "requests": requests,
        "events": events,
        "answered": len(done),
        "writes": sum(each.verb in WRITES for each in done),
        "status_writes": sum(each.verb in WRITES and each.subresource == "status" for each in done),
        "label_writes": len(_labelled(done)),
        "at_once": at_once(each for each in asked if each.verb in WRITES),
    }


def _began(requests: Sequence[Request], resource: str) -> float:
    """Return when a person first wrote something."""
    return min(
        each.at_s for each in requests if each.user == PERSON and each.verb in WRITES and each.resource == resource
    )


# ── Converge, and the upgrade of a node ───────────────────────────────────────────────────────────────────────────


def converge(
    under: Under, *, nodes: int = 100, count: int = 50, upgrades: int = 5, least: tuple[int, int] = (0, 0)
) -> tuple[Figures, Figures]:
    """Apply many Modules at once, until every DaemonSet is there; then upgrade nodes, one after the other.

    `least`: how many answers to wait for besides, to either.
    """
    with _arena() as arena:
        arena.add_nodes(nodes, KERNELS)
        with arena.operator(under.command, under.environment) as operator:
            figures = _converged(arena, operator, _modules(count), least[0])
            return figures, _upgrade(arena, operator, count, upgrades, least[1])


def _converged(arena: Arena, operator: Operator, bodies: Sequence[Mapping[str, Any]], least: int = 0) -> Figures:
    arena.quiet()
    since, cpu_s = len(arena.requests()), operator.used().cpu_s
    arena.post_all(modules(NAMESPACE), bodies)
    wanted = len(bodies) * (len(KERNELS) + 1)
    _until_made(arena, since, wanted, least)
    ended_s = max(each.ended_s for each in _made(arena.asked(since)))
    return {
        "wall_s": ended_s - _began(arena.requests()[since:], "modules"),
        **_figures(arena, operator, since, cpu_s),
        "doubled": len(arena.api.get(sets(NAMESPACE)).body["items"]) - wanted,
    }


def _until_made(arena: Arena, since: int, wanted: int, least: int = 0) -> None:
    """Wait for so many DaemonSets, and so many answers, and until no more come."""

    def made() -> bool:
        asked = arena.asked(since)
        return len(_made(asked)) >= wanted and len(answered(asked)) >= least

    arena.until(made, f"{wanted} DaemonSets" + (f" and {least} requests" if least else ""))
    arena.quiet()


def _upgrade(arena: Arena, operator: Operator, count: int, times: int, least: int) -> Figures:
    """Give one node after the other a kernel that none had."""
    runs: list[Figures] = []
    for number in range(times):
        since, cpu_s = len(arena.requests()), operator.used().cpu_s
        arena.change_kernel(f"n{number}", f"7.{number}.0")
        _until_made(arena, since, count, least)
        ended_s = max(each.ended_s for each in _made(arena.asked(since)))
        wall_s = ended_s - _began(arena.requests()[since:], "nodes")
        runs.append({"wall_s": wall_s, **_figures(arena, operator, since, cpu_s)})
    median = {key: statistics.median(run[key] for run in runs) for key in ("wall_s", "cpu_s", "requests")}
    ends = (("first", runs[0]), ("last", runs[-1]))
    return median | {f"{name}_{key}": run[key] for key in ("wall_s", "requests", "answered") for name, run in ends}


# ── Others who ask the same API server, and an API server that asks for rest ──────────────────────────────────────


def neighbour(under: Under, *, nodes: int = 100, count: int = 500) -> Figures:
    """What somebody else waits for answers while Modules converge, and while nobody looks after them."""
    with _arena() as arena, _neighbour(arena):
        arena.add_nodes(nodes, KERNELS)
        with arena.operator(under.command, under.environment) as operator:
            since = len(arena.requests())
            figures = _converged(arena, operator, _modules(count))
            began_s = _began(arena.requests()[since:], "modules")
            waited = _waited(arena, began_s, began_s + figures["wall_s"])
    with _arena() as arena, _neighbour(arena):
        arena.add_nodes(nodes, KERNELS)
        began_s = time.time()
        arena.post_all(modules(NAMESPACE), _modules(count))
        ended_s = began_s + figures["wall_s"]
        arena.until(lambda: time.time() > ended_s, "as long without an operator")
        without = _waited(arena, began_s, ended_s)
    return figures | {
        "other_p99_ms": p99(waited),
        "other_p99_ms_without": p99(without),
        "other_requests": len(waited),
    }


@contextmanager
def _neighbour(arena: Arena) -> Iterator[None]:
    """Let somebody else ask for something small all the while."""
    program = Path(__file__).with_name("neighbour.py")
    with subprocess.Popen([sys.executable, program, arena.plane.kubeconfig(NEIGHBOUR)]) as asking:
        try:
            arena.until(lambda: _waited(arena, 0, time.time()), "the neighbour is answered")
            yield
            if asking.poll() is not None:
                raise SystemExit("the neighbour has ended")
        finally:
            asking.terminate()


def _waited(arena: Arena, since_s: float, until_s: float) -> list[float]:
    """Return for how many milliseconds the neighbour waited for each answer, by the API server's clock."""
    return [
        (each.ended_s - each.at_s) * 1e3
        for each in arena.requests()
        if each.user == NEIGHBOUR and each.code == 200 and since_s <= each.at_s <= until_s
    ]


def p99(values: Sequence[float]) -> float:
    """Return the value that 99 of 100 do not exceed. Raises SystemExit where there are fewer than 100."""
    if len(values) < 100:
        raise SystemExit(f"too short: {len(values)} answers are too few for one of 100")
    return statistics.quantiles(values, n=100, method="inclusive")[-1]


def refused(under: Under, *, nodes: int = 100, count: int = 50) -> Figures:
    """Converge where the API server does a few writes of the operator at a time, and refuses all others with 429."""
    limited = {
        "nominalConcurrencyShares": 1,
        "lendablePercent": 0,
        "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"},
    }
    level = {"metadata": {"name": USER}, "spec": {"type": "Limited", "limited": limited}}
    rule = {
        "subjects": [{"kind": "User", "user": {"name": USER}}],
        "resourceRules": [
            {
                "verbs": list(WRITES),
                "apiGroups": ["apps", "kmm.sigs.x-k8s.io"],  # not its lease
                "resources": ["*"],
                "namespaces": ["*"],
            }
        ],
    }
    reference = {"priorityLevelConfiguration": {"name": USER}, "matchingPrecedence": 500, "rules": [rule]}
    with _arena() as arena:
        flow_control = "/apis/flowcontrol.apiserver.k8s.io/v1"
        arena.made(arena.api.post(f"{flow_control}/prioritylevelconfigurations", level))
        arena.made(arena.api.post(f"{flow_control}/flowschemas", {"metadata": {"name": USER}, "spec": reference}))
        arena.add_nodes(nodes, KERNELS)
        with arena.operator(under.command, under.environment) as operator:
            since = len(arena.requests())
            figures = _converged(arena, operator, _modules(count))
            return figures | {"refused": sum(each.code == 429 for each in arena.asked(since))}


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
            figures = _converged(arena, operator, bodies)
            figures["to_registry"] = len(log()) - before
        before, since = len(log()), len(arena.requests())
        with arena.operator(under.command, environment):
            # What comes last shows that all the others have been looked at.
            arena.made(arena.api.post(modules(NAMESPACE), a_module(_LAST)))
            _until_made(arena, since, len(KERNELS))
            figures["to_registry_again"] = len(log()) - before
            writes = [each for each in arena.asked(since) if each.verb in WRITES and each.resource != "events"]
            figures["writes_again"] = sum(not each.name.startswith(_LAST) for each in writes)
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


def settle(under: Under, *, nodes: int = 100, count: int = 10, floor: bool = True) -> Figures:
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
            wall_s = _still(arena, since) - _began(arena.requests()[since:], "modules")
            figures = {"wall_s": wall_s, **_figures(arena, operator, since, cpu_s)}
            made = arena.api.get(sets(NAMESPACE)).body["items"]
            figures["doubled"] = len(made) - count * (len(KERNELS) + 1)
    if floor:
        figures["floor_s"] = _floor(made, nodes, sorted(wanted))
        figures["over_floor"] = figures["wall_s"] / figures["floor_s"]
    return figures


def _floor(made: Sequence[Mapping[str, Any]], nodes: int, labels: Sequence[str]) -> float:
    """Return how long the control plane takes for the same DaemonSets and labels, applied at once by a person."""
    with _arena(daemons=True) as arena:
        arena.add_nodes(nodes, KERNELS)
        since = len(arena.requests())
        arena.post_all(
            sets(NAMESPACE),
            [
                {"metadata": {key: each["metadata"][key] for key in ("name", "labels", "annotations")}}
                | {"spec": each["spec"]}
                for each in made
            ],
        )
        patch = {"metadata": {"labels": dict.fromkeys(labels, "")}}
        arena.each(lambda number: arena.api.patch(f"/api/v1/nodes/n{number}", patch), range(nodes))

        def available() -> bool:
            time.sleep(0.5)
            found = [each.get("status", {}) for each in arena.api.get(sets(NAMESPACE)).body["items"]]
            return all(each.get("numberAvailable", 0) == each.get("desiredNumberScheduled", 0) > 0 for each in found)

        arena.until(available, "every pod runs")
        return _still(arena, since) - _began(arena.requests()[since:], "daemonsets")


def _still(arena: Arena, since: int, for_s: float = 5.0) -> float:
    """Wait until nothing moves, whoever moves it: return when the last write of that ended."""

    def last_s() -> float:
        return max(
            each.ended_s
            for each in answered(arena.requests()[since:])
            if each.user != PERSON
            and each.verb in WRITES
            and each.resource in ("daemonsets", "modules", "nodes", "pods")
            and (each.resource, each.subresource) != ("nodes", "status")  # they report all the time
        )

    arena.until(lambda: time.time() - last_s() > for_s, "nothing moves")
    return last_s()


# ── Nodes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def churn(
    under: Under, *, nodes: int = 1_000, count: int = 50, seconds: float = 60, large: bool = False, least: int = 0
) -> Figures:
    """Let nodes report, as their kubelets do all the time: nothing of it matters to an operator.

    `least`: how many answers to wait for before.
    """
    with _arena() as arena:
        arena.add_nodes(nodes, KERNELS, large=large)
        with arena.operator(under.command, under.environment) as operator:
            _converged(arena, operator, _modules(count), least)
            since, cpu_s, began = len(arena.requests()), operator.used().cpu_s, time.monotonic()
            for number in range(int(seconds * CHURN_RATE)):
                patch = {"status": {"addresses": [{"type": "Hostname", "address": f"h{number}"}]}}
                arena.made(arena.api.patch(f"/api/v1/nodes/n{number % nodes}/status", patch))
                time.sleep(max(0.0, (number + 1) / CHURN_RATE - (time.monotonic() - began)))
            figures = _figures(arena, operator, since, cpu_s)
            figures["cpu_s_per_minute"] = figures["cpu_s"] * 60 / (time.monotonic() - began)
            return figures


def label(under: Under, *, nodes: int = 1_000) -> Figures:
    """Start where no node has its kernel as a label."""
    with _arena() as arena:
        arena.add_nodes(nodes, KERNELS, labelled=False)
        since = len(arena.requests())
        with arena.operator(under.command, under.environment) as operator:
            arena.until(lambda: len(_names(arena, since)) >= nodes, f"{nodes} labelled nodes")
            arena.quiet()
            leads_s = min(each.ended_s for each in led(arena.requests()[since:]))
            labelled = _labelled(answered(arena.asked(since)))
            wall_s = max(each.ended_s for each in labelled) - leads_s
            return {"wall_s": wall_s, **_figures(arena, operator, since, 0.0)}


def _names(arena: Arena, since: int) -> set[str]:
    return {each.name for each in _labelled(answered(arena.asked(since)))}


def _labelled(requests: Sequence[Request]) -> list[Request]:
    return [
        each
        for each in requests
        if each.verb in ("patch", "update") and (each.resource, each.subresource) == ("nodes", "")
    ]


def remember(under: Under, *, nodes: int = 5_000) -> Figures:
    """Start in a cluster of many large nodes, and settle."""
    with _arena() as arena:
        arena.add_nodes(nodes, KERNELS, large=True)
        with arena.operator(under.command, under.environment) as operator:
            arena.post_all(modules(NAMESPACE), _modules(1))
            _until_made(arena, 0, len(KERNELS) + 1)
            time.sleep(10)
            used = operator.used()
            return {"rss_mib": used.rss_mib, "peak_mib": used.peak_mib, "cpu_s": used.cpu_s}
