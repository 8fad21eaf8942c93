"""How often the same is written."""

from __future__ import annotations

from kmm.runtime.written import Written, written


def test_the_first_write_rests_as_long_as_is_asked():
    first = written(None, 100.0, 2.0)
    assert first == Written(at_s=100.0, rest_s=2.0)
    assert first.left_s(101.5) == 0.5
    assert first.left_s(102.0) <= 0


def test_what_is_written_as_soon_as_it_may_be_rests_longer_but_not_for_ever():
    now_s, last, writes = 0.0, None, 0
    while now_s < 30:
        last = written(last, now_s, 2.0)
        writes += 1
        now_s += last.rest_s
        assert last.rest_s <= 3.0
    assert writes == 11, "and not 15"


def test_after_a_while_it_is_as_quick_as_the_first_time():
    last = written(written(None, 0.0, 2.0), 2.0, 2.0)
    assert last.rest_s == 3.0
    assert written(last, 8.0, 2.0).rest_s == 2.0
