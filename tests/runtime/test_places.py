"""Signatures that are made in the operator's namespace, and that read a Secret alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from apiserver.client import eventually
from apiserver.samples import a_job, a_module, core, jobs, modules
from runtime import acted
from runtime.acted import HOST, Maker, P, over, secret, sign, spec
from runtime.conftest import ALONE, NAMESPACE

from kmm.contract import Place, Progress, State
from kmm.embedded.fault import Fault, Kind

PIN = "the-pin-of-nobody"


class Placed(Maker):
    """A maker whose signatures read the Secret `pin` alone, with `params.operators` in the operator's namespace.

    `final`: they fail for good.
    """

    final = False

    def place(self, module, params):
        if params.get("outcome") == "forbidden":
            raise ValueError(f"{module.namespace} may not use it")
        return Place(operators=params.get("operators", False), secrets=("pin",), alone="pin")

    def observe(self, objects, pods):
        found = super().observe(objects, pods)
        return Progress(state=found.state, message=found.message, final=self.final and found.state is State.FAILED)


@pytest.fixture
def maker():
    return Placed()


def post(world, namespace, name="m", outcome="", **mapping):
    """Make a Module whose image is signed with the operator's Secret."""
    how = sign(unsignedImage=f"{HOST}/unsigned:1", params={"outcome": outcome, "operators": True})
    del how["sign"]["keySecret"], how["sign"]["certSecret"]
    image = f"{HOST}/{name}:${{KERNEL_FULL_VERSION}}"
    body = a_module(name, **spec(containerImage=image, **how, **mapping))
    assert world.api.post(modules(namespace), body).code == 201


@pytest.fixture
def placed(made):
    """Make a world with a Secret in the operator's namespace, and a namespace for Modules."""

    def make(**options):
        world = made(**options)
        secret(world, "pin", {"pin": PIN})
        return world, world.namespace(**{"pod-security.kubernetes.io/enforce": "privileged"})

    return make


def reason(world, namespace, name="m"):
    return world.reasons(name, namespace)


def message(world, namespace, name="m"):
    (found,) = world.module(name, namespace)["status"]["kernels"]
    return found["message"]


def module_of(job):
    return job["metadata"]["labels"][f"{P}module.name"]


def test_a_module_of_another_namespace_is_signed_in_the_operators_and_loaded_in_its_own(placed, maker, registry):
    world, drivers = placed()
    post(world, drivers, outcome="run")
    (job,) = eventually(world.jobs)
    meta = job["metadata"]
    assert "ownerReferences" not in meta, "the garbage collector would take it for an orphan"
    assert meta["labels"][f"{P}module.namespace"] == drivers
    assert meta["annotations"][f"{P}module-uid"] == world.module("m", drivers)["metadata"]["uid"]
    assert not world.jobs(drivers)
    request = maker.requests[-1]
    assert (request.push_secret, request.pull_secrets) == (None, ())
    finish_the_job(world)
    eventually(lambda: world.ready("m", drivers))
    assert registry.pushed == [f"{HOST}/m:6.0.0"]
    eventually(lambda: not world.jobs(), "the task is gone")
    eventually(lambda: not world.pods(), "and its pod")
    assert world.loaders(drivers)
    world.quiet()


def test_what_a_module_leaves_elsewhere_goes_when_it_does(placed):
    world, drivers = placed()
    post(world, drivers, outcome="run")
    eventually(world.jobs)
    assert world.api.delete(f"{modules(drivers)}/m").code == 200
    world.quiet()
    finish_the_job(world)  # what reads a Secret alone is let end
    eventually(lambda: not world.jobs())
    eventually(lambda: not world.pods())


def test_what_a_module_left_elsewhere_while_nobody_looked_is_found_later(placed):
    world, drivers = placed()
    post(world, drivers, outcome="run")
    eventually(world.jobs)
    world.stop()
    assert world.api.delete(f"{modules(drivers)}/m").code == 200
    eventually(lambda: world.api.get(f"{modules(drivers)}/m").code == 404)
    assert world.jobs()
    world.operator(ALONE)
    finish_the_job(world)
    eventually(lambda: not world.jobs())


def test_a_wrong_pin_is_remembered_after_its_module(placed, maker):
    world, drivers = placed()
    maker.final = True
    post(world, drivers, outcome="fail")
    eventually(lambda: reason(world, drivers) == {"SignFailed"})
    assert world.api.delete(f"{modules(drivers)}/m").code == 200
    eventually(lambda: world.api.get(f"{modules(drivers)}/m").code == 404)
    post(world, drivers)
    eventually(lambda: reason(world, drivers) == {"SignFailed"})
    assert "another sign has failed for good" in message(world, drivers)
    (kept,) = world.jobs()
    assert over(kept, "Failed")
    secret(world, "pin", {"pin": "another-pin"})
    eventually(lambda: world.ready("m", drivers))
    eventually(lambda: not world.jobs(), "what remembered it is gone")


def test_a_wrong_pin_that_nothing_refers_to_any_more_is_forgotten_once_its_secret_is_gone(placed, maker):
    world, drivers = placed(operated=replace(ALONE, pace=replace(ALONE.pace, kept_s=0.1)))
    maker.final = True
    post(world, drivers, outcome="fail")
    eventually(lambda: reason(world, drivers) == {"SignFailed"})
    mark = world.mark()
    assert world.api.delete(f"{modules(drivers)}/m").code == 200
    eventually(lambda: world.asked(mark)["get", "secrets"] > 1)
    assert world.jobs()
    assert world.api.delete(f"{core(NAMESPACE, 'secrets')}/pin").code == 200
    eventually(lambda: not world.jobs())


def test_a_signature_under_way_outlives_an_edit_of_its_module(placed):
    world, drivers = placed()
    post(world, drivers, outcome="run")
    (job,) = eventually(world.jobs)
    edited = {"tolerations": [{"key": "a", "operator": "Exists"}]}
    assert world.api.patch(f"{modules(drivers)}/m", {"spec": edited}).code == 200
    eventually(lambda: "started once it has ended" in message(world, drivers))
    assert [each["metadata"]["uid"] for each in world.jobs()] == [job["metadata"]["uid"]]
    finish_the_job(world)
    eventually(lambda: world.ready("m", drivers))


@pytest.mark.embedded_only("only the embedded server refuses what it should not")
def test_what_cannot_be_deleted_stops_no_module_of_its_name(placed):
    world, drivers = placed()
    post(world, drivers, outcome="run")
    eventually(world.jobs)
    world.stop()
    secret(world, "pin", {"pin": "another-pin"})
    assert world.api.delete(f"{modules(drivers)}/m").code == 200
    world.cluster.faults.add(
        Fault(kind=Kind.REFUSE, verbs=("delete",), resource="jobs", user="operator", code=403, times=2)
    )
    post(world, drivers)
    world.operator(ALONE)
    eventually(lambda: world.ready("m", drivers))
    eventually(lambda: not world.jobs(), "it is tried again")


def test_a_job_beside_the_operator_that_only_says_it_is_a_modules_is_left_alone(placed):
    world, drivers = placed()
    body = a_job(outcome="run")
    labels = {f"{P}module.name": "m", f"{P}job-type": "sign", f"{P}module.namespace": drivers}
    body["metadata"] |= {"labels": labels}
    assert world.api.post(jobs(NAMESPACE), body).code == 201
    post(world, drivers)
    eventually(lambda: world.ready("m", drivers))
    world.quiet()
    assert [each["metadata"]["name"] for each in world.jobs()] == [body["metadata"]["name"]]


def test_a_strangers_job_that_says_it_is_a_modules_counts_for_nothing(placed):
    world, drivers = placed()
    labels = {f"{P}module.name": "m", f"{P}job-type": "sign", f"{P}module.namespace": drivers}
    stranger = world.namespace()
    body = a_job(outcome="run")
    body["metadata"] |= {"labels": labels, "annotations": {f"{P}module-uid": "none"}}
    assert world.api.post(jobs(stranger), body).code == 201
    post(world, drivers)
    eventually(lambda: world.ready("m", drivers))
    assert world.jobs(stranger)


def test_a_failure_for_good_is_tried_by_nobody_until_the_secret_changes(placed, maker, registry):
    world, drivers = placed()
    maker.final, maker.says = True, f"the PIN is not {PIN}"
    post(world, drivers, outcome="fail")
    eventually(lambda: reason(world, drivers) == {"SignFailed"})
    # Whoever chooses what is said must not learn by it what the operator's Secret holds.
    told = f'the PIN is not {PIN}; it is not tried again before the Secret "pin" changes'
    assert message(world, drivers) == told
    other = world.namespace(**{"pod-security.kubernetes.io/enforce": "privileged"})
    post(world, other, "other")
    eventually(lambda: reason(world, other, "other") == {"SignFailed"})
    assert "another sign has failed for good" in message(world, other, "other")
    world.quiet()
    assert [module_of(each) for each in world.jobs()] == ["m"]
    # Whatever else of it changes is no reason to try the other Module's again.
    maker.final = False
    secret(world, "pin", {"pin": "another-pin"})
    eventually(lambda: world.ready("other", other), "it is its turn now")
    eventually(lambda: len(registry.pushed) == 1)


def test_of_those_that_read_one_secret_one_signs_at_a_time(placed, registry):
    world, drivers = placed(nodes=2, kernels=2)
    names = ("one", "two")
    for each in names:
        post(world, drivers, each, outcome="run")
    seen = []

    def queued():
        kernels = [kernel for name in names for kernel in world.module(name, drivers)["status"]["kernels"]]
        return len([each for each in kernels if each["reason"] == "BuildQueued"])

    for others in (3, 2, 1, 0):
        eventually(lambda others=others: queued() == others, f"{others} wait")
        (job,) = eventually(lambda: [each for each in world.jobs() if not over(each)])
        name = job["metadata"]["name"]
        seen.append((module_of(job), job["metadata"]["annotations"][f"{P}kernel"]))
        (pod,) = eventually(lambda job=job: pods_of(world, job))
        finish(world, pod, f"{jobs(NAMESPACE)}/{name}")
    assert sorted(seen) == [(name, f"6.{minor}.0") for name in names for minor in (0, 1)]
    eventually(lambda: all(world.ready(each, drivers) for each in names))
    assert len(registry.pushed) == 4


def pods_of(world, job):
    name = job["metadata"]["name"]
    return [each for each in world.pods() if each["metadata"]["labels"].get("job-name") == name]


def finish_the_job(world):
    """Let the one Job end well."""
    (job,) = world.jobs()
    (pod,) = eventually(lambda: pods_of(world, job))
    finish(world, pod, f"{jobs(NAMESPACE)}/{job['metadata']['name']}")


def finish(world, pod, path):
    """Let the pod of a task end well, as a kubelet would tell."""
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": "2026-01-01T00:00:00Z"}}
    status = {"phase": "Succeeded", "containerStatuses": [
        {"name": "make", "image": "a", "imageID": "", "ready": False, "restartCount": 0, "state": ended}
    ]}  # fmt: skip
    where = f"{core(NAMESPACE, 'pods')}/{pod['metadata']['name']}/status"

    def ended():
        world.api.patch(where, {"status": status})  # again, where the kubelet has written that it runs
        job = world.api.get(path)
        return job.code == 404 or over(job.body)

    eventually(ended)


def test_a_secret_that_is_not_there_is_told_with_its_namespace(made):
    world = made()
    drivers = world.namespace(**{"pod-security.kubernetes.io/enforce": "privileged"})
    post(world, drivers)
    eventually(lambda: reason(world, drivers) == {"InputMissing"})
    assert message(world, drivers) == f'the Secret "pin" does not exist in the namespace {NAMESPACE}'
    secret(world, "pin", {"pin": PIN})
    eventually(lambda: world.ready("m", drivers), "it is heard of")


def test_a_module_that_may_not_is_told_and_nothing_is_made(placed):
    world, drivers = placed()
    post(world, drivers, outcome="forbidden")
    eventually(lambda: reason(world, drivers) == {"RendererFailed"})
    assert f"{drivers} may not use it" in message(world, drivers)
    assert not world.jobs()


def test_a_secret_of_the_modules_own_namespace_is_an_input_too(made, registry):
    world = made()
    secret(world, "pin", {"pin": PIN})
    acted.post(world, **sign("fail", unsignedImage=f"{HOST}/unsigned:1"))
    eventually(lambda: acted.state(world) == ("SignFailed", 1))
    before = world.kernel("6.0.0")["inputsHash"]
    secret(world, "pin", {"pin": "another-pin"})
    eventually(lambda: world.kernel("6.0.0").get("inputsHash") not in (None, before))
    (job,) = eventually(world.jobs)
    assert job["metadata"]["ownerReferences"]


def test_a_pod_that_reads_a_secret_alone_keeps_others_out_though_its_task_is_gone(placed):
    world, drivers = placed()
    post(world, drivers, "one", outcome="run")
    (job,) = eventually(world.jobs)
    (pod,) = eventually(lambda: pods_of(world, job))
    world.stop()
    path = f"{jobs(NAMESPACE)}/{job['metadata']['name']}"
    assert world.api.delete(path, {"propagationPolicy": "Orphan"}).code == 200
    assert world.api.delete(f"{modules(drivers)}/one").code == 200
    eventually(lambda: not world.jobs())
    world.operator(ALONE)
    post(world, drivers, "two")
    eventually(lambda: reason(world, drivers, "two") == {"BuildQueued"})
    assert world.api.delete(f"{core(NAMESPACE, 'pods')}/{pod['metadata']['name']}").code == 200
    eventually(lambda: world.ready("two", drivers))
