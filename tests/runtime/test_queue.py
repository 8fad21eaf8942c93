from __future__ import annotations

import itertools
import threading
import time

import pytest
from apiserver.client import eventually

from kmm.runtime.queue import Queue


@pytest.fixture
def queue():
    made = Queue()
    yield made
    made.close()


def test_a_key_is_served_once_however_often_it_is_wanted(queue):
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert [queue.take(), queue.take()] == ["a", "b"]
    assert queue.depth() == 2
    queue.done("a")
    queue.done("b")
    assert queue.depth() == 0


def test_a_key_is_never_worked_on_twice_at_once(queue):
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    queue.add("b")
    assert queue.take() == "b", "a is under way"
    queue.done("a")
    assert queue.take() == "a", "it was wanted again"


def test_nodes_are_served_before_modules(queue):
    queue.add("module", 1)
    queue.add("node", 0)
    assert [queue.take(), queue.take()] == ["node", "module"]


def test_a_delayed_key_comes_when_it_is_due_and_the_earlier_wish_counts(queue):
    queue.add_after("a", 60)
    queue.add_after("a", 0.02)
    queue.add_after("a", 30)
    began = time.monotonic()
    assert queue.take() == "a"
    assert time.monotonic() - began >= 0.02
    queue.done("a")
    assert queue.depth() == 0


def test_a_key_that_is_wanted_now_does_not_wait(queue):
    queue.add_after("a", 60)
    queue.add("a")
    assert queue.take() == "a"


def test_who_is_busy_keeps_no_due_key_waiting():
    queue = Queue()
    served, over = [], threading.Event()

    def work():
        while (key := queue.take()) is not None:
            served.append(key)
            if key == "slow":
                over.wait(30)
            queue.done(key)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    eventually(lambda: len(queue._changed._waiters) == 2, "both wait")
    queue.add_after("slow", 0.1)
    queue.add_after("a", 0.2)
    eventually(lambda: served == ["slow", "a"], "before the slow one is over", within_s=15)
    over.set()
    queue.close()
    for worker in workers:
        worker.join(10)


def test_failures_in_a_row_are_served_later_and_later(queue):
    delays = [queue.back_off("a") for _ in range(12)]
    assert delays[0] < 0.1
    assert all(later > earlier * 1.2 for earlier, later in itertools.pairwise(delays[:9]))
    assert max(delays) <= 72
    queue.succeeded("a")
    assert queue.back_off("a") < 0.1
    assert queue.back_off("b", least_s=7) == 7


def test_keys_of_one_group_hold_at_most_so_many_workers():
    queue = Queue(group_of=lambda key: "vendor" if key.startswith("v") else "", most=1)
    for key in ("v1", "v2", "ours"):
        queue.add(key)
    assert [queue.take(), queue.take()] == ["v1", "ours"]
    found = []
    taker = threading.Thread(target=lambda: found.append(queue.take()))
    taker.start()
    queue.done("v1")
    taker.join(60)
    assert found == ["v2"]
    queue.close()


def test_a_closed_queue_lets_everybody_go(queue):
    found = []
    takers = [threading.Thread(target=lambda: found.append(queue.take())) for _ in range(3)]
    for taker in takers:
        taker.start()
    queue.close()
    for taker in takers:
        taker.join(60)
    assert found == [None, None, None]
    assert queue.take() is None


def test_under_load_nothing_is_lost_and_nothing_runs_twice_at_once():
    queue = Queue()
    working, twice, served = set(), [], []
    lock = threading.Lock()

    def work():
        while (key := queue.take()) is not None:
            with lock:
                if key in working:
                    twice.append(key)
                working.add(key)
            time.sleep(0.0002)
            with lock:
                working.discard(key)
                served.append(key)
            queue.done(key)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for number in range(2000):
        queue.add(number % 40)
        if number % 7 == 0:
            queue.add_after(number % 40, 0.001)
    until = time.monotonic() + 60
    while queue.depth() and time.monotonic() < until:
        time.sleep(0.01)
    queue.close()
    for worker in workers:
        worker.join(60)
    assert not twice
    assert set(served) == set(range(40))
