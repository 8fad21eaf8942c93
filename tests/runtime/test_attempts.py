"""Attempts, delays and reasons: they are in the cluster, so that a restart of the operator loses none."""

from __future__ import annotations

import threading
from datetime import datetime

import pytest
from apiserver.client import eventually
from runtime.acted import IMAGE, TEMPORARY, P, attempts, build, change, nothing_left, post, sign, state
from runtime.conftest import ALONE

from kmm.runtime.transport import Unreachable

NEVER = 1e6
SIGNED = {**build(), **sign("fail")}
WAYS = {
    "a build that fails": (build("fail"), "BuildFailed"),
    "a signature that fails": (SIGNED, "SignFailed"),
    "what is built but not found": (build(), "BuiltButNotFound"),
}


@pytest.fixture
def delays(monkeypatch) -> dict[int, float]:
    """Return how long after each attempt the next one is due: never, until a test says so."""
    found = dict.fromkeys(range(1, 9), NEVER)
    monkeypatch.setattr("kmm.core.images.back_off_s", found.__getitem__)
    return found


@pytest.fixture(params=WAYS)
def failing(request, made, registry):
    """Make a world in which the first attempt has come to nothing."""

    def make(**options):
        mapping, reason = WAYS[request.param]
        world = made(**options)
        registry.loses = reason == "BuiltButNotFound"
        post(world, **mapping)
        eventually(lambda: state(world) == (reason, 1))
        return world, reason

    return make


def restart(world):
    world.apps[-1].stop()
    world.operator(ALONE)


def jobs_of(world, reason):
    """Return the Jobs of what fails, beside that which the build before it has left."""
    kind = "sign" if reason == "SignFailed" else "build"
    return [each["metadata"] for each in world.jobs() if each["metadata"]["labels"][f"{P}job-type"] == kind]


def counted(world, reason):
    return sorted(int(each["annotations"][f"{P}attempt"]) for each in jobs_of(world, reason))


def test_what_has_failed_is_told_and_waited_for_in_the_same_way_after_a_restart(delays, failing):
    world, reason = failing()
    world.quiet()
    told, before = world.module()["status"], world.mark()
    assert world.kernel("6.0.0")["message"]
    restart(world)
    world.quiet()
    assert world.module()["status"] == told
    assert counted(world, reason) == [1]
    assert {verb for verb, _ in world.asked(before)} <= {"get", "list", "watch"}


def test_attempts_are_counted_on_after_a_restart(delays, failing):
    world, reason = failing()
    for attempt in (1, 2):
        world.apps[-1].stop()
        delays[attempt] = 0.0
        world.operator(ALONE)
        eventually(lambda attempt=attempt: state(world) == (reason, attempt + 1))
        eventually(lambda attempt=attempt: counted(world, reason) == [attempt + 1], "the one before goes")
    world.quiet()
    assert counted(world, reason) == [3]


def test_the_next_attempt_is_due_by_when_the_last_one_ended(delays, failing):
    world, reason = failing()
    ended = datetime.fromisoformat(world.kernel("6.0.0")["lastFailureTime"])
    world.apps[-1].stop()
    delays[1] = 4.0
    world.operator(ALONE)
    eventually(lambda: counted(world, reason) == [2])
    (second,) = jobs_of(world, reason)
    begun = datetime.fromisoformat(second["creationTimestamp"])
    assert (begun - ended).total_seconds() >= 3, "to the second below"


@pytest.mark.embedded_only("it dies in this process")
def test_one_that_dies_between_two_attempts_loses_no_count(delays, failing):
    world, reason = failing()
    world.apps[-1].stop()
    delays[1] = 0.0
    dead = threading.Event()

    def dies(method, path):
        if dead.is_set() or method == "DELETE":
            dead.set()
            raise Unreachable("it is dead")

    app = world.operator(ALONE, start=False)
    app.transport.sent = dies
    app.start()
    eventually(dead.is_set)
    app.stop()
    assert counted(world, reason) == [1, 2], "the next one is made first"
    world.operator(ALONE)
    eventually(lambda: counted(world, reason) == [2])
    eventually(lambda: state(world) == (reason, 2))
    world.quiet()
    assert counted(world, reason) == [2]


def test_what_works_at_last_is_loaded_and_nothing_of_it_is_left(delays, made, registry):
    world = made()
    post(world, **build("fail"))
    eventually(lambda: state(world) == ("BuildFailed", 1))
    delays[1] = 0.0
    restart(world)
    eventually(lambda: attempts(world) == ["2"])
    eventually(lambda: state(world) == ("BuildFailed", 2))
    change(world, **build())
    eventually(world.ready)
    eventually(lambda: nothing_left(world))
    assert "attempts" not in world.kernel("6.0.0")


def test_what_somebody_pushes_after_a_failure_is_loaded_and_not_built_again(delays, made, registry):
    world = made()
    post(world, **build("fail"))
    eventually(lambda: state(world) == ("BuildFailed", 1))
    registry.images[IMAGE] = {}
    mark = world.mark()
    delays[1] = 0.0
    restart(world)
    eventually(world.ready)
    eventually(lambda: nothing_left(world))
    assert ("create", "jobs") not in world.asked(mark)


def test_a_signature_that_fails_never_starts_a_build(delays, made, registry):
    world = made()
    post(world, **SIGNED)
    eventually(lambda: state(world) == ("SignFailed", 1))
    registry.images.pop(TEMPORARY)
    delays |= {1: 0.0, 2: 0.0}
    restart(world)
    eventually(lambda: state(world) == ("SignFailed", 3))
    world.quiet()
    assert [each["annotations"][f"{P}attempt"] for each in jobs_of(world, "BuildFailed")] == ["1"]
    begun = [each for each in world.entries() if (each.verb, each.resource, each.code) == ("create", "jobs", 201)]
    assert len(begun) == 4
    assert registry.pushed == [TEMPORARY]
