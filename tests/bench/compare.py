"""Operators on a real control plane, measured: `make bench` and `make bench-smoke`.

    python tests/bench/compare.py                          # every scenario, medians of three runs
    python tests/bench/compare.py --only converge settle   # some of them
    python tests/bench/compare.py --growth                 # by 1, 3 and 10 times the nodes and the Modules
    python tests/bench/compare.py --against COMMAND        # another operator beside ours, in the same run
    python tests/bench/compare.py --smoke                  # small numbers; fails on wrong counts of requests

COMMAND starts the other operator in the foreground, with KUBECONFIG and OPERATOR_NAMESPACE in its environment, and
ends with SIGTERM. With --write the results are written to docs/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]

import scenarios  # noqa: E402
from arena import OURS  # noqa: E402
from controlplane.controlplane import binaries  # noqa: E402
from scenarios import Figures, Under  # noqa: E402

DOCUMENTS = ROOT / "docs/benchmarks"
UNITS = {
    "wall_s": "s", "cpu_s": "s CPU", "cpu_s_per_minute": "s CPU a minute", "rss_mib": "MiB", "peak_mib": "MiB peak",
    "requests": "requests", "events": "events", "to_registry": "to the registry", "over_floor": "times the floor",
    "to_registry_again": "to the registry after a restart", "other_p99_ms": "ms: another client's p99",
    "other_p99_ms_without": "ms without an operator",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Something to measure. `go`: what the Go operator needed, where that is known; `reach`: what ours is to need."""

    name: str
    what: str
    run: Callable[[Under], Mapping[str, Figures]]
    go: Mapping[str, float]
    reach: Mapping[str, float]


def _named(name: str, run: Callable[..., Figures], **more: Any) -> Callable[[Under], Mapping[str, Figures]]:
    return lambda under: {name: run(under, **more)}


def _converge(under: Under) -> Mapping[str, Figures]:
    converged, upgraded = scenarios.converge(under)
    converged["other_p99_ms_without"] = scenarios.unbothered()["other_p99_ms"]
    return {"converge": converged, "upgrade": upgraded}


SCENARIOS = (
    Scenario(
        name="converge",
        what="50 Modules with a device plugin, 100 nodes, 3 kernels: until the last of 200 DaemonSets",
        run=_converge,
        go={"wall_s": 8.9, "cpu_s": 0.71, "peak_mib": 46, "requests": 258},
        reach={"wall_s": 1.3, "cpu_s": 0.9, "peak_mib": 70, "requests": 265},
    ),
    Scenario(
        name="upgrade",
        what="then a new kernel on one node: until the last of 50 new DaemonSets",
        run=_converge,
        go={"wall_s": 17.7, "cpu_s": 1.2, "requests": 303},
        reach={"wall_s": 0.8, "requests": 110},
    ),
    Scenario(
        name="existing",
        what="the same with `build` sections, 150 images existing in a registry",
        run=_named("existing", scenarios.existing),
        go={"wall_s": 8.8, "cpu_s": 0.8, "peak_mib": 46, "requests": 255, "to_registry": 312},
        reach={"wall_s": 2.0, "to_registry": 155, "to_registry_again": 0},
    ),
    Scenario(
        name="settle",
        what="10 Modules, 100 nodes, 2,000 pods: until every label and status is right and nothing moves",
        run=_named("settle", scenarios.settle),
        go={"wall_s": 103, "cpu_s": 15.1, "peak_mib": 84, "requests": 4421},
        reach={"over_floor": 1.3, "cpu_s": 6, "peak_mib": 85, "requests": 1200},
    ),
    Scenario(
        name="churn",
        what="1,000 nodes of 1 kB, 50 Modules, 100 updates of nodes a second, for a minute",
        run=_named("churn", scenarios.churn),
        go={"cpu_s_per_minute": 2.0, "rss_mib": 63, "peak_mib": 78, "requests": 0},
        reach={"cpu_s_per_minute": 1.2, "rss_mib": 62, "peak_mib": 72, "requests": 0},
    ),
    Scenario(
        name="churn-large",
        what="the same with nodes of 11 kB",
        run=_named("churn-large", scenarios.churn, large=True),
        go={},
        reach={"cpu_s_per_minute": 1.2, "rss_mib": 62, "peak_mib": 72, "requests": 0},
    ),
    Scenario(
        name="remember",
        what="5,000 nodes of 11 kB (beside it: a bare client-go informer)",
        run=_named("remember", scenarios.remember),
        go={"rss_mib": 89, "peak_mib": 220},
        reach={"rss_mib": 75, "peak_mib": 90},
    ),
    Scenario(
        name="label",
        what="1,000 nodes without our label: from leadership until the last is labelled",
        run=_named("label", scenarios.label),
        go={"wall_s": 49, "cpu_s": 2.2, "peak_mib": 65, "requests": 1032},
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


def told(figures: Mapping[str, float]) -> str:
    """Return figures for people."""
    shown = [f"{figures[key]:.4g} {unit}" for key, unit in UNITS.items() if key in figures]
    return ", ".join(shown)


def machine() -> dict[str, str]:
    """Return what the figures were measured with."""

    def said(*command: str) -> str:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        return ran.stdout.strip()

    versions = json.loads(said(str(binaries() / "kubectl"), "version", "--client", "-o", "json"))
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


def _tried(scenario: Scenario, other: Under) -> dict[str, Figures]:
    """Measure another operator, once; one that does not get there has no figures."""
    try:
        return measured(scenario, other, 1)
    except SystemExit as failed:
        print(f"\n{scenario.name}: the other operator does not get there: {failed}")
        return {}


def compare(
    chosen: list[Scenario], ours: Under, other: Under | None, repeat: int, commit: str
) -> list[dict[str, Any]]:
    """Measure; print and return a row for each scenario."""
    rows: list[dict[str, Any]] = []
    done: dict[str, tuple[Figures, Figures]] = {}
    for scenario in chosen:
        if scenario.name not in done:
            mine = measured(scenario, ours, repeat)
            theirs = _tried(scenario, other) if other else {}
            done |= {name: (mine[name], theirs.get(name, {})) for name in mine}
        mine_of, theirs_of = done[scenario.name]
        missed = {
            key: most for key, most in scenario.reach.items() if key in mine_of and round(mine_of[key], 2) > most
        }
        rows.append(
            {
                "name": scenario.name,
                "what": scenario.what,
                "ours": mine_of,
                "other": theirs_of,
                "go": dict(scenario.go),
                "reach": dict(scenario.reach),
                "missed": missed,
                "repeat": repeat,
                "commit": commit,
            }
        )
        print(f"\n{scenario.name}: {scenario.what}")
        print(f"  ours       {told(mine_of)}")
        if theirs_of:
            print(f"  the other  {told(theirs_of)}")
        if scenario.go:
            print(f"  Go v1.0    {told(scenario.go)}")
        print(f"  to reach   {told(scenario.reach)}{': missed: ' + told(missed) if missed else ''}", flush=True)
    return rows


def grow(ours: Under, only: list[str]) -> list[dict[str, Any]]:
    """Measure each scenario at 1, 3 and 10 times; print and return a row for each."""
    rows = []
    for name, of, run in GROWTH:
        if only and name not in only:
            continue
        figures = [run(ours, times) for times in TIMES]
        rows.append({"name": name, "of": of, "times": list(TIMES), "figures": figures})
        print(f"\n{name}, by {of}")
        for times, each in zip(TIMES, figures, strict=True):
            print(f"  {times:2} times   {told(each)}", flush=True)
    return rows


# ── Smoke ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def smoke(ours: Under) -> int:
    """Run small versions; return 1 where the requests, which are the same on any machine, are not as they must be."""
    converged, upgraded = scenarios.converge(ours, nodes=6, count=5, upgrades=2)
    checks = {
        # A DaemonSet for each kernel, one for the device plugin, one status.
        "converge: requests": (converged["requests"], 5 * (3 + 1 + 1)),
        "converge: DaemonSets too many": (converged["doubled"], 0),
        # A DaemonSet and a status for each Module, and the node's label.
        "upgrade: requests": (upgraded["last_requests"], 2 * 5 + 1),
    }
    existed = scenarios.existing(ours, nodes=6, count=5)
    checks |= {
        "existing: to the registry": (existed["to_registry"], 15),
        "existing: to the registry after a restart": (existed["to_registry_again"], 0),
        "existing: writes after a restart": (existed["writes_again"], 0),
    }
    churned = scenarios.churn(ours, nodes=20, count=3, seconds=5)
    checks["churn: requests"] = (churned["requests"], 0)
    labelled = scenarios.label(ours, nodes=50)
    checks["label: writes"] = (labelled["writes"], 50)
    failed = 0
    for what, (found, most) in checks.items():
        wrong = found > most
        failed += wrong
        print(f"{what}: {found:g}, at most {most}{'   <- TOO MANY' if wrong else ''}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return int(failed > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMAND", help="another operator's command line")
    parser.add_argument(
        "--only", nargs="+", default=[], choices=[each.name for each in SCENARIOS], metavar="SCENARIO"
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours, of which the median is told (3)")
    parser.add_argument(
        "--growth", action="store_true", help="measure at 1, 3 and 10 times the nodes and the Modules"
    )
    parser.add_argument("--smoke", action="store_true", help="small numbers, which fail on wrong counts")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks")
    said = parser.parse_args()
    ours = Under(command=OURS)
    if said.smoke:
        return smoke(ours)
    other = Under(command=said.against) if said.against else None
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    chosen = [each for each in SCENARIOS if not said.only or each.name in said.only]
    results: dict[str, Any] = {"with": about}
    if said.growth:
        results["growth"] = grow(ours, said.only)
    else:
        results["against"] = said.against or ""
        results["scenarios"] = compare(chosen, ours, other, said.repeat, about["commit"])
    if said.write:
        from report import write  # noqa: PLC0415 -- its charts are drawn with a library that measuring does without

        write(DOCUMENTS, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
