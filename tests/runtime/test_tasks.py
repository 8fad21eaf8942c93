"""Builds and signatures, end to end: plugins of the tests render Jobs, and a registry has what these have pushed."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from dataclasses import replace
from functools import partial

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, core, jobs, modules
from runtime.acted import (
    DIGEST,
    IMAGE,
    JOB,
    TEMPORARY,
    P,
    attempts,
    build,
    change,
    dockerfile,
    for_two_architectures,
    nothing_left,
    over,
    post,
    pushes,
    secret,
    sign,
    spec,
    state,
)
from runtime.conftest import ALONE, CONFIG, NAMESPACE

from kmm.contract import Kind
from kmm.embedded.fault import Fault
from kmm.embedded.fault import Kind as Fails
from kmm.embedded.program import Exit, idle
from kmm.job import observe_job
from kmm.runtime.transport import Unreachable


def test_an_image_that_is_there_is_loaded_whoever_made_it(made, registry):
    world = made()
    registry.images[IMAGE] = {}
    before = world.mark()
    post(world, **build())
    eventually(world.ready)
    assert ("create", "jobs") not in world.asked(before)
    assert world.kernel("6.0.0")["digest"] == DIGEST


def test_a_mapping_that_makes_nothing_is_not_gated_by_the_registry(made, registry):
    world = made()
    post(world)
    eventually(world.ready)
    assert IMAGE not in registry.images


def test_what_is_missing_is_built_then_loaded_and_nothing_of_it_is_left(made, registry):
    world = made()
    post(world, **build("run"))
    eventually(world.jobs)
    (job,) = world.jobs()
    meta = job["metadata"]
    assert meta["labels"].items() >= {
        f"{P}module.name": "m", f"{P}target-kernel": "6.0.0", f"{P}job-type": "build",
    }.items()  # fmt: skip
    assert meta["name"].startswith("m-build-")
    assert job["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    eventually(lambda: state(world) == ("Building", 0))
    assert not world.sets(), "not before its image is there"
    change(world, **build())
    eventually(world.ready)
    eventually(lambda: nothing_left(world))
    assert registry.pushed == [IMAGE]
    eventually(lambda: world.events().keys() >= {"BuildStarted", "Loaded"}, "they are told by a thread of its own")
    world.quiet()


def test_what_is_signed_is_never_found_unsigned(made, registry):
    world = made()
    post(world, **build(), **sign())
    eventually(world.ready)
    eventually(lambda: nothing_left(world))
    assert registry.pushed == [TEMPORARY, IMAGE]


def test_an_image_that_somebody_else_built_is_signed(made, registry):
    world = made()
    post(world, **sign(unsignedImage="registry.example.com/unsigned:1"))
    eventually(world.ready)
    assert registry.pushed == [IMAGE]
    eventually(lambda: nothing_left(world))
    eventually(lambda: "SignStarted" in world.events())


def test_a_task_that_has_failed_is_kept_until_an_input_changes(made):
    world = made()
    post(world, **build("fail"))
    eventually(lambda: state(world) == ("BuildFailed", 1))
    said = world.kernel("6.0.0")
    assert "it came to nothing" in said["message"]
    assert said["lastFailureTime"]
    world.quiet()
    assert attempts(world) == ["1"], "the next one is due in a minute"
    assert world.condition()["reason"] == "BuildFailed"
    eventually(lambda: "BuildFailed" in world.events())
    (failed,) = world.jobs()
    change(world, **build())
    eventually(world.ready, "at once")
    eventually(lambda: nothing_left(world))
    assert failed["metadata"]["uid"] not in {each["metadata"]["uid"] for each in world.jobs()}


def test_a_dockerfile_that_changes_ends_the_build_first_and_then_starts_it_again(made):
    world = made()
    post(world, **build("run"))
    eventually(lambda: len(world.jobs()) == 1)
    (first,) = world.jobs()
    before = world.mark()
    dockerfile(world, "FROM other")

    def again():
        uids = {each["metadata"]["uid"] for each in world.jobs()}
        return len(uids) == 1 and first["metadata"]["uid"] not in uids

    eventually(again)
    done = [
        each.verb
        for each in world.entries(before)
        if each.user == world.user and each.resource == "jobs" and each.verb in ("create", "delete")
    ]
    assert done == ["delete", "create"], "two pushers must not share a tag"
    assert attempts(world) == ["1"]
    (second,) = world.jobs()
    eventually(
        lambda: (
            {owner["uid"] for each in world.pods() for owner in each["metadata"]["ownerReferences"]}
            == {second["metadata"]["uid"]}
        )
    )


@pytest.mark.embedded_only("kwok's containers heed no signal")
def test_a_build_is_not_replaced_before_its_pod_has_ended(made):
    begun, most = [], []
    running = set()
    stop = threading.Event()

    async def program(run):
        if run.hook or run.container["name"] != "make":
            return await idle(run)
        number = len(begun)
        begun.append(number)
        running.add(number)
        most.append(len(running))
        try:
            await asyncio.to_thread(stop.wait)  # it does not heed SIGTERM
        finally:
            running.discard(number)
        return Exit(code=0)

    world = made(program=program)
    try:
        post(world, **build())
        eventually(lambda: len(begun) == 1)
        dockerfile(world, "FROM other")
        eventually(lambda: "has not ended yet" in world.kernel("6.0.0").get("message", ""))
        assert not world.jobs()
        assert world.kernel("6.0.0")["reason"] == "Building"
    finally:
        stop.set()
    eventually(world.ready, "its end is heard of")
    assert max(most) == 1, "two pushers must not share a tag"


def test_a_finished_task_goes_only_after_the_registry_has_said_that_the_image_is_there(made, registry):
    world = made()
    registry.mute = True
    post(world, **build())
    eventually(lambda: state(world)[0] == "RegistryUnavailable")
    (job,) = world.jobs()
    assert over(job)
    assert not world.sets()
    registry.mute = False
    eventually(world.ready)
    eventually(lambda: nothing_left(world))


def test_built_but_not_found_backs_off_as_a_failure_does(made, registry):
    world = made()
    registry.loses = True
    post(world, **build())
    eventually(lambda: state(world) == ("BuiltButNotFound", 1))
    world.quiet()
    assert attempts(world) == ["1"]
    assert not world.sets()


@pytest.mark.parametrize("missing", ["configmaps", "secrets"])
def test_what_a_task_needs_is_waited_for(made, missing):
    world = made()
    name, tasks = {"configmaps": ("d", build()), "secrets": ("key", sign(unsignedImage="r.example.com/u"))}[missing]
    path = core(NAMESPACE, missing)
    body = world.api.get(f"{path}/{name}").body
    world.api.delete(f"{path}/{name}")
    post(world, **tasks)
    eventually(lambda: world.reasons() == {"InputMissing"})
    assert f'"{name}"' in world.kernel("6.0.0")["message"]
    assert not world.jobs()
    assert world.api.post(path, {"metadata": {"name": name}, "data": body["data"]}).code == 201
    eventually(world.ready)


def test_a_dockerfile_may_be_called_as_files_are(made):
    world = made()
    data = {"dockerfile": None, "Dockerfile": "FROM scratch"}
    assert world.api.patch(f"{core(NAMESPACE, 'configmaps')}/d", {"data": data}).code == 200
    post(world, **build())
    eventually(world.ready)


def test_a_task_whose_kernel_nobody_runs_any_more_goes(made):
    world = made()
    post(world, **build("run"))
    eventually(lambda: len(world.jobs()) == 1)
    for node in ("n0", "n1"):
        world.change_kernel(node, "6.5.0")

    def kernels():
        return [each["metadata"]["labels"][f"{P}target-kernel"] for each in world.jobs()]

    eventually(lambda: kernels() == ["6.5.0"])
    world.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: not world.jobs())
    eventually(lambda: not world.pods())


def test_a_node_that_comes_and_goes_has_no_failed_build_begun_anew(made):
    world = made(nodes=1, kernels=1)
    post(world, **build("fail"))
    eventually(lambda: state(world) == ("BuildFailed", 1))
    (failed,) = world.jobs()
    for taints in ([{"key": "a", "effect": "NoSchedule"}], None):
        assert world.api.patch("/api/v1/nodes/n0", {"spec": {"taints": taints}}).code == 200
        eventually(lambda taints=taints: bool(world.module()["status"]["kernels"]) == (taints is None))
        world.quiet()
    assert state(world) == ("BuildFailed", 1)
    assert [each["metadata"]["uid"] for each in world.jobs()] == [failed["metadata"]["uid"]]


def test_a_kernel_whose_build_fails_stops_no_other(made, registry):
    world = made(kernels=2)
    registry.images["registry.example.com/m:6.1.0"] = {}
    post(world, **build("fail"))
    eventually(lambda: world.kernel("6.0.0").get("reason") == "BuildFailed")
    eventually(lambda: world.kernel("6.1.0").get("reason") == "Loaded")
    assert set(world.loaders()) == {"6.1.0"}
    assert world.condition("ImagesReady")["reason"] == "BuildFailed"


def test_tasks_are_counted_by_the_metrics(made):
    world = made()
    post(world, **build("run"))
    eventually(lambda: len(world.jobs()) == 1)
    text = world.apps[0].metrics.text
    eventually(lambda: b"kmm_in_cluster_build_num 1.0" in text())
    assert b"kmm_in_cluster_sign_num 0.0" in text()


def test_secrets_and_config_maps_are_followed_only_where_a_module_refers_to_them(made):
    world = made()
    watched = partial(_watched, world)
    assert not watched()
    post(world, "plain")
    eventually(lambda: world.ready("plain"))
    assert not watched()
    post(world, **build(), **sign())
    eventually(world.ready)
    assert watched() == {("configmaps", NAMESPACE), ("secrets", NAMESPACE)}
    world.quiet()
    before = world.mark()
    body = {"metadata": {"name": "unrelated"}, "data": {"k": "c2VjcmV0"}}
    assert world.api.post(core(NAMESPACE, "secrets"), body).code == 201
    world.quiet()
    assert not world.asked(before), "contents are read where they are needed only"


def test_very_many_namespaces_are_followed_by_one_watch(made):
    world = made()
    for _ in range(21):
        namespace = world.api.post("/api/v1/namespaces", {"metadata": {"generateName": "drivers-"}}).name
        nowhere = a_module(**spec(**build()), selector={"none": "x"})
        assert world.api.post(modules(namespace), nowhere).code == 201
    eventually(lambda: ("configmaps", "") in _watched(world))


def _watched(world):
    return {
        (each.resource, each.namespace)
        for each in world.entries()
        if each.user == world.user and each.verb == "watch" and each.resource in ("configmaps", "secrets")
    }


def test_what_a_task_says_of_a_secret_is_masked(made, maker):
    world = made()
    maker.says = "it was run with c2VjcmV0, that is secret"
    post(world, build={**build("fail")["build"], "secrets": [{"name": "key"}]})
    eventually(lambda: world.module()["status"]["kernels"][0]["reason"] == "BuildFailed")
    assert world.module()["status"]["kernels"][0]["message"] == "it was run with ***, that is ***"
    assert world.condition()["message"].endswith("it was run with ***, that is ***")
    eventually(lambda: "BuildFailed" in world.events())
    assert "secret" not in str(world.events())


QUOTING = {
    "a build's Secret": (build(secrets=[{"name": "token"}]), "BuildFailed"),
    "the push Secret": (build(), "BuildFailed"),
    "a signing key": (sign(unsignedImage="registry.example.com/unsigned:1"), "SignFailed"),
}


@pytest.mark.embedded_only("kwok's containers say nothing")
@pytest.mark.parametrize("whose", QUOTING)
def test_why_a_task_failed_is_what_its_container_said_last_and_no_secret(made, maker, caplog, whose):
    mapping, reason = QUOTING[whose]
    hidden = "hunter2-hunter2"

    async def program(run):
        if run.container["name"] == "make":
            return Exit(code=3, output=f"with {hidden}:\ncannot log in\n")
        return await idle(run)

    caplog.set_level(logging.DEBUG)
    maker.observe = observe_job
    world = made(program=program)
    secret(world, "token", {"token": hidden})
    secret(world, "key", {"key": hidden})
    login = json.dumps({"auths": {"registry.example.com": {"username": "robot", "password": hidden}}})
    secret(world, "push", {".dockerconfigjson": login}, "kubernetes.io/dockerconfigjson")
    more = {"imageRepoSecret": {"name": "push"}} if whose == "the push Secret" else {}
    answer = world.api.post(modules(NAMESPACE), a_module(**spec(**mapping), **more))
    assert answer.code == 201, answer.body
    eventually(lambda: state(world) == (reason, 1))
    said = world.kernel("6.0.0")["message"]
    assert "***" in said
    assert "cannot log in" in said
    eventually(lambda: reason in world.events())
    eventually(lambda: said in world.condition()["message"])
    assert said in world.events()[reason]["message"]
    world.apps[0].stop()
    world.operator(ALONE)
    world.quiet()
    assert world.kernel("6.0.0")["message"] == said, "nor does the next operator say more"
    assert hidden not in json.dumps([world.module(), *world.events().values()])
    assert hidden not in caplog.text


@pytest.mark.embedded_only("kwok's containers say nothing")
def test_a_pull_secret_that_nobody_made_hides_not_why_a_build_failed(made, maker):
    async def program(run):
        if run.container["name"] == "make":
            return Exit(code=3, output="no rule to make target\n")
        return await idle(run)

    maker.observe = observe_job
    world = made(program=program)
    account = f"{core(NAMESPACE, 'serviceaccounts')}/kmm-operator-module-loader"
    assert (
        world.api.patch(account, {"imagePullSecrets": [{"name": "gone"}, {"name": "../../kmm/secrets/x"}]}).code
        == 200
    )
    post(world, **build())
    eventually(lambda: state(world) == ("BuildFailed", 1))
    assert "no rule to make target" in world.kernel("6.0.0")["message"]


@pytest.mark.embedded_only("it dies in this process")
def test_one_that_dies_between_two_jobs_of_which_the_first_ends_makes_the_second(made, maker, registry):
    for_two_architectures(maker)
    registry.loses = True
    world = made()
    (app,) = world.apps
    posts = []
    dead = threading.Event()

    def dies(method, path):
        posts.append(method == "POST" and path.endswith("jobs"))
        if dead.is_set() or sum(posts) > 1:
            dead.set()
            raise Unreachable("it is dead")

    app.transport.sent = dies
    post(world, **build())
    eventually(dead.is_set)
    app.stop()
    eventually(lambda: [over(each) for each in world.jobs()] == [True])
    world.operator(ALONE)
    eventually(lambda: state(world) == ("BuiltButNotFound", 1))
    assert sorted(map(pushes, world.jobs())) == [IMAGE, f"{IMAGE}-arm64"], "not before both have ended"


# ── What the API server refuses ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.embedded_only("it refuses on request")
def test_a_build_that_the_api_server_refuses_is_said_and_not_told_as_started(made):
    world = made(kernels=1)
    fault = Fault(kind=Fails.REFUSE, verbs=("create",), resource="jobs", user=world.user, times=None, code=403)
    world.cluster.faults.add(fault)
    post(world, **build())
    eventually(lambda: state(world) == ("WriteRefused", 0))
    said = world.kernel("6.0.0")
    assert said["state"] == "Failed"
    assert "forbidden: as asked for" in said["message"]
    assert world.condition("ImagesReady")["reason"] == world.condition()["reason"] == "WriteRefused"
    eventually(lambda: fault.struck > 2, "it is tried again")
    eventually(lambda: "WriteRefused" in world.events())
    assert "BuildStarted" not in world.events()
    world.cluster.faults.clear()
    eventually(world.ready)
    eventually(lambda: "BuildStarted" in world.events())


@pytest.mark.embedded_only("it refuses on request")
def test_what_is_refused_for_one_kernel_is_told_as_started_for_the_other(made, maker):
    alone = maker.render

    def render(request):
        (job,) = alone(request)
        job["spec"]["backoffLimit"] = -1 if request.kernel == "6.0.0" else 0
        return [job]

    maker.render = render
    world = made(kernels=2)
    post(world, **build())
    eventually(lambda: world.kernel("6.0.0").get("reason") == "WriteRefused")
    eventually(lambda: world.kernel("6.1.0").get("reason") == "Loaded")
    eventually(lambda: "BuildStarted" in world.events())
    assert "6.1.0" in world.events()["BuildStarted"]["message"]


@pytest.mark.embedded_only("it refuses on request")
def test_a_loader_that_the_api_server_refuses_is_said(made):
    world = made()
    world.cluster.faults.add(
        Fault(kind=Fails.REFUSE, verbs=("create",), resource="daemonsets", user=world.user, times=None, code=403)
    )
    post(world)
    eventually(lambda: state(world) == ("WriteRefused", 0))
    assert world.condition("Loaded")["reason"] == "WriteRefused"
    world.cluster.faults.clear()
    eventually(world.ready)


# ── Several Modules, several objects ──────────────────────────────────────────────────────────────────────────


def spec_of(image, outcome):
    found = spec(**build(outcome))
    mapping = found["moduleLoader"]["container"]["kernelMappings"][0]
    mapping["containerImage"] = f"registry.example.com/{image}:${{KERNEL_FULL_VERSION}}"
    return found


def post_as(world, name, outcome):
    answer = world.api.post(modules(NAMESPACE), a_module(name, **spec_of(name, outcome)))
    assert answer.code == 201, answer.body


def test_who_waits_for_a_slot_gets_it_when_another_one_is_done(made):
    world = made(config=replace(CONFIG, max_builds=1))
    post_as(world, "a", "run")
    eventually(lambda: len(world.jobs()) == 1)
    post_as(world, "b", "")
    eventually(lambda: world.kernel("6.0.0", "b").get("reason") == "BuildQueued")
    world.quiet()
    assert world.api.patch(f"{modules(NAMESPACE)}/a", {"spec": spec_of("a", "")}).code == 200
    eventually(lambda: world.ready("a"))
    eventually(lambda: world.ready("b"), "b is built after a")


@pytest.mark.embedded_only("thirty Modules at once")
def test_no_more_is_started_than_there_are_slots_however_many_wake_at_once(made):
    world = made()
    world.api.delete(f"{core(NAMESPACE, 'configmaps')}/d")
    names = [f"m{number}" for number in range(30)]
    for name in names:
        post_as(world, name, "run")
    eventually(lambda: all(world.kernel("6.0.0", name).get("reason") == "InputMissing" for name in names))
    dockerfile(world, "FROM scratch")
    eventually(lambda: len(world.jobs()) >= 5)
    world.quiet()
    assert len(world.jobs()) == 5


@pytest.mark.embedded_only("as fast as it can be")
def test_a_loader_that_somebody_deletes_is_made_again_and_its_image_is_not(made, registry):
    world = made()
    post(world, **build())
    eventually(world.ready)
    eventually(lambda: nothing_left(world))
    (loader,) = world.sets()
    before = world.mark()
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{loader['metadata']['name']}"
    assert world.api.delete(path).code == 200
    eventually(lambda: world.sets() and world.sets()[0]["metadata"]["uid"] != loader["metadata"]["uid"])
    for node in ("n0", "n1"):
        world.api.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {"a": None}}})
    eventually(lambda: not world.sets())
    for node in ("n0", "n1"):
        world.api.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {"a": "b"}}})
    eventually(world.sets)
    assert ("create", "jobs") not in world.asked(before)
    assert registry.pushed == [IMAGE]


@pytest.mark.embedded_only("a builder of two kinds needs more rights")
@pytest.mark.parametrize("order", ["the Job first", "the ConfigMap first"])
def test_what_was_rendered_beside_a_task_goes_with_it(made, maker, order):
    beside = Kind(api_version="v1", kind="ConfigMap", plural="configmaps")
    maker.owns = (JOB, beside) if order == "the Job first" else (beside, JOB)
    alone = maker.render
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
    maker.render = lambda request: [*alone(request), extra]
    world = made()
    post(world, **build())
    eventually(world.ready)

    def left():
        found = world.api.get(core(NAMESPACE, "configmaps")).body["items"]
        return [each["metadata"]["name"] for each in found if each["metadata"]["name"].startswith("m-build")]

    eventually(lambda: not world.jobs() and not left())


@pytest.mark.embedded_only("a builder of two kinds needs more rights")
@pytest.mark.parametrize("order", ["the Job first", "the ConfigMap first"])
@pytest.mark.parametrize("how", ["it dies", "it is refused", "somebody deletes it"])
def test_what_is_missing_of_a_task_is_made(made, maker, order, how):
    beside = Kind(api_version="v1", kind="ConfigMap", plural="configmaps")
    maker.owns = (JOB, beside)
    alone = maker.render
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
    steps = 1 if order == "the Job first" else -1
    maker.render = lambda request: [*alone(request), extra][::steps]
    second = "configmaps" if order == "the Job first" else "jobs"
    world = made()
    (app,) = world.apps

    def maps():
        found = world.api.get(core(NAMESPACE, "configmaps")).body["items"]
        return [each["metadata"]["name"] for each in found if each["metadata"]["name"].startswith("m-build")]

    dead = threading.Event()

    def dies(method, path):
        if dead.is_set() or (method == "POST" and path.endswith(second)):
            dead.set()
            raise Unreachable("it is dead")

    if how == "it dies":
        app.transport.sent = dies
    if how == "it is refused":
        world.cluster.faults.add(Fault(kind=Fails.REFUSE, verbs=("create",), resource=second, user=world.user))
    post(world, **build("run"))
    if how == "it dies":
        eventually(dead.is_set)
        app.stop()
        assert len(maps()) + len(world.jobs()) == 1
        world.operator(ALONE)
    eventually(lambda: len(maps()) == len(world.jobs()) == 1)
    if how == "somebody deletes it":
        (job,) = world.jobs()
        gone = (
            f"{jobs(NAMESPACE)}/{job['metadata']['name']}"
            if second == "jobs"
            else f"{core(NAMESPACE, second)}/{maps()[0]}"
        )
        assert world.api.delete(gone, {"propagationPolicy": "Background"}).code == 200
        eventually(lambda: len(maps()) == len(world.jobs()) == 1)
    eventually(lambda: state(world) == ("Building", 0))
    world.quiet()
    assert attempts(world) == ["1"]
    change(world, **build())
    eventually(world.ready)
    eventually(lambda: not world.jobs() and not maps())
