"""Why a driver is not loaded or unloaded, from what a kubelet is told to what a person reads."""

from __future__ import annotations

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, core, modules
from runtime.conftest import NAMESPACE

from kmm.cli import status as command
from kmm.core.reasons import About, Reason
from kmm.embedded.kubelet import PullError
from kmm.embedded.program import Exit, idle

LOG = "/dev/termination-log"
KMOD = "modprobe: ERROR: could not insert 'm': "
IN_USE = "modprobe: FATAL: Module m is in use."
PULL = 'failed to resolve reference "registry.example.com/pull:1": not found'
# What modprobe, or what runs it, says on the node for the Module of that name.
SAID = {
    Reason.KEY_REJECTED: f"{KMOD}Key was rejected by service",
    Reason.LOCKED_DOWN: f"{KMOD}Operation not permitted",
    Reason.WRONG_FORMAT: f"{KMOD}Exec format error",
    Reason.UNKNOWN_SYMBOL: f"{KMOD}Unknown symbol in module, or unknown parameter (see dmesg)",
    Reason.FILE_MISSING: "modprobe: FATAL: Module m not found in directory /opt/lib/modules/6.0.0",
    Reason.FIRMWARE_MISSING: "cp: cannot stat '/firmware/*': No such file or directory",
    Reason.COMMAND_MISSING: "/bin/sh: 2: modprobe: not found",
    Reason.NO_DEVICE: f"{KMOD}No such device",
    Reason.DRIVER_CONFLICT: f"{KMOD}Device or resource busy",
    Reason.MODULE_IN_USE: "modprobe: FATAL: Module in_tree is in use.",
    Reason.LOAD_FAILED: f"{KMOD}Invalid argument",
    Reason.IMAGE_PULL_FAILED: PULL,
}


# What a kubelet up to 1.25 says in its event; since then it keeps the words to itself.
OLDER = (
    'Exec lifecycle hook ([modprobe -rv -d /opt m]) for Container "module-loader" in Pod "p_n(u)" failed - error: '
    f"command 'modprobe -rv -d /opt m' exited with 1: {IN_USE}\n, message: \"{IN_USE}\\n\""
)


def loader(name, image, **modprobe):
    made = a_module(name)
    container = made["spec"]["moduleLoader"]["container"]
    container["kernelMappings"][0]["containerImage"] = image
    container["modprobe"] |= modprobe
    return made


@pytest.fixture
def read(capsys):
    """Return the lines of `kmm status` for a Module."""

    def run(world, name):
        code = command.status(name, NAMESPACE, None, world.cluster.kubeconfig(""), "table", watch=False)
        assert code == 1
        return capsys.readouterr().out.splitlines()

    return run


def test_every_reason_of_a_loader_is_tried_here():
    assert {*SAID, Reason.UNLOAD_FAILED} == {each for each in Reason if each.about is About.LOADER}


def test_each_reason_comes_from_the_pod_to_status_condition_event_and_what_a_person_reads(world, read):
    words = {each.value.lower(): said for each, said in SAID.items()}

    def program(run):
        name = run.pod["metadata"]["labels"]["kmm.node.kubernetes.io/module.name"]
        return Exit(code=1, output=f"{words[name]}\n") if run.hook == "postStart" else idle(run)

    async def pull(image, _pod):
        if "/pull" in image:
            raise PullError(PULL)

    found = world(nodes=1, kernels=1, program=program, pull=pull)
    found.operator()
    for reason in SAID:
        name = reason.value.lower()
        image = f"registry.example.com/{'pull' if reason is Reason.IMAGE_PULL_FAILED else name}:1"
        assert found.api.post(modules(NAMESPACE), loader(name, image)).code == 201
    for reason, said in SAID.items():
        name = reason.value.lower()
        eventually(lambda name=name, reason=reason: found.reasons(name) == {reason}, within_s=60)
        (kernel,) = found.module(name)["status"]["kernels"]
        assert kernel["state"] == "Failed"
        assert "n0" in kernel["message"]
        assert said in kernel["message"]
        for kind in ("Loaded", "Ready"):
            condition = found.condition(kind, name)
            assert (condition["status"], condition["reason"]) == ("False", reason)
            assert said in condition["message"]
        eventually(lambda reason=reason: reason in found.events())
        event = found.events()[reason]
        assert event["type"] == "Warning"
        assert event["involvedObject"]["name"] == name
        assert said in event["message"]
        lines = read(found, name)
        assert f"{NAMESPACE}/{name}, kernel 6.0.0: {reason}: " in lines[-2]
        assert said in lines[-2], "what was said, however long the rest is"
        assert lines[-1].startswith("  what to do: ")
        assert reason.remedy.partition("`")[0] in lines[-1]


def test_a_crash_loop_keeps_why_and_a_script_tells_it_also_to_an_operator_that_comes_later(world):
    async def program(run):
        if run.hook == "postStart":
            run.mounts[LOG].write_text(f"{SAID[Reason.KEY_REJECTED]}\n")
            return Exit(code=1)
        return await idle(run)

    found = world(nodes=1, kernels=1, program=program)
    first = found.operator()
    found.api.post(modules(NAMESPACE), loader("m", "registry.example.com/m:1", firmwarePath="/firmware"))

    def crashing():
        containers = [each for pod in found.pods() for each in pod.get("status", {}).get("containerStatuses", ())]
        return [each["state"].get("waiting", {}).get("reason") for each in containers] == ["CrashLoopBackOff"]

    eventually(lambda: found.reasons() == {"KeyRejected"})
    eventually(crashing)
    assert found.reasons() == {"KeyRejected"}
    first.stop()
    forgotten = {"status": {"kernels": None, "conditions": None}}
    assert found.api.patch(f"{modules(NAMESPACE)}/m/status", forgotten).code == 200
    found.operator()
    eventually(lambda: found.reasons() == {"KeyRejected"})


@pytest.fixture
def unloading(world):
    """A Module that is loaded, whose driver is in use when it is to be unloaded."""

    async def program(run):
        if run.hook == "preStop":
            run.mounts[LOG].write_text(f"{IN_USE}\n")
            return Exit(code=1, output=f"{IN_USE}\n")
        return await idle(run)

    found = world(nodes=1, kernels=1, program=program)
    found.operator()
    found.api.post(modules(NAMESPACE), loader("m", "registry.example.com/m:1", firmwarePath="/firmware"))
    eventually(found.ready)
    return found


def told(world):
    event = world.events().get("ModuleInUse", {})
    return event.get("involvedObject", {}).get("name"), event.get("message", "")


def test_a_driver_in_use_is_told_of_when_another_image_is_to_take_its_place(unloading):
    mapping = loader("m", "registry.example.com/m:2", firmwarePath="/firmware")["spec"]
    unloading.api.patch(f"{modules(NAMESPACE)}/m", {"spec": {"moduleLoader": mapping["moduleLoader"]}})
    eventually(lambda: told(unloading)[0] == "m")
    message = told(unloading)[1]
    assert "stays loaded" in message
    assert f"(n0: {IN_USE})" in message
    eventually(unloading.ready)


def test_a_driver_in_use_is_told_of_when_its_module_is_deleted(unloading):
    unloading.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: told(unloading)[0] == "m")
    assert f"(n0: {IN_USE})" in told(unloading)[1]


def test_a_driver_in_use_is_told_of_when_its_node_is_no_target_any_more(unloading):
    unloading.api.patch("/api/v1/nodes/n0", {"metadata": {"labels": {"a": None}}})
    eventually(lambda: told(unloading)[0] == "m")
    assert f"(n0: {IN_USE})" in told(unloading)[1]


@pytest.mark.parametrize("firmware", [{}, {"firmwarePath": "/firmware"}], ids=["alone", "script"])
def test_a_command_that_fails_without_a_word_is_told_of_by_the_kubelets_event(world, firmware):
    async def program(run):
        return Exit(code=1) if run.hook == "preStop" else await idle(run)

    found = world(nodes=1, kernels=1, program=program)
    found.operator()
    found.api.post(modules(NAMESPACE), loader("m", "registry.example.com/m:1", **firmware))
    eventually(found.ready)
    found.api.delete(f"{modules(NAMESPACE)}/m")
    event = eventually(lambda: found.events().get("UnloadFailed"))
    assert event["involvedObject"]["name"] == "m"
    assert "stays loaded" in event["message"]
    assert "(n0: PreStopHook failed)" in event["message"]
    assert "ModuleInUse" not in found.events()


def test_the_words_of_an_older_kubelets_event_are_read(world):
    found = world(nodes=1, kernels=1)
    found.operator()
    found.api.post(modules(NAMESPACE), loader("m", "registry.example.com/m:1"))
    eventually(found.ready)
    (pod,) = found.pods()
    found.api.delete(f"{modules(NAMESPACE)}/m")
    about = {"kind": "Pod", "namespace": NAMESPACE, **{key: pod["metadata"][key] for key in ("name", "uid")}}
    body = {
        "metadata": {"name": "older"},
        "involvedObject": about,
        "reason": "FailedPreStopHook",
        "type": "Warning",
        "source": {"component": "kubelet"},
        "message": OLDER,
    }
    assert found.api.post(core(NAMESPACE, "events"), body).code == 201
    event = eventually(lambda: found.events().get("ModuleInUse"))
    assert f"(n0: {IN_USE})" in event["message"]


def test_a_hook_that_fails_where_nothing_was_loaded_is_no_driver_that_stays(world):
    async def program(run):
        return Exit(code=1, output=f"{SAID[Reason.NO_DEVICE]}\n") if run.hook else await idle(run)

    def of_kubelet():
        return [each["reason"] for each in found.api.get(core(NAMESPACE, "events")).body["items"]]

    found = world(nodes=1, kernels=1, program=program)
    found.operator()
    found.api.post(modules(NAMESPACE), loader("m", "registry.example.com/m:1"))
    eventually(lambda: "FailedPreStopHook" in of_kubelet())
    eventually(lambda: "NoDevice" in found.events())
    found.api.delete(f"{modules(NAMESPACE)}/m")
    eventually(lambda: not found.pods())
    found.quiet()
    assert "UnloadFailed" not in found.events()
