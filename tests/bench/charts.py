"""The charts of the benchmark's documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pygal
from pygal.style import CleanStyle
from report import CHARTS, Row


def draw(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Draw the charts of the rows of "scenarios" or "growth"."""
    for file, unit in CHARTS[name].items():
        chart = _times(unit, rows) if name == "growth" else _bars(unit, _figures(file, rows), rows)
        chart.config.js = []  # a picture, not a program
        chart.config.pretty_print = True
        (folder / f"{file}.svg").write_bytes(chart.render(disable_xml_declaration=True).encode())


def _figures(key: str, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return one of the figures by whose it is, and by scenario."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        other = row.get("other") or {"called": "", "figures": {}}
        parts = {"ours": row["ours"]["figures"], other["called"]: other["figures"], **row["known"]}
        for who, figures in parts.items():
            if figures.get(key):
                found.setdefault(who, {})[row["name"]] = figures[key]
    return found


def _bars(unit: str, figures: Mapping[str, Mapping[str, float]], rows: Sequence[Row]) -> Any:
    names = [row["name"] for row in rows if any(row["name"] in each for each in figures.values())]
    chart = pygal.HorizontalBar(style=CleanStyle, title=unit, height=120 + 40 * len(names), logarithmic=True)
    chart.x_labels = names
    for who, each in figures.items():
        chart.add(who, [each.get(name) for name in names])
    return chart


def _times(unit: str, rows: Sequence[Row]) -> Any:
    chart = pygal.XY(style=CleanStyle, title=unit, logarithmic=True, x_title="times as much")
    for row in rows:
        if "wall_s" in row["figures"][0]:
            points = [(times, each["wall_s"]) for times, each in zip(row["times"], row["figures"], strict=True)]
            chart.add(f"{row['name']} by {row['of'].split()[-1]}", points)
    return chart
