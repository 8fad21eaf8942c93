from __future__ import annotations

import pytest

from kmm.api.module import KernelMapping, Modprobe, ModuleLoader, ModuleLoaderContainer, ModuleSpec
from kmm.catalog import Catalog
from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.actions import SetStatus
from kmm.core.commands import load_command
from kmm.core.diagnosis import diagnose
from kmm.core.reasons import Reason
from kmm.core.spoke import plan_module
from kmm.core.view import KernelNodes, Operator, Pod, Subject, View

KERNEL = "6.1.0-18-amd64"
MODULE = ModuleRef(namespace="n", name="m")
BACK_OFF = "back-off 10s restarting failed container=module-loader pod=m-1_n(uid)"


def pod(reason: str, message: str, *, ready: bool = False) -> Pod:
    return Pod(
        name="p",
        uid="u",
        module=MODULE,
        module_uid="uid-m",
        role=names.LOADER,
        node="worker-1",
        kernel=KERNEL,
        ready=ready,
        waiting_reason=reason,
        waiting_message=message,
    )


def hook_error(said: str, modprobe: Modprobe | None = None, in_tree: tuple[str, ...] = ()) -> str:
    """What the kubelet writes about a postStart hook that failed: the command, twice, stands before its reason."""
    command = " ".join(load_command(modprobe or Modprobe(module_name="m"), in_tree))
    return (
        f'Exec lifecycle hook ([{command}]) for Container "module-loader" in Pod "m-1_n(uid)" failed - error: '
        f"command '{command}' exited with 1: , message: {said!r}"
    )


@pytest.mark.parametrize(
    ("said", "reason", "advice"),
    [
        ("could not insert 'm': Required key not available", Reason.KEY_REJECTED, "enrol its certificate"),
        ("could not insert 'm': Key was rejected by service", Reason.KEY_REJECTED, "enrol its certificate"),
        ("could not insert 'm': Bad message", Reason.KEY_REJECTED, "sign with another"),
        ("could not insert 'm': Operation not permitted", Reason.LOCKED_DOWN, "locked down"),
        ("could not insert 'm': Exec format error", Reason.WRONG_FORMAT, "another kernel or architecture"),
        ("could not insert 'm': Unknown symbol in module, or unknown parameter", Reason.UNKNOWN_SYMBOL, "depmod"),
        ("cp: cannot stat '/firmware/*': No such file or directory", Reason.FILE_MISSING, "firmwarePath"),
        ("Module m not found in directory /opt/lib/modules/6.1.0", Reason.FILE_MISSING, "dirName"),
        ("modprobe: FATAL: Module m is in use.", Reason.MODULE_IN_USE, "stop what uses it"),
        ("rmmod: ERROR: Module m is in use by: n", Reason.MODULE_IN_USE, "stop what uses it"),
        ("could not insert 'm': Invalid argument", Reason.LOAD_FAILED, "PostStartHookError"),
    ],
)
def test_why_a_load_failed_is_recognised_and_explained(said, reason, advice):
    found = diagnose(pod("PostStartHookError", hook_error(f"modprobe: ERROR: {said}\n")))
    assert found is not None
    assert found[0] is reason
    assert advice in found[1]
    assert "worker-1" in found[1]


def test_words_are_recognised_in_any_case_and_across_lines():
    found = diagnose(pod("PostStartHookError", "modprobe: ERROR:\nkey was\n rejected by   service"))
    assert found is not None
    assert found[0] is Reason.KEY_REJECTED


@pytest.mark.parametrize(
    ("said", "reason"),
    [("Key was rejected by service", Reason.KEY_REJECTED), ("Invalid argument", Reason.LOAD_FAILED)],
)
def test_why_a_load_failed_is_found_behind_a_long_command(said, reason):
    modprobe = Modprobe(module_name="m", firmware_path="/firmware", modules_loading_order=("m", "needed"))
    message = hook_error(f"modprobe: ERROR: could not insert 'm': {said}", modprobe, ("in_tree",))
    found = diagnose(pod("PostStartHookError", message))
    assert found is not None
    assert found[0] is reason
    assert said in found[1]


@pytest.mark.parametrize("said", ["x" * 100_000, "Unknown symbol " + "x" * 100_000])
def test_a_long_message_is_cut(said):
    found = diagnose(pod("PostStartHookError", said))
    assert found is not None
    assert len(found[1]) < 1024


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_told_from_a_load_that_failed(reason):
    found = diagnose(pod(reason, "manifest unknown: No such file"))
    assert found is not None
    assert found[0] is Reason.IMAGE_PULL_FAILED
    assert found[1].startswith(f"{reason} on worker-1: manifest unknown")


def test_a_crash_loop_that_says_nothing_is_a_failed_load():
    found = diagnose(pod("CrashLoopBackOff", BACK_OFF))
    assert found is not None
    assert found[0] is Reason.LOAD_FAILED


@pytest.mark.parametrize("reason", ["", "ContainerCreating", "PodInitializing"])
def test_a_pod_that_gets_on_has_nothing_wrong_with_it(reason):
    assert diagnose(pod(reason, "Key was rejected by service")) is None


def kernel_status(before: dict, *pods: Pod) -> dict:
    """What the Module's status becomes, with these loader pods, where it was `before`."""
    container = ModuleLoaderContainer(
        modprobe=Modprobe(module_name="m"), kernel_mappings=(KernelMapping(regexp="^6", container_image="a"),)
    )
    spec = ModuleSpec(selector={}, module_loader=ModuleLoader(container=container))
    view = View(targets={KERNEL: KernelNodes(nodes=1)}, pods=pods, operator=Operator(namespace="n"), status=before)
    plan = plan_module(Subject(ref=MODULE, uid="uid-m", spec=spec), view, Catalog(), 0.0)
    return next((dict(each.status) for each in plan.actions if isinstance(each, SetStatus)), before)


@pytest.mark.parametrize(
    ("said", "reason"),
    [("Key was rejected by service", Reason.KEY_REJECTED), ("Invalid argument", Reason.LOAD_FAILED)],
)
def test_why_a_load_failed_is_kept_when_the_kubelet_has_forgotten_it(said, reason):
    seen = kernel_status({}, pod("PostStartHookError", hook_error(f"could not insert 'm': {said}")))
    assert seen["kernels"][0]["reason"] == reason
    kept = seen
    for _ in range(2):
        kept = kernel_status(kept, pod("CrashLoopBackOff", BACK_OFF))
        assert kept["kernels"][0]["reason"] == reason
        assert said in kept["kernels"][0]["message"]


def test_why_a_load_failed_is_forgotten_when_another_reason_is_seen_or_the_pod_gets_on():
    seen = kernel_status({}, pod("PostStartHookError", hook_error("Key was rejected by service")))
    other = kernel_status(seen, pod("PostStartHookError", hook_error("Unknown symbol in module")))
    assert other["kernels"][0]["reason"] == Reason.UNKNOWN_SYMBOL
    assert kernel_status(seen, pod("", "", ready=True))["kernels"][0]["reason"] == Reason.LOADING
