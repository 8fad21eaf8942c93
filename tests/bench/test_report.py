"""What the benchmark's documents say of what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import report

DOCUMENTS = Path(__file__).parents[2] / "docs/benchmarks"


def a_part(commit, **figures):
    return {"with": {"commit": commit}, "repeat": 1, "figures": figures}


def a_row(**more):
    row = {"name": "converge", "what": "until all is there", "known": {}, "reach": {"wall_s": 1.0}}
    return row | {"ours": a_part("a", wall_s=2.0)} | more


def test_a_row_that_is_measured_again_keeps_what_was_seen_of_another_operator():
    other = {**a_part("a", wall_s=9.0), "called": "theirs"}
    before = [a_row(other=other), a_row(name="settle")]
    again, settle = report.joined(before, a_row(ours=a_part("b", wall_s=0.5)))
    assert again["ours"]["with"] == {"commit": "b"}
    assert again["other"] == other
    assert settle == before[1]
    text = report.section(again)
    assert "Ours: one run, commit b." in text
    assert "theirs: one run, commit a." in text


def test_what_is_missed_is_said():
    assert "Missed: wall (s) ≤ 1." in report.section(a_row())
    assert "All reached." in report.section(a_row(ours=a_part("a", wall_s=1.0)))


def test_an_operator_that_does_not_get_there_is_told_with_why():
    other = {**a_part("a"), "called": "theirs", "failed": "never: 200 DaemonSets"}
    assert "theirs: one run, commit a: it did not get there (never: 200 DaemonSets)." in report.section(
        a_row(other=other)
    )


@pytest.mark.parametrize(
    ("figures", "over", "said"),
    [
        ((1.0, 3.0, 10.0), 1.0, "Nothing is worse than linear."),
        ((1.0, 6.0, 10.0), 2.0, "Worse than linear: requests."),
        ((1.0, 3.0, 100.0), 10.0, "Worse than linear: requests."),
        ((0.0, 0.0, 0.0), 0.0, "Nothing is worse than linear."),
        ((0.0, 0.0, 1.0), math.inf, "Worse than linear: requests."),
    ],
)
def test_what_grows_by_more_than_what_there_is_is_said(figures, over, said):
    rows = [{"requests": each} for each in figures]
    row = {"name": "converge", "of": "50 Modules", "with": {}, "times": [1, 3, 10], "figures": rows}
    assert report.over_linear(row) == {"requests": over}
    assert said in report.growth(row)


@pytest.mark.parametrize("name", ["scenarios", "growth"])
def test_the_documents_say_what_was_measured(name):
    rows = json.loads((DOCUMENTS / f"{name}.json").read_text())
    assert (DOCUMENTS / f"{name}.md").read_text() == report.document(name, rows)
