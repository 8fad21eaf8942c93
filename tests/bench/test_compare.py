"""What the benchmark's command line takes, and what fails the small one."""

from __future__ import annotations

import pytest
from compare import GROWTH, SCENARIOS, _parser, checked, wrong
from scenarios import p99


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--repeat", "0"], "at least 1"),
        (["--growth", "--only", "churn-large"], "--growth has no churn-large"),
        (["--growth", "--against", "sh"], "--growth has no --against"),
        (["--growth", "--repeat", "1"], "--growth has no --repeat"),
        (["--smoke", "--only", "churn"], "--smoke has no --only"),
        (["--smoke", "--write"], "--smoke has no --write"),
        (["--smoke", "--growth"], "--smoke has no --growth"),
        (["--against", "/no/such/operator --fast"], "there is no program /no/such/operator"),
        (["--against", "sh 'unclosed"], "No closing quotation"),
        (["--against", ""], "there is no program"),
        (["--called", "theirs"], "--against"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(words, said):
    with pytest.raises(ValueError, match=said):
        checked(_parser().parse_args(words))


def test_a_command_is_its_words():
    assert checked(_parser().parse_args(["--against", "sh -c 'exec x'"])) == ["sh", "-c", "exec x"]
    assert checked(_parser().parse_args([])) == []


def test_what_grows_is_a_scenario():
    assert {name for name, *_ in GROWTH} <= {each.name for each in SCENARIOS}


def test_too_few_requests_are_as_wrong_as_too_many():
    assert wrong({"right": (5, 5, 5), "between": (6, 5, 7)}) == []
    assert wrong({"few": (4, 5, 5), "many": (8, 5, 7)}) == ["few: 4, not 5", "many: 8, not 5 to 7"]


def test_a_hundred_answers_have_a_99th_and_fewer_have_none():
    assert p99(range(101)) == 99
    with pytest.raises(SystemExit, match="99 answers are too few"):
        p99(range(99))
