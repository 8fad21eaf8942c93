"""What a build or signature is made from: what changes starts it again, be it under way or failed."""

from __future__ import annotations

import json

import pytest
from apiserver.client import eventually
from apiserver.samples import core, modules
from runtime.acted import (
    IMAGE,
    TEMPORARY,
    P,
    attempts,
    build,
    change,
    dockerfile,
    nothing_left,
    post,
    secret,
    sign,
    state,
)
from runtime.conftest import ALONE, NAMESPACE

from kmm.contract import CERTIFICATE_ANNOTATION, INPUTS_ANNOTATION, BuildArg, Tls

EMBEDDED = pytest.mark.embedded_only(
    "a real API server sees no difference among them: the Dockerfile is enough there"
)
UNSIGNED = "registry.example.com/unsigned"
ARGUMENT = {"name": "A", "value": "1"}


def docker_config(password):
    return {".dockerconfigjson": json.dumps({"auths": {"r.example.com": {"username": "u", "password": password}}})}


def push_secret(world, password, name="push"):
    secret(world, name, docker_config(password), "kubernetes.io/dockerconfigjson")


def change_spec(world, **more):
    assert world.api.patch(f"{modules(NAMESPACE)}/m", {"spec": more}).code == 200


# What changes the world; else how the mapping is, before and after.
BUILDS = {
    "Dockerfile": lambda world: dockerfile(world, "FROM other"),
    "ConfigMap": ({}, {"dockerfileConfigMap": {"name": "other"}}),
    "argument": ({"buildArgs": [ARGUMENT]}, {"buildArgs": [{"name": "A", "value": "2"}]}),
    "an argument less": ({"buildArgs": [ARGUMENT]}, {}),
    "a Secret's data": lambda world: secret(world, "token", {"token": "changed"}),
    "a Secret's keys": lambda world: secret(world, "token", {"more": "x"}),
    "a Secret more": ({}, {"secrets": [{"name": "token"}, {"name": "key"}]}),
    "push Secret's data": lambda world: push_secret(world, "changed"),
    "another push Secret": lambda world: change_spec(world, imageRepoSecret={"name": "other"}),
    "selector": ({}, {"selector": {"a": "b"}}),
    "base image's TLS": ({}, {"baseImageRegistryTLS": {"insecureSkipTLSVerify": True}}),
    "kaniko's tag": ({"kanikoParams": {"tag": "a"}}, {"kanikoParams": {"tag": "b"}}),
    "tolerations": lambda world: change_spec(world, tolerations=[{"key": "x", "operator": "Exists"}]),
}
SIGNS = {
    "key": lambda world: secret(world, "key", {"key": "changed"}),
    "certificate": lambda world: secret(world, "cert", {"cert": "changed"}),
    "another key": ({}, {"keySecret": {"name": "token"}}),
    "files": ({}, {"filesToSign": ["/a.ko"]}),
    "unsigned image": ({}, {"unsignedImage": f"{UNSIGNED}:2"}),
    "unsigned image's TLS": ({}, {"unsignedImageRegistryTLS": {"insecure": True}}),
    "push Secret's data": lambda world: push_secret(world, "changed"),
}


def building(outcome, **more):
    return build(outcome, **{"secrets": [{"name": "token"}], **more})


def signing(outcome, **more):
    return sign(outcome, **{"unsignedImage": f"{UNSIGNED}:1", **more})


CHANGES = [
    pytest.param(maps, how, id=f"{what} of a {noun}")
    for noun, maps, every in (("build", building, BUILDS), ("signature", signing, SIGNS))
    for what, how in every.items()
]
TLS = [
    pytest.param(maps, ({}, {"registryTLS": {"insecure": True}}), id=f"registry's TLS of a {noun}")
    for noun, maps in (("build", building), ("signature", signing))
]


@pytest.fixture
def furnished(made):
    """Make a world that has all that the tasks refer to."""

    def make():
        world = made()
        dockerfile(world, "FROM elsewhere", "other")
        secret(world, "token", {"token": "t"})
        for name in ("push", "other"):
            push_secret(world, "p", name)
        return world

    return make


def begin(world, **mapping):
    post(world, **mapping)
    change_spec(world, imageRepoSecret={"name": "push"})


def uids(world):
    return {each["metadata"]["uid"] for each in world.jobs()}


def started_again(world, first):
    """Whether a task was ended, and then another one started, which counts its attempts anew."""
    again = uids(world)
    return len(again) == 1 and not again & first and attempts(world) == ["1"]


def done_to_jobs(world, since):
    """Return what the operator did to Jobs, in order."""
    return [
        each.verb
        for each in world.entries(since)
        if each.user == world.user and each.resource == "jobs" and each.verb in ("create", "delete")
    ]


@EMBEDDED
@pytest.mark.parametrize("outcome", ["run", "fail"])
@pytest.mark.parametrize(("maps", "how"), [*CHANGES, *TLS])
def test_an_input_that_changes_starts_a_task_again_at_once(furnished, maps, how, outcome):
    world = furnished()
    before, after = how if isinstance(how, tuple) else ({}, {})
    of_mapping = "registryTLS" in after
    begin(world, **maps(outcome, **before))
    noun = "Build" if maps is building else "Sign"
    reached = (f"{noun}Failed", 1) if outcome == "fail" else ("Building" if maps is building else "Signing", 0)
    eventually(lambda: state(world) == reached)
    world.quiet()
    first, mark = uids(world), world.mark()
    if callable(how):
        how(world)
    elif of_mapping:
        change(world, **maps(outcome), **after)
    else:
        change(world, **maps(outcome, **after))
    eventually(lambda: started_again(world, first))
    eventually(lambda: state(world) == reached)
    world.quiet()
    assert done_to_jobs(world, mark) == ["delete", "create"], "two pushers must not share a tag"
    eventually(lambda: owners_of_pods(world) == uids(world), "nor does a pod of the first live on")


def owners_of_pods(world):
    return {owner["uid"] for each in world.pods() for owner in each["metadata"]["ownerReferences"]}


@EMBEDDED
@pytest.mark.parametrize("outcome", ["run", "fail"])
def test_what_nothing_is_made_from_starts_nothing_again(furnished, outcome):
    world = furnished()
    begin(world, **building(outcome), **sign())
    eventually(lambda: state(world) == (("BuildFailed", 1) if outcome == "fail" else ("Building", 0)))
    world.quiet()
    before, mark = uids(world), world.mark()
    labels = {"metadata": {"labels": {"seen": "by-somebody"}}}
    for plural, name in (("secrets", "token"), ("secrets", "push"), ("configmaps", "d")):
        assert world.api.patch(f"{core(NAMESPACE, plural)}/{name}", labels).code == 200
    assert world.api.patch(f"{core(NAMESPACE, 'configmaps')}/d", {"data": {"notes": "x"}}).code == 200
    secret(world, "nobodys", {"a": "b"})
    change_spec(world, devicePlugin={"container": {"image": "registry.example.com/plugin:1"}})
    world.add_node("n2", "6.0.0")
    assert world.api.patch(f"{modules(NAMESPACE)}/m", labels).code == 200
    world.quiet()
    assert uids(world) == before
    assert done_to_jobs(world, mark) == []
    (job,) = world.jobs()
    assert job["metadata"]["annotations"][f"{P}attempt"] == "1"


def test_what_was_built_from_other_inputs_is_built_again_and_then_signed(made, registry):
    world = made()
    post(world, **build(), **sign("fail"))
    eventually(lambda: state(world) == ("SignFailed", 1))
    first = registry.images[TEMPORARY][INPUTS_ANNOTATION]
    dockerfile(world, "FROM other")
    eventually(lambda: registry.pushed == [TEMPORARY, TEMPORARY])
    eventually(lambda: state(world) == ("SignFailed", 1), "the count begins anew with what is signed")
    assert registry.images[TEMPORARY][INPUTS_ANNOTATION] != first
    change(world, **build(), **sign())
    eventually(world.ready)
    assert registry.pushed == [TEMPORARY, TEMPORARY, IMAGE], "another signature needs no other build"


def test_what_was_built_from_the_same_inputs_is_signed_without_a_build(made, registry):
    world = made()
    post(world, **build(), **sign("fail"))
    eventually(lambda: state(world) == ("SignFailed", 1))
    assert world.api.delete(f"{modules(NAMESPACE)}/m").code == 200
    eventually(lambda: nothing_left(world))
    world.apps[0].stop()
    world.operator(ALONE)
    post(world, **build(), **sign())
    eventually(world.ready)
    assert registry.pushed == [TEMPORARY, IMAGE]


def test_what_is_signed_with_another_certificate_is_signed_again_and_never_built_again(made, registry):
    world = made()
    post(world, **build(), **sign())
    eventually(world.ready)
    eventually(lambda: nothing_left(world))
    first = registry.images[IMAGE][CERTIFICATE_ANNOTATION]
    assert first
    secret(world, "cert", {"cert": "another"})
    eventually(lambda: registry.pushed == [TEMPORARY, IMAGE, IMAGE])
    eventually(lambda: nothing_left(world))
    assert registry.images[IMAGE][CERTIFICATE_ANNOTATION] != first
    dockerfile(world, "FROM other")
    secret(world, "key", {"key": "another"})
    world.quiet()
    assert world.ready()
    assert registry.pushed == [TEMPORARY, IMAGE, IMAGE], "what exists is not built again whatever changes"


@EMBEDDED
def test_a_builder_is_told_of_which_kernel_and_module_whatever_the_user_says(made, maker):
    world = made()
    more = {"buildArgs": [{"name": "KERNEL_VERSION", "value": "mine"}, {"name": "OWN", "value": "${MOD_NAME}"}]}
    post(world, **build(baseImageRegistryTLS={"insecure": True}, **more), registryTLS={"insecureSkipTLSVerify": True})
    eventually(world.ready)
    request = maker.requests[0]
    assert set(request.args) == {
        BuildArg(name="KERNEL_VERSION", value="6.0.0"),
        BuildArg(name="KERNEL_FULL_VERSION", value="6.0.0"),
        BuildArg(name="MOD_NAME", value="m"),
        BuildArg(name="MOD_NAMESPACE", value=NAMESPACE),
        BuildArg(name="OWN", value="m"),
    }
    assert (request.base_tls, request.push_tls) == (Tls(insecure=True), Tls(skip_verify=True))
    assert request.dockerfile == "FROM scratch"
    eventually(lambda: "BuildStarted" in world.events())
    said = world.events()["BuildStarted"]
    assert (said["type"], "KERNEL_VERSION is not used" in said["message"]) == ("Warning", True)
