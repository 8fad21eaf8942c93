"""The benchmark's results as documents: a table, JSON and charts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pygal
from pygal.style import CleanStyle

# What a chart compares: its unit, and the figure.
CHARTS = {
    "wall_s": "seconds until done",
    "cpu_s": "seconds of CPU",
    "peak_mib": "MiB at most",
    "requests": "requests",
}
COLUMNS = {
    "wall_s": "wall (s)", "cpu_s": "CPU (s)", "cpu_s_per_minute": "CPU (s a minute)", "rss_mib": "memory (MiB)",
    "peak_mib": "peak (MiB)", "requests": "requests", "events": "events", "to_registry": "to the registry",
    "to_registry_again": "to the registry after a restart", "over_floor": "times the floor",
    "other_p99_ms": "another client's p99 (ms)", "other_p99_ms_without": "the same without us (ms)",
}  # fmt: skip
_REPEAT = "python tests/bench/compare.py"


def write(folder: Path, results: Mapping[str, Any]) -> None:
    """Write one kind of results, scenarios or growth; what was not measured again stays as it was written before."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "growth" if "growth" in results else "scenarios"
    path = folder / f"{name}.json"
    before = json.loads(path.read_text())[name] if path.exists() else []
    results = {**results, name: _joined(before, results[name])}
    path.write_text(json.dumps(results, indent=2) + "\n")
    text = _growth(folder, results) if name == "growth" else _scenarios(folder, results)
    (folder / f"{name}.md").write_text(text)


def _joined(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of both, the later ones in place of the earlier."""
    rows = {(each["name"], each.get("of")): each for each in (*before, *now)}
    return list(rows.values())


def _about(results: Mapping[str, Any], repeat: str) -> list[str]:
    said = ", ".join(f"{key} {value}" for key, value in results["with"].items())
    return [f"Measured with: {said}.", "", f"Again: `make setup && .venv/bin/{repeat} --write`", ""]


def _scenarios(folder: Path, results: Mapping[str, Any]) -> str:
    rows = results["scenarios"]
    against = results["against"]
    title = "# Scenarios on a real control plane"
    lines = [title, "", *_about(results, _REPEAT)]
    for row in rows:
        who = {"ours": row["ours"], "the other, beside it": row["other"], "Go operator 1.0": row["go"]}
        shown = {name: figures for name, figures in who.items() if figures} | {"to reach": row["reach"]}
        columns = [key for key in COLUMNS if any(key in figures for figures in shown.values())]
        lines += [f"## {row['name']}", "", row["what"][0].upper() + row["what"][1:] + ".", ""]
        runs = "one run" if row["repeat"] == 1 else f"the median of {row['repeat']} runs"
        lines += [f"Ours: {runs} at commit {row['commit']}.", ""]
        lines += ["| | " + " | ".join(COLUMNS[key] for key in columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for name, figures in shown.items():
            cells = [_shown(figures[key]) if key in figures else "" for key in columns]
            if name == "to reach":
                cells = [f"≤ {cell}" if cell else "" for cell in cells]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        missed = ", ".join(f"{COLUMNS.get(key, key)} ≤ {most:g}" for key, most in row["missed"].items())
        lines += ["", f"Missed: {missed}." if missed else "All reached.", ""]
    names = [row["name"] for row in rows]
    for key, unit in CHARTS.items():
        chart = pygal.HorizontalBar(style=CleanStyle, title=unit, height=120 + 40 * len(names), logarithmic=True)
        chart.x_labels = names
        for name, part in (("ours", "ours"), ("the other", "other"), ("Go operator 1.0", "go")):
            if any(row[part] for row in rows):
                chart.add(name, [row[part].get(key) or None for row in rows])
        _draw(chart, folder / f"{key}.svg")
        lines += [f"![{unit}]({key}.svg)", ""]
    if against:
        lines += [
            "The other operator was measured by `--against COMMAND`: one run on the same machine.",
            "",
        ]
    return "\n".join(lines)


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _growth(folder: Path, results: Mapping[str, Any]) -> str:
    lines = ["# Growth", "", *_about(results, f"{_REPEAT} --growth")]
    for row in results["growth"]:
        columns = [key for key in COLUMNS if key in row["figures"][0]]
        lines += [f"## {row['name']}, by {row['of']}", ""]
        lines += ["| | " + " | ".join(COLUMNS[key] for key in columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for times, figures in zip(row["times"], row["figures"], strict=True):
            lines.append(f"| {times} times | " + " | ".join(_shown(figures[key]) for key in columns) + " |")
        lines.append("")
    chart = pygal.XY(style=CleanStyle, title="seconds until done", logarithmic=True, x_title="times as much")
    for row in results["growth"]:
        if "wall_s" in row["figures"][0] and row["name"] != "churn":
            points: Sequence[tuple[float, float]] = [
                (times, figures["wall_s"]) for times, figures in zip(row["times"], row["figures"], strict=True)
            ]
            chart.add(f"{row['name']} by {row['of'].split()[-1]}", points)
    _draw(chart, folder / "growth.svg")
    return "\n".join([*lines, "![seconds until done](growth.svg)", ""])


def _draw(chart: Any, path: Path) -> None:
    chart.config.js = []  # a picture, not a program
    chart.config.pretty_print = True
    path.write_bytes(chart.render(disable_xml_declaration=True).encode())
