"""A Module that is deleted while its images are made: nothing of it is left, and nothing is made any more."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from apiserver.client import eventually
from apiserver.samples import modules
from runtime.acted import attempts, build, change, dockerfile, nothing_left, post, sign, state
from runtime.conftest import ALONE, CONFIG, NAMESPACE

from kmm.embedded.fault import Fault, Kind

PATH = f"{modules(NAMESPACE)}/m"
STAGES = {
    "it is built": (build("run"), ("Building", 0)),
    "its build has failed": (build("fail"), ("BuildFailed", 1)),
    "it is signed": ({**build(), **sign("run")}, ("Signing", 0)),
    "its signature has failed": ({**build(), **sign("fail")}, ("SignFailed", 1)),
}


def made_since(world, mark):
    """Return what the operator has made or changed, but for events."""
    return {
        key
        for key in world.asked(mark)
        if key[0] not in ("get", "list", "watch") and key[1] not in ("events", "nodes")
    }


@pytest.fixture(params=STAGES)
def under_way(request, made, registry):
    """Make a world with a Module whose image is not there yet."""
    mapping, reached = STAGES[request.param]
    world = made()
    post(world, **mapping)
    eventually(lambda: state(world) == reached)
    world.quiet()
    return world


def test_a_module_that_is_deleted_while_its_image_is_made_leaves_nothing(under_way, registry):
    world = under_way
    mark, asked = world.mark(), len(registry.asked)
    assert world.api.delete(PATH).code == 200
    eventually(lambda: nothing_left(world) and not world.pods())
    eventually(lambda: not world.apps[0].cluster.modules.items())
    dockerfile(world, "FROM other")
    world.quiet()
    # The status may be written until it is gone: a server's controllers tell of a Job when they come to it.
    assert made_since(world, mark) <= {("patch", "modules")}
    assert len(registry.asked) == asked
    assert not world.sets()


def test_nothing_is_made_for_a_module_on_its_way_out(under_way, monkeypatch):
    world = under_way
    assert world.api.patch(PATH, {"metadata": {"finalizers": ["example.com/hold"]}}).code == 200
    world.quiet()
    before = {each["metadata"]["uid"] for each in world.jobs()}
    assert world.api.delete(PATH).code == 200
    (seen,) = world.apps[0].cluster.modules.items()
    eventually(lambda: world.apps[0].cluster.subject(*seen.key).deleting)
    mark = world.mark()
    monkeypatch.setattr("kmm.core.images.back_off_s", lambda attempt: 0.0)
    dockerfile(world, "FROM other")
    world.quiet()
    assert not made_since(world, mark)
    assert {each["metadata"]["uid"] for each in world.jobs()} == before
    assert world.api.patch(PATH, {"metadata": {"finalizers": None}}).code == 200
    eventually(lambda: nothing_left(world) and not world.pods())


def test_a_module_of_the_same_name_begins_anew(under_way, registry):
    world = under_way
    assert world.api.delete(PATH).code == 200
    eventually(lambda: nothing_left(world) and not world.pods())
    post(world, **build("run"))
    eventually(lambda: state(world) == ("Building", 0))
    assert attempts(world) == ["1"]
    change(world, **build())
    eventually(world.ready)
    eventually(lambda: nothing_left(world))


def test_one_that_waits_for_its_turn_leaves_nothing(made, registry):
    world = made(config=replace(CONFIG, max_builds=1), kernels=2)
    post(world, **build("run"))
    eventually(lambda: world.reasons() == {"Building", "BuildQueued"})
    assert world.api.delete(PATH).code == 200
    eventually(lambda: nothing_left(world) and not world.pods())
    world.quiet()
    assert not world.jobs()
    assert not registry.pushed


def test_what_is_deleted_while_no_operator_runs_is_not_missed_by_the_next_one(under_way, registry):
    world = under_way
    world.apps[0].stop()
    assert world.api.delete(PATH).code == 200
    eventually(lambda: nothing_left(world) and not world.pods())
    mark, asked = world.mark(), len(registry.asked)
    world.operator(ALONE)
    eventually(lambda: not world.apps[-1].cluster.unsynced())
    world.quiet()
    assert not made_since(world, mark)
    assert len(registry.asked) == asked


@pytest.mark.embedded_only("faults are made in the embedded server")
def test_a_build_that_is_created_after_its_module_has_gone_goes_too(made, registry):
    world = made()
    fault = Fault(kind=Kind.DELAY, verbs=("create",), resource="jobs", user=world.user, delay_s=1)
    world.cluster.faults.add(fault)
    mark = world.mark()
    post(world, **build("run"))
    eventually(lambda: fault.struck)
    assert world.api.delete(PATH).code == 200
    eventually(lambda: ("create", "jobs") in world.asked(mark), "it was on its way")
    eventually(lambda: nothing_left(world) and not world.pods())
    world.quiet()
    assert not world.jobs()


@pytest.mark.embedded_only("faults are made in the embedded server")
def test_a_module_whose_end_is_told_late_is_not_built_again(made, registry):
    world = made()
    world.cluster.faults.add(Fault(kind=Kind.LAG, verbs=("watch",), resource="modules", delay_s=2, times=None))
    post(world, **build("run"))
    eventually(lambda: state(world) == ("Building", 0))
    mark = world.mark()
    assert world.api.delete(PATH).code == 200
    eventually(lambda: nothing_left(world) and not world.pods())
    eventually(lambda: not world.apps[0].cluster.modules.items(), "its end is told")
    world.quiet()
    assert ("create", "jobs") not in world.asked(mark)


@pytest.mark.embedded_only("the registry waits in this process")
def test_an_answer_that_comes_after_its_module_has_gone_starts_nothing(made, registry):
    world = made()
    answers, inspect = threading.Event(), registry.inspect

    def late(*question, **more):
        assert answers.wait(60)
        return inspect(*question, **more)

    asked = threading.Event()
    registry.inspect = lambda *question, **more: (asked.set(), late(*question, **more))[1]
    mark = world.mark()
    post(world, **build())
    assert asked.wait(60)
    assert world.api.delete(PATH).code == 200
    eventually(lambda: not world.apps[0].cluster.modules.items())
    answers.set()
    world.quiet()
    assert ("create", "jobs") not in world.asked(mark)
    assert not world.pods()
