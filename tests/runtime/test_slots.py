"""How many builds run at once, and whose turn it is."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import replace

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, modules
from runtime.acted import HOST, build, for_two_architectures, over, spec
from runtime.conftest import CONFIG, NAMESPACE

from kmm.contract import ModuleRef
from kmm.core.view import Subject
from kmm.embedded.program import Exit, Run, idle
from kmm.runtime.slots import HELD_S, Slots

pytestmark = pytest.mark.embedded_only("what containers do is ended by the tests one by one, which kwok cannot")


class Taken:
    """Slots, and who has taken them."""

    def __init__(self, most: int, **taken: int) -> None:
        self.now_s = 0.0
        self.taken = Counter(taken)
        self.slots = Slots(most, self.taken.copy, threading.RLock(), lambda: self.now_s)

    def left(self, *names: str) -> list[int]:
        return [self.slots.left(subject(name)) for name in names]

    def wait(self, *names: str, had: int = 0) -> list[float | None]:
        return [self.slots.wait(subject(name), had) for name in names]

    def start(self, name: str, tasks: int = 1) -> bool:
        """Start tasks, as the controller does."""
        if not self.slots.reserve(subject(name), tasks, tasks):
            return False
        self.taken[name] += tasks
        self.slots.release(subject(name))
        return True

    def end(self, name: str) -> None:
        self.taken[name] -= 1


def subject(name: str, uid: str = "") -> Subject:
    return Subject(ref=ModuleRef(namespace="n", name=name), uid=uid or name)


def test_who_is_alone_has_all_that_are_free():
    taken = Taken(5, a=2)
    assert taken.left("a", "b") == [3, 3]
    taken.taken["a"] = 9
    assert taken.left("a") == [0], "there were more of them, before the configuration changed"


def test_a_free_slot_is_for_who_has_the_fewest_under_way():
    taken = Taken(5, a=3, c=1)
    taken.wait("a", "c", "b")
    assert taken.left("a", "b", "c", "new") == [0, 1, 0, 0]


def test_of_those_that_have_as_many_it_is_for_who_waits_longest():
    taken = Taken(1, x=1)
    taken.wait("a", "b", "c")
    taken.end("x")
    for first, second, third in ("abc", "bca", "cab", "abc"):
        assert taken.left(third, second, first) == [0, 0, 1]
        assert not taken.start(second)
        assert taken.start(first)
        taken.end(first)


def test_of_several_that_are_free_one_is_held_for_each_that_comes_first():
    taken = Taken(5, a=2)
    taken.wait("b")
    assert taken.left("a") == [2]
    taken.wait("c")
    assert taken.left("a") == [1]
    assert taken.left("b") == [2], "it may have those that nobody comes before it for"


def test_what_is_about_to_be_started_is_taken():
    taken = Taken(2)
    assert taken.slots.reserve(subject("a"), 2, 2)
    assert taken.left("b") == [0]
    assert not taken.start("b")
    taken.slots.release(subject("a"))
    assert taken.start("b")


def test_the_last_slot_may_be_for_an_attempt_at_several_and_others_wait_for_all_of_them():
    taken = Taken(2, x=1)
    assert taken.slots.reserve(subject("a"), 2, 1)
    taken.slots.release(subject("a"))
    taken.taken["a"] = 2
    assert not taken.slots.reserve(subject("b"), 2, 1), "others have taken it meanwhile"
    taken.end("x")
    assert taken.left("b") == [0]
    taken.end("a")
    assert taken.left("b") == [1]


def test_who_does_not_come_for_its_slot_is_passed_over_until_it_comes():
    taken = Taken(1)
    taken.wait("hangs")
    assert taken.left("b") == [0]
    taken.now_s = HELD_S - 1
    assert taken.left("b") == [0]
    taken.now_s = HELD_S
    assert taken.left("b") == [1]
    assert taken.left("hangs", "b") == [1, 0]


def test_who_waits_is_called_where_a_slot_is_free():
    taken = Taken(1, a=1)
    taken.wait("b")
    assert taken.slots.called() == []
    taken.end("a")
    assert taken.slots.called() == [subject("b").ref]
    assert taken.slots.leave(subject("b").ref)
    assert not taken.slots.leave(subject("b").ref)
    assert taken.slots.called() == []


def test_who_begins_to_wait_when_a_slot_has_become_free_comes_again_at_once():
    taken = Taken(1, a=1)
    assert taken.wait("b") == [None]
    taken.end("a")
    assert taken.wait("b") == [0.0]
    assert taken.wait("b", had=1) == [None], "it has one, and asks a registry before it takes it"
    assert taken.wait("c") == [HELD_S], "the one that is free is held for another"


def test_a_module_of_the_same_name_is_another_one():
    taken = Taken(2, old=1)
    for uid in ("old", "new"):
        taken.slots.wait(subject("m", uid), 0)
    taken.wait("x")
    assert taken.slots.left(subject("m", "new")) == 1
    assert taken.left("x") == [0]


# ── Beside a cluster ──────────────────────────────────────────────────────────────────────────────────────────


class Builds:
    """Containers that make images: each ends when it is told to. `begun`: what they make, in order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.most = 0
        self._running: dict[str, asyncio.Event] = {}
        self._all = False

    async def program(self, run: Run) -> Exit:
        if run.hook or run.container["name"] != "make":
            return await idle(run)
        image = run.container["args"][0].removeprefix(f"{HOST}/")
        ended = self._running[image] = asyncio.Event()
        self.begun.append(image)
        self.most = max(self.most, len(self._running))
        waits = [asyncio.create_task(each.wait()) for each in (ended, run.stopped)]
        try:
            if not self._all:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            del self._running[image]
            for each in waits:
                each.cancel()
        return Exit(code=143 if run.stopped.is_set() else 0)

    def running(self) -> list[str]:
        """Return what runs, the oldest first."""
        return list(self._running)

    def end(self, world, image: str = "") -> None:
        """End one, or all that run and all to come."""

        def tell() -> None:
            self._all = not image
            for each in [image] if image else list(self._running):
                self._running[each].set()

        world.cluster.call(tell)


@pytest.fixture
def builds() -> Builds:
    return Builds()


def post(world, name: str, kernels: str = ".*") -> None:
    """Make a Module that builds an image of its own for each kernel."""
    found = spec(**build())
    (mapping,) = found["moduleLoader"]["container"]["kernelMappings"]
    mapping |= {"containerImage": f"{HOST}/{name}:${{KERNEL_FULL_VERSION}}", "regexp": kernels}
    answer = world.api.post(modules(NAMESPACE), a_module(name, **found))
    assert answer.code == 201, answer.body


def queued(world, name: str) -> int:
    kernels = world.module(name).get("status", {}).get("kernels", ())
    return sum(each["reason"] == "BuildQueued" for each in kernels)


def test_a_module_of_fifty_kernels_keeps_no_other_one_waiting(made, builds):
    world = made(nodes=50, kernels=50, program=builds.program)
    post(world, "many")
    eventually(lambda: len(builds.running()) == 5)
    eventually(lambda: queued(world, "many") == 45)
    post(world, "one", "^6.7.0$")
    eventually(lambda: queued(world, "one") == 1)
    assert len(builds.begun) == 5
    builds.end(world, builds.running()[0])
    eventually(lambda: len(builds.begun) == 6)
    assert builds.begun[5] == "one:6.7.0"
    builds.end(world)
    eventually(lambda: world.ready("one"))
    eventually(lambda: world.ready("many"), "all are built", 120)
    assert sorted(builds.begun) == sorted({"one:6.7.0", *(f"many:6.{number}.0" for number in range(50))})
    assert builds.most == 5


def test_modules_of_many_kernels_take_turns(made, builds):
    world = made(nodes=6, kernels=6, program=builds.program, config=replace(CONFIG, max_builds=2))
    post(world, "a")
    eventually(lambda: len(builds.running()) == 2)
    for name in "bc":
        post(world, name)
        eventually(lambda name=name: queued(world, name) == 6)
    for count in range(3, 16):
        builds.end(world, builds.running()[0])
        eventually(lambda count=count: len(builds.begun) == count)
    assert "".join(each[0] for each in builds.begun) == "aab" + 4 * "acb"
    builds.end(world)
    for name in "abc":
        eventually(lambda name=name: world.ready(name))
    assert builds.most == 2


def test_a_build_for_several_architectures_holds_its_slots_until_all_of_it_has_ended(made, maker, builds):
    for_two_architectures(maker)
    world = made(program=builds.program, config=replace(CONFIG, max_builds=1))
    post(world, "a")
    eventually(lambda: len(builds.running()) == 2)
    post(world, "b")
    eventually(lambda: queued(world, "b") == 1)
    builds.end(world, builds.running()[0])
    eventually(lambda: sum(map(over, world.jobs())) == 1)
    world.quiet()
    assert queued(world, "b") == 1
    (left,) = builds.running()
    builds.end(world, left)
    eventually(lambda: [each[0] for each in builds.begun] == ["a", "a", "b", "b"])


def test_what_nobody_builds_any_more_keeps_no_slot(made, builds):
    world = made(nodes=2, kernels=2, program=builds.program, config=replace(CONFIG, max_builds=1))
    for name in "ab":
        post(world, name, "^6.0.0$")
        eventually(lambda name=name: world.kernel("6.0.0", name).get("reason") in ("Building", "BuildQueued"))
    post(world, "c", "^6.1.0$")
    eventually(lambda: queued(world, "c") == 1)
    for name in "ba":  # one that waits, and the one that builds
        assert world.api.delete(f"{modules(NAMESPACE)}/{name}").code == 200
    eventually(lambda: builds.running() == ["c:6.1.0"])
    assert "b:6.0.0" not in builds.begun


def test_a_module_whose_builds_the_api_server_refuses_holds_no_slot_back(made, maker, builds):
    rendered = maker.render

    def render(request):
        (job,) = rendered(request)
        if request.module.name == "refused":
            job["spec"]["backoffLimit"] = -1
        return [job]

    maker.render = render
    world = made(nodes=3, kernels=3, program=builds.program, config=replace(CONFIG, max_builds=1))
    builds.end(world)
    post(world, "refused")
    eventually(lambda: "WriteRefused" in world.events())
    post(world, "good")
    eventually(lambda: world.ready("good"))
    assert {each.split(":")[0] for each in builds.begun} == {"good"}
