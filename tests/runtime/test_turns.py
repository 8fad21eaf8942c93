from __future__ import annotations

from kmm.runtime.turns import Turns

A, B = frozenset({"a"}), frozenset({"b"})


def test_a_turn_is_one_modules_until_it_gives_it_back():
    turns = Turns()
    assert turns.take("1", A)
    assert not turns.take("2", A | B)
    assert turns.taken("2") == A
    assert turns.taken("1") == frozenset(), "its own keeps nobody out"
    assert turns.take("2", B), "none was taken of those that were refused together"
    turns.release("1")
    turns.release("1")
    assert turns.take("3", A)


def test_who_waits_is_called_until_it_leaves():
    turns = Turns()
    turns.wait("x")
    turns.wait("x")
    assert turns.called() == ["x"]
    assert turns.called() == ["x"]
    turns.leave("x")
    turns.leave("x")
    assert turns.called() == []
