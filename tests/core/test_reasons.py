"""The vocabulary: whole, and nothing said that is not in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmm.core.reasons import About, Reason, reason_of

PACKAGE = Path(__file__).parents[2] / "kmm"
SOURCES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in ("embedded", "demo") and path.name != "reasons.py"
]
# The words of others, which stand beside ours: an AdmissionReview's status, the API server's own, and a kubelet's.
OF_OTHERS = {"kmm/admission.py", "kmm/runtime/transport.py", "kmm/conformance/samples.py"}


def trees() -> Iterator[tuple[str, ast.AST]]:
    for path in SOURCES:
        yield str(path.relative_to(PACKAGE.parent)), ast.parse(path.read_text())


def used() -> set[str]:
    """Return the names of the members that the code names."""
    return {
        node.attr
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }


def written() -> Iterator[tuple[str, str]]:
    """Yield each word in PascalCase that the code gives as a reason without naming a member."""
    for path, tree in trees():
        if path in OF_OTHERS:
            continue
        for node in ast.walk(tree):
            given: list[ast.expr] = []
            if isinstance(node, ast.keyword) and node.arg == "reason":
                given = [node.value]
            elif isinstance(node, ast.Dict):
                keys = zip(node.keys, node.values, strict=True)
                given = [value for key, value in keys if isinstance(key, ast.Constant) and key.value == "reason"]
            for each in given:
                if isinstance(each, ast.Constant) and re.fullmatch(r"([A-Z][a-z]+)+", str(each.value)):
                    yield path, str(each.value)


def test_none_is_without_use():
    # What the catalog says stands below the core, which it cannot import: there it is a plain word.
    words = {word for _, word in written()}
    assert {each.name for each in Reason} - used() - {each.name for each in Reason if each in words} == set()


def test_every_reason_that_is_given_is_in_the_vocabulary():
    assert used() <= {each.name for each in Reason} | {each for each in dir(Reason) if each.startswith("_")}
    assert [(path, word) for path, word in written() if reason_of(word) is None] == []


@pytest.mark.parametrize("reason", Reason, ids=str)
def test_each_says_what_it_means_why_it_comes_to_be_and_what_to_do(reason):
    assert re.fullmatch(r"([A-Z][a-z]+)+", reason), "one word, as Kubernetes wants it"
    assert reason.about in About
    for text in (reason.meaning, reason.cause, reason.remedy):
        assert text == "" or (text.isprintable() and text.endswith(".")), text
        assert len(text) <= 300, "read at night"
        assert text.count("`") % 2 == 0
    assert reason.meaning
    assert reason.cause
    assert str(reason) == reason.value


def test_no_word_is_used_twice():
    assert len({each.value for each in Reason}) == len(Reason.__members__)


def test_a_word_of_others_is_none_of_ours():
    assert reason_of("KeyRejected") is Reason.KEY_REJECTED
    assert [reason_of(each) for each in ("Settled", "", None, 5, ["KeyRejected"])] == [None] * 5
