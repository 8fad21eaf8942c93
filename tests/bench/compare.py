"""Operators on a real control plane, measured: `make bench` and `make bench-smoke`.

    python tests/bench/compare.py                          # every scenario, medians of three runs
    python tests/bench/compare.py --only converge settle   # some of them
    python tests/bench/compare.py --growth                 # by 1, 3 and 10 times the nodes and the Modules
    python tests/bench/compare.py --against COMMAND        # another operator beside ours, in the same run
    python tests/bench/compare.py --smoke                  # small numbers; fails on wrong counts of requests

With --write each row is written to docs/benchmarks as soon as it is measured; rows that are not measured stay.

COMMAND starts the other operator, and stays in the foreground until SIGTERM; all processes of its group are measured.
It finds KUBECONFIG, whose user may do everything, and OPERATOR_NAMESPACE; the cluster has our definitions of Modules,
and no webhooks. It leads when it has written a Lease. It is to make a DaemonSet for each Module and kernel and one
for each device plugin, to label nodes with their kernel, and, in `settle`, with each Module that is ready, and to
count those nodes in the Modules' statuses.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

import report  # noqa: E402
import scenarios  # noqa: E402
from arena import OURS  # noqa: E402
from controlplane import controlplane  # noqa: E402
from registry import docker_registry  # noqa: E402
from scenarios import Figures, Under  # noqa: E402

DOCUMENTS = ROOT / "docs/benchmarks"
GO = "Go operator 1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Something to measure. `known`: what others were seen to need, by their names; `reach`: what ours may need."""

    name: str
    what: str
    run: Callable[[Under], Mapping[str, Figures]]
    known: Mapping[str, Figures]
    reach: Mapping[str, float]


def _named(name: str, run: Callable[..., Figures], **more: Any) -> Callable[[Under], Mapping[str, Figures]]:
    return lambda under: {name: run(under, **more)}


def _converge(under: Under) -> Mapping[str, Figures]:
    return dict(zip(("converge", "upgrade"), scenarios.converge(under), strict=True))


SCENARIOS = (
    Scenario(
        name="converge",
        what="50 Modules with a device plugin, 100 nodes, 3 kernels: until the last of 200 DaemonSets",
        run=_converge,
        known={GO: {"wall_s": 8.9, "cpu_s": 0.71, "peak_mib": 46, "requests": 258}},
        reach={"wall_s": 1.3, "cpu_s": 0.9, "peak_mib": 70, "requests": 265},
    ),
    Scenario(
        name="upgrade",
        what="then a new kernel on one node: until the last of 50 new DaemonSets",
        run=_converge,
        known={
            GO: {
                "wall_s": 17.7,
                "first_wall_s": 12.6,
                "last_wall_s": 22.4,
                "cpu_s": 1.2,
                "first_requests": 303,
                "last_requests": 499,
            }
        },
        # The last of five is to cost what the first does.
        reach={"wall_s": 0.8, "last_wall_s": 0.8, "requests": 110, "last_requests": 110},
    ),
    Scenario(
        name="neighbour",
        what="what somebody else waits for answers while 500 Modules are converged, and without an operator",
        run=_named("neighbour", scenarios.neighbour),
        known={},
        reach={"at_once": 8},
    ),
    Scenario(
        name="refused",
        what="converge where the API server does little for the operator at a time, and refuses the rest with 429",
        run=_named("refused", scenarios.refused),
        known={},
        reach={},
    ),
    Scenario(
        name="existing",
        what="the same with `build` sections, 150 images existing in a registry",
        run=_named("existing", scenarios.existing),
        known={GO: {"wall_s": 8.8, "cpu_s": 0.8, "peak_mib": 46, "requests": 255, "to_registry": 312}},
        reach={"wall_s": 2.0, "to_registry": 155, "to_registry_again": 0},
    ),
    Scenario(
        name="settle",
        what="10 Modules, 100 nodes, 2,000 pods: until every label and status is right and nothing moves",
        run=_named("settle", scenarios.settle),
        known={GO: {"wall_s": 103, "cpu_s": 15.1, "peak_mib": 84, "requests": 4421}},
        reach={"over_floor": 1.3, "cpu_s": 6, "peak_mib": 85, "requests": 1200},
    ),
    Scenario(
        name="churn",
        what="1,000 nodes of 1 kB, 50 Modules, 100 updates of nodes a second, for a minute",
        run=_named("churn", scenarios.churn),
        known={GO: {"cpu_s_per_minute": 2.0, "rss_mib": 63, "peak_mib": 78, "requests": 0}},
        reach={"cpu_s_per_minute": 1.2, "rss_mib": 62, "peak_mib": 72, "requests": 0},
    ),
    Scenario(
        name="churn-large",
        what="the same with nodes of 11 kB",
        run=_named("churn-large", scenarios.churn, large=True),
        known={},
        reach={"cpu_s_per_minute": 1.2, "rss_mib": 62, "peak_mib": 72, "requests": 0},
    ),
    Scenario(
        name="remember",
        what="5,000 nodes of 11 kB",
        run=_named("remember", scenarios.remember),
        known={
            "a bare client-go informer, at least": {"rss_mib": 89},
            "a bare client-go informer, at most": {"rss_mib": 220},
        },
        reach={"rss_mib": 75, "peak_mib": 90},
    ),
    Scenario(
        name="label",
        what="1,000 nodes without our label: from leadership until the last is labelled",
        run=_named("label", scenarios.label),
        known={GO: {"wall_s": 49, "cpu_s": 2.2, "peak_mib": 65, "requests": 1032}},
        reach={"wall_s": 3.0},
    ),
)


# ── Growth ────────────────────────────────────────────────────────────────────────────────────────────────────────

TIMES = (1, 3, 10)
# Name, what there is 1, 3 and 10 times of, and the scenario.
GROWTH: tuple[tuple[str, str, Callable[[Under, int], Figures]], ...] = (
    ("converge", "50 Modules", lambda under, n: scenarios.converge(under, count=50 * n, upgrades=1)[0]),
    ("converge", "100 nodes", lambda under, n: scenarios.converge(under, nodes=100 * n, upgrades=1)[0]),
    ("upgrade", "50 Modules", lambda under, n: scenarios.converge(under, count=50 * n, upgrades=3)[1]),
    ("upgrade", "100 nodes", lambda under, n: scenarios.converge(under, nodes=100 * n, upgrades=3)[1]),
    ("existing", "15 Modules", lambda under, n: scenarios.existing(under, count=15 * n)),
    ("settle", "1 Modules", lambda under, n: scenarios.settle(under, count=n)),
    ("settle", "10 nodes", lambda under, n: scenarios.settle(under, nodes=10 * n)),
    ("churn", "50 Modules", lambda under, n: scenarios.churn(under, nodes=100, count=50 * n, seconds=20)),
    ("churn", "100 nodes", lambda under, n: scenarios.churn(under, nodes=100 * n, seconds=20)),
    ("remember", "500 nodes", lambda under, n: scenarios.remember(under, nodes=500 * n)),
    ("label", "100 nodes", lambda under, n: scenarios.label(under, nodes=100 * n)),
)


def median_of(runs: list[Figures]) -> Figures:
    """Return the medians of several runs' figures."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def measured(scenario: Scenario, under: Under, repeat: int) -> dict[str, Figures]:
    """Run a scenario several times; return the medians by the names that it measures."""
    runs: dict[str, list[Figures]] = {}
    for _ in range(repeat):
        for name, figures in scenario.run(under).items():
            runs.setdefault(name, []).append(figures)
    return {name: median_of(each) for name, each in runs.items()}


def machine() -> dict[str, str]:
    """Return what the figures were measured with."""

    def said(*command: str) -> str:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        return ran.stdout.strip()

    versions = json.loads(said(str(controlplane.binaries() / "kubectl"), "version", "--client", "-o", "json"))
    model = next(
        (
            each.partition(":")[2].strip()
            for each in said("cat", "/proc/cpuinfo").splitlines()
            if "model name" in each
        ),
        "unknown",
    )
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": said("git", "rev-parse", "--short", "HEAD"),
        "processor": f"{os.cpu_count()} cores of {model}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "kubernetes": versions["clientVersion"]["gitVersion"],
    }


def compare(
    chosen: Sequence[Scenario], ours: Under, other: Under | None, called: str, repeat: int
) -> Iterator[dict[str, Any]]:
    """Measure; yield a row for each scenario. The other operator is measured once, and may not get there."""
    about = machine()
    done: dict[str, dict[str, Any]] = {}
    for scenario in chosen:
        if scenario.name not in done:
            parts: dict[str, dict[str, Any]] = {
                name: {"ours": {"with": about, "repeat": repeat, "figures": figures}}
                for name, figures in measured(scenario, ours, repeat).items()
            }
            if other:
                said = {"with": about, "repeat": 1, "called": called}
                try:
                    figures_of = measured(scenario, other, 1)
                except SystemExit as failed:
                    why = str(failed).partition("\n")[0]
                    for part in parts.values():
                        part["other"] = {**said, "figures": {}, "failed": why}
                else:
                    for name, figures in figures_of.items():
                        parts[name]["other"] = {**said, "figures": figures}
            done |= parts
        yield {
            "name": scenario.name,
            "what": scenario.what,
            "known": scenario.known,
            "reach": scenario.reach,
            **done[scenario.name],
        }


def grow(ours: Under, only: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Measure each scenario at 1, 3 and 10 times; yield a row for each."""
    about = machine()
    for name, of, run in GROWTH:
        if not only or name in only:
            figures = [run(ours, times) for times in TIMES]
            yield {"name": name, "of": of, "with": about, "times": list(TIMES), "figures": figures}


# ── Smoke ─────────────────────────────────────────────────────────────────────────────────────────────────────────

# What was found, and the least and the most that is right: the same on any machine.
Checks = dict[str, tuple[float, float, float]]


def _exactly(found: float, right: float) -> tuple[float, float, float]:
    return found, right, right


def _smoke_converge(ours: Under) -> Checks:
    # A DaemonSet for each kernel, one for the device plugin, one status; then, for a node with a new kernel, a
    # DaemonSet and a status for each Module, and the node's label.
    least = 5 * (3 + 1 + 1), 2 * 5 + 1
    converged, upgraded = scenarios.converge(ours, nodes=6, count=5, upgrades=2, least=least)
    return {
        "converge: requests": _exactly(converged["answered"], least[0]),
        "converge: DaemonSets too many": _exactly(converged["doubled"], 0),
        "first upgrade: requests": _exactly(upgraded["first_answered"], least[1]),
        "second upgrade: requests": _exactly(upgraded["last_answered"], least[1]),
    }


def _smoke_existing(ours: Under) -> Checks:
    existed = scenarios.existing(ours, nodes=6, count=5)
    return {
        "existing: DaemonSets too many": _exactly(existed["doubled"], 0),
        # How often a status is written while answers come depends on when they do.
        "existing: writes but of statuses": _exactly(existed["writes"] - existed["status_writes"], 5 * (3 + 1)),
        # The namespace's accounts, secrets and ConfigMaps; of each Module its account and Dockerfile, unless known.
        "existing: reads": (existed["answered"] - existed["writes"], 3, 3 + 5 * 2),
        "existing: to the registry": _exactly(existed["to_registry"], 15),
        "existing: to the registry after a restart": _exactly(existed["to_registry_again"], 0),
        "existing: writes after a restart": _exactly(existed["writes_again"], 0),
    }


def _smoke_settle(ours: Under) -> Checks:
    settled = scenarios.settle(ours, nodes=6, count=2, floor=False)
    rest = settled["answered"] - settled["label_writes"] - settled["status_writes"]
    return {
        "settle: DaemonSets too many": _exactly(settled["doubled"], 0),
        # A node gets two labels for each Module; a write brings one of them, or all at once.
        "settle: writes of labels": (settled["label_writes"], 6, 6 * 2 * 2),
        "settle: requests but for labels and statuses": _exactly(rest, 2 * (3 + 1)),
    }


def _smoke_churn(ours: Under) -> Checks:
    churned = scenarios.churn(ours, nodes=20, count=3, seconds=5, least=3 * (3 + 1 + 1))
    return {"churn: requests": _exactly(churned["answered"], 0)}


def _smoke_label(ours: Under) -> Checks:
    return {"label: writes": _exactly(scenarios.label(ours, nodes=50)["label_writes"], 50)}


def wrong(checks: Checks) -> list[str]:
    """Return a line for each check that fails."""
    return [
        f"{what}: {found:g}, not {least:g}{f' to {most:g}' if most > least else ''}"
        for what, (found, least, most) in checks.items()
        if not least <= found <= most
    ]


def smoke() -> int:
    """Run small versions; return 1 where the requests are not as they must be.

    The lease is long, so that no stall of the machine makes writes time out or another leader. What may still come
    between, such as a watch that ended and is read anew, does not come twice: only what is wrong again fails.
    """
    ours = Under(command=OURS, environment={"KMM_LEASE_DURATION_SECONDS": "150"})
    failed = 0
    runs = (_smoke_converge, _smoke_settle, _smoke_existing, _smoke_churn, _smoke_label)
    with ThreadPoolExecutor(2) as pool:
        for checks in pool.map(lambda run: _twice(run, ours), runs):
            lines = wrong(checks)
            failed += len(lines)
            told = [f"{what}: {found:g}" for what, (found, *_) in checks.items()]
            print("\n".join([*told, *(f"WRONG: {line}" for line in lines)]), flush=True)
    print(f"{failed} failed")
    return int(failed > 0)


def _twice(run: Callable[[Under], Checks], ours: Under) -> Checks:
    checks = run(ours)
    for line in wrong(checks):
        print(f"once: {line}", flush=True)
    return run(ours) if wrong(checks) else checks


# ── The command line ──────────────────────────────────────────────────────────────────────────────────────────────


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMAND", help="another operator's command line")
    parser.add_argument(
        "--called", metavar="NAME", help="what the other is called in the results (its program's name)"
    )
    names = [each.name for each in SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="SCENARIO", help=", ".join(names))
    parser.add_argument("--repeat", type=int, metavar="N", help="runs of ours, of which the median is told (3)")
    parser.add_argument(
        "--growth", action="store_true", help="measure at 1, 3 and 10 times the nodes and the Modules"
    )
    parser.add_argument("--smoke", action="store_true", help="small numbers, which fail on wrong counts")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks")
    return parser


def checked(said: argparse.Namespace) -> list[str]:
    """Return the words of the other operator's command, if any. Raises ValueError: what is asked for cannot be."""
    ignored = {"--smoke": ("against", "called", "only", "repeat", "growth", "write")} if said.smoke else {}
    ignored |= {"--growth": ("against", "called", "repeat")} if said.growth else {}
    for mode, names in ignored.items():
        for name in names:
            if getattr(said, name) not in (None, False):
                raise ValueError(f"{mode} has no --{name}")
    if said.repeat is not None and said.repeat < 1:
        raise ValueError("--repeat is at least 1")
    if said.growth and (without := set(said.only or ()) - {name for name, *_ in GROWTH}):
        raise ValueError(f"--growth has no {', '.join(sorted(without))}")
    if said.called and not said.against:
        raise ValueError("--called names what --against starts")
    try:
        words = shlex.split(said.against or "")
    except ValueError as error:
        raise ValueError(f"--against: {error}") from None
    if said.against is not None and not (words and shutil.which(words[0])):
        raise ValueError(f"--against: there is no program {words[0] if words else 'in it'}")
    return words


def main() -> int:
    said = _parser().parse_args()
    try:
        words = checked(said)
        controlplane.binaries()
        docker_registry.program()
    except (ValueError, controlplane.Missing, docker_registry.Missing) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    if said.smoke:
        return smoke()
    ours = Under(command=OURS)
    if said.growth:
        name, rows = "growth", grow(ours, said.only or ())
    else:
        some = [each for each in SCENARIOS if not said.only or each.name in said.only]
        other = Under(command=words) if words else None
        called = said.called or (Path(words[0]).name if words else "")
        name, rows = "scenarios", compare(some, ours, other, called, said.repeat or 3)
    for row in rows:
        print("\n".join(report.TOLD[name](row)), flush=True)
        if said.write:
            report.write(DOCUMENTS, name, row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
