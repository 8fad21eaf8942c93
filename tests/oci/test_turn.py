from __future__ import annotations

import threading

import pytest

from kmm.oci.connection import Deadline
from kmm.oci.turn import Turns


def test_who_comes_second_waits_and_others_do_not():
    turns, order, inside = Turns(), [], threading.Event()

    def second():
        inside.set()
        with turns.take("a", Deadline(30)):
            order.append("second")

    with turns.take("a", Deadline(30)):
        thread = threading.Thread(target=second)
        thread.start()
        assert inside.wait(30)
        with turns.take("b", Deadline(30)):
            order.append("other")
        with pytest.raises(TimeoutError), turns.take("a", Deadline(0)):
            pass
        order.append("first")
    thread.join(30)
    assert order == ["other", "first", "second"]
    assert turns._turns == {}
