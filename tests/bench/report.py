"""The benchmark's results for people and as documents: tables, JSON and charts, each row with how it was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
# The charts of each document: their files, and what they show.
CHARTS = {
    "scenarios": {
        "wall_s": "seconds until done",
        "cpu_s": "seconds of CPU",
        "peak_mib": "MiB at most",
        "requests": "requests",
    },
    "growth": {"growth": "seconds until done"},
}
COLUMNS = {
    "wall_s": "wall (s)", "first_wall_s": "the first (s)", "last_wall_s": "the last (s)", "floor_s": "floor (s)",
    "over_floor": "times the floor", "cpu_s": "CPU (s)", "cpu_s_per_minute": "CPU (s a minute)",
    "rss_mib": "memory (MiB)", "peak_mib": "peak (MiB)", "requests": "requests", "first_requests": "of the first",
    "last_requests": "of the last", "refused": "refused", "events": "events", "at_once": "writes at once, at most",
    "to_registry": "to the registry", "to_registry_again": "to the registry after a restart",
    "other_p99_ms": "another client's p99 (ms)", "other_p99_ms_without": "the same without an operator (ms)",
    "other_requests": "requests of that client",
}  # fmt: skip
_COMMAND = ".venv/bin/python tests/bench/compare.py"
_INTRODUCTION = {
    "scenarios": f"""# Scenarios on a real control plane

All of it again, after `make setup`, with another operator in the same run where `--against COMMAND` starts one:

    {_COMMAND} --write

`make bench` prints the same, and writes nothing. [0010](../adr/0010-measured.md) tells where the figures come from.

Requests are those of the API server's audit log but for the Lease's, and times are its own. CPU and memory are those
of all processes of the operator. *Another client* is a process with a reader's rights and the priority that the
operator has too. All of them, and the control plane, share the machine's cores.
""",
    "growth": f"""# Growth

Each figure at 1, 3 and 10 times the nodes or Modules. *Over linear*: by how much more a figure grew than what there
is, at worst; above 1 is worse than linear. All of it again, after `make setup`:

    {_COMMAND} --growth --write
""",
}


def write(folder: Path, name: str, row: Row) -> None:
    """Write a row of "scenarios" or "growth"; the others, and what was not measured again of it, stay as they are."""
    import charts  # noqa: PLC0415 -- its library changes how Python imports, which is for who draws alone

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    rows = joined(json.loads(path.read_text()) if path.exists() else [], row)
    path.write_text(json.dumps(rows, indent=2) + "\n")
    (folder / f"{name}.md").write_text(document(name, rows))
    charts.draw(folder, name, rows)


def document(name: str, rows: Sequence[Row]) -> str:
    """Return what people read of the rows of "scenarios" or "growth"."""
    lines = [_INTRODUCTION[name], *(line for each in rows for line in TOLD[name](each))]
    return "\n".join(lines + [f"![{unit}]({file}.svg)\n" for file, unit in CHARTS[name].items()])


def joined(rows: Sequence[Row], row: Row) -> list[Row]:
    """Return the rows with this one in its place. It keeps what it does not say itself, such as another's figures."""
    by_key = {(each["name"], each.get("of")): each for each in rows}
    key = row["name"], row.get("of")
    by_key[key] = {**by_key.get(key, {}), **row}
    return list(by_key.values())


def section(row: Row) -> list[str]:
    """Return what a scenario's row says."""
    ours, other = row["ours"], row.get("other")
    figures = {"ours": ours["figures"]} | ({other["called"]: other["figures"]} if other else {}) | row["known"]
    shown = {name: each for name, each in figures.items() if each}
    cells = {name: {key: _shown(value) for key, value in each.items()} for name, each in shown.items()}
    if row["reach"]:
        cells["to reach"] = {key: f"≤ {_shown(most)}" for key, most in row["reach"].items()}
    lines = [f"## {row['name']}", "", f"{row['what'][0].upper()}{row['what'][1:]}.", "", *_table(cells)]
    if row["reach"]:
        over = ", ".join(f"{COLUMNS[key]} ≤ {most:g}" for key, most in missed(row).items())
        lines += ["", f"Missed: {over}." if over else "All reached."]
    lines += ["", f"Ours: {_measured(ours)}."]
    if other:
        failed = f": it did not get there ({other['failed']})" if other.get("failed") else ""
        lines += ["", f"{other['called']}: {_measured(other)}{failed}."]
    again = f"--only {row['name']} --repeat {ours['repeat']}{' --against COMMAND' if other else ''} --write"
    return [*lines, "", f"Again: `{_COMMAND} {again}`", ""]


def missed(row: Row) -> dict[str, float]:
    """Return what ours is to reach, and does not."""
    figures = row["ours"]["figures"]
    return {key: most for key, most in row["reach"].items() if key in figures and round(figures[key], 2) > most}


def _measured(part: Row) -> str:
    runs = "one run" if part["repeat"] == 1 else f"the median of {part['repeat']} runs"
    return f"{runs}, {_with(part)}"


def _with(part: Row) -> str:
    return ", ".join(f"{key} {value}" for key, value in part["with"].items())


def growth(row: Row) -> list[str]:
    """Return what a row of growth says."""
    cells = {
        f"{times} times": {key: _shown(value) for key, value in figures.items()}
        for times, figures in zip(row["times"], row["figures"], strict=True)
    }
    over = over_linear(row)
    cells["over linear"] = {key: _shown(value) for key, value in over.items()}
    worse = ", ".join(COLUMNS[key] for key in COLUMNS if round(over.get(key, 0), 2) > 1)
    return [
        *(f"## {row['name']}, by {row['of']}", "", *_table(cells), ""),
        *(f"Worse than linear: {worse}." if worse else "Nothing is worse than linear.", ""),
        *(f"One run each, {_with(row)}.", ""),
    ]


def over_linear(row: Row) -> dict[str, float]:
    """Return by how much more each figure grew than what there is, at worst."""
    first = row["figures"][0]
    return {
        key: max(
            _ratio(figures[key], first[key]) / (times / row["times"][0])
            for times, figures in zip(row["times"][1:], row["figures"][1:], strict=True)
        )
        for key in first
    }


def _ratio(now: float, before: float) -> float:
    return now / before if before else math.inf if now else 0.0


def _table(cells: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    columns = [key for key in COLUMNS if any(key in each for each in cells.values())]
    yield "| | " + " | ".join(COLUMNS[key] for key in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, each in cells.items():
        yield f"| {name} | " + " | ".join(each.get(key, "") for key in columns) + " |"


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if 100 <= figure < math.inf else f"{figure:.3g}"


TOLD: Mapping[str, Callable[[Row], list[str]]] = {"scenarios": section, "growth": growth}
