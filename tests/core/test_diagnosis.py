from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kmm.api.module import KernelMapping, Modprobe, ModprobeArgs, ModuleLoader, ModuleLoaderContainer, ModuleSpec
from kmm.catalog import Catalog
from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.actions import SetStatus
from kmm.core.commands import load_command
from kmm.core.diagnosis import diagnose, diagnose_unload
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
    """What the kubelet writes about a postStart hook that failed: the command, twice, stands before its reason.

    A single modprobe says why on stderr, a script on stdout; what either said is told again, quoted.
    """
    argv = load_command(modprobe or Modprobe(module_name="m"), in_tree)
    command, error = " ".join(argv), "" if argv[0] == "/bin/sh" else said
    return (
        f'Exec lifecycle hook ([{command}]) for Container "module-loader" in Pod "m-1_n(uid)" failed - error: '
        f"command '{command}' exited with 1: {error}, message: {json.dumps(said)}"
    )


def runtime_error(said: str) -> str:
    """What it writes where the container runtime could not run the hook's command at all."""
    return (
        'Exec lifecycle hook ([modprobe -v -d /opt m]) for Container "module-loader" in Pod "m-1_n(uid)" failed - '
        f'error: rpc error: code = Unknown desc = {said}, message: ""'
    )


OCI = 'failed to exec in container: failed to start exec "0a1b": OCI runtime exec failed: exec failed: '
KMOD = "modprobe: ERROR: could not insert 'm': "
BUSYBOX = "modprobe: can't load module m (extra/m.ko): "
SCRIPT = Modprobe(module_name="m", firmware_path="/firmware")


@pytest.mark.parametrize(
    ("said", "reason", "advice"),
    [
        (KMOD + "Required key not available", Reason.KEY_REJECTED, "enrol its certificate"),
        (KMOD + "Key was rejected by service", Reason.KEY_REJECTED, "enrol its certificate"),
        (BUSYBOX + "Key was rejected by service", Reason.KEY_REJECTED, "enrol its certificate"),
        (KMOD + "Key has been revoked", Reason.KEY_REJECTED, "enrol its certificate"),
        (KMOD + "Bad message", Reason.KEY_REJECTED, "signature is damaged"),
        (KMOD + "Package not installed", Reason.KEY_REJECTED, "RSA and sha256"),
        (KMOD + "Operation not permitted", Reason.LOCKED_DOWN, "locked down"),
        (KMOD + "Exec format error", Reason.WRONG_FORMAT, "another kernel or architecture"),
        (BUSYBOX + "invalid module format", Reason.WRONG_FORMAT, "another kernel or architecture"),
        ("insmod: ERROR: could not insert module m.ko: Invalid module format", Reason.WRONG_FORMAT, "mapping"),
        ("m: disagrees about version of symbol module_layout", Reason.WRONG_FORMAT, "mapping"),
        ("m: version magic '6.1.0' should be '6.1.0-18-amd64'", Reason.WRONG_FORMAT, "mapping"),
        ("exec /sbin/modprobe: exec format error", Reason.WRONG_FORMAT, "image's programs"),
        (KMOD + "Unknown symbol in module, or unknown parameter (see dmesg)", Reason.UNKNOWN_SYMBOL, "depmod"),
        (BUSYBOX + "unknown symbol in module, or unknown parameter", Reason.UNKNOWN_SYMBOL, "parameter"),
        ("cp: cannot stat '/firmware/*': No such file or directory", Reason.FIRMWARE_MISSING, "firmwarePath"),
        ("cp: can't stat '/firmware/*': No such file or directory", Reason.FIRMWARE_MISSING, "firmware_class.path="),
        ("cp: cannot create regular file '/var/lib/firmware/a': Read-only file system", Reason.FIRMWARE_MISSING, ""),
        ("Direct firmware load for acme.bin failed with error -2", Reason.FIRMWARE_MISSING, "firmware_class.path="),
        ("modprobe: FATAL: Module m not found in directory /opt/lib/modules/6.1.0", Reason.FILE_MISSING, "dirName"),
        ("modprobe: module m not found in modules.dep", Reason.FILE_MISSING, "mapping"),
        ("modprobe: FATAL: Module m not found.", Reason.FILE_MISSING, "mapping"),
        (
            "modprobe: can't change directory to '/lib/modules': No such file or directory",
            Reason.FILE_MISSING,
            "dirN",
        ),
        ("modprobe: FATAL: Module m is in use.", Reason.MODULE_IN_USE, "stop what uses it"),
        ("rmmod: ERROR: Module m is in use by: n", Reason.MODULE_IN_USE, "stop what uses it"),
        ("modprobe: ERROR: could not remove 'm': Device or resource busy", Reason.MODULE_IN_USE, "stop what"),
        ("modprobe: can't unload module 'm': Resource temporarily unavailable", Reason.MODULE_IN_USE, "stop what"),
        (KMOD + "Device or resource busy", Reason.DRIVER_CONFLICT, "inTreeModulesToRemove"),
        ("insmod: ERROR: could not insert module m.ko: File exists", Reason.DRIVER_CONFLICT, "another driver"),
        (KMOD + "No such device", Reason.NO_DEVICE, "select only nodes"),
        ("/bin/sh: 1: modprobe: not found", Reason.COMMAND_MISSING, "modprobe and sleep"),
        ("/bin/bash: line 1: modprobe: command not found", Reason.COMMAND_MISSING, "modprobe and sleep"),
        (KMOD + "Invalid argument", Reason.LOAD_FAILED, "PostStartHookError"),
    ],
)
@pytest.mark.parametrize("modprobe", [None, SCRIPT], ids=["alone", "script"])
def test_why_a_load_failed_is_recognised_and_explained(said, reason, advice, modprobe):
    found = diagnose(pod("PostStartHookError", hook_error(f"{said}\n", modprobe)))
    assert found is not None
    assert found[0] is reason
    assert advice in found[1]
    assert "worker-1" in found[1]
    assert said in found[1]
    assert "Exec lifecycle hook" not in found[1]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (OCI + 'exec: "modprobe": executable file not found in $PATH: unknown', Reason.COMMAND_MISSING),
        (OCI + 'exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown', Reason.COMMAND_MISSING),
        (OCI + "exec /usr/sbin/modprobe: exec format error: unknown", Reason.WRONG_FORMAT),
        (OCI + "cannot exec in a stopped container: unknown", Reason.LOAD_FAILED),
    ],
)
def test_a_command_that_cannot_be_run_is_told_from_one_that_fails(said, reason):
    found = diagnose(pod("PostStartHookError", runtime_error(said)))
    assert found is not None
    assert found[0] is reason
    assert said in found[1]


@pytest.mark.parametrize("reason", ["RunContainerError", "CreateContainerError", "StartError"])
def test_a_container_that_cannot_even_start_says_why(reason):
    said = 'unable to start container process: exec: "sleep": executable file not found in $PATH: unknown'
    found = diagnose(pod(reason, f"failed to create containerd task: failed to create shim task: {said}"))
    assert found is not None
    assert found[0] is Reason.COMMAND_MISSING


def test_words_in_the_command_are_not_what_it_said():
    words = Modprobe(raw_args=ModprobeArgs(load=("m 'Key was rejected by service'",), unload=("-r m",)))
    found = diagnose(pod("PostStartHookError", hook_error("", words)))
    assert found == (Reason.LOAD_FAILED, "PostStartHookError on worker-1: exited with 1, and said nothing")


def test_what_looks_like_the_kubelets_words_in_what_was_said_is_not_taken_for_them():
    said = "failed - error: command 'x' exited with 0: , message: \"fine\" but Key was rejected by service"
    found = diagnose(pod("PostStartHookError", hook_error(said, SCRIPT)))
    assert found is not None
    assert found[0] is Reason.KEY_REJECTED
    assert said in found[1]


def test_other_steps_of_a_script_that_went_well_do_not_hide_the_one_that_failed():
    said = (
        f"insmod /opt/lib/modules/6.1.0/kernel/needed.ko\ninsmod /opt/lib/modules/6.1.0/m.ko\n{KMOD}No such device\n"
    )
    found = diagnose(pod("PostStartHookError", hook_error(said, SCRIPT)))
    assert found is not None
    assert found[0] is Reason.NO_DEVICE


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


PULL = 'failed to pull and unpack image "registry.example.com/m:1": failed to resolve reference: '


@pytest.mark.parametrize(
    ("reason", "said", "advice"),
    [
        ("ErrImagePull", PULL + "registry.example.com/m:1: not found: No such file", "there is no such image"),
        ("ErrImagePull", PULL + "pull access denied, repository does not exist", "imageRepoSecret"),
        ("ErrImagePull", PULL + "unexpected status: 401 Unauthorized", "imageRepoSecret"),
        ("ErrImagePull", PULL + "no match for platform in manifest: not found", "architecture"),
        ("ErrImagePull", PULL + "dial tcp: lookup registry.example.com: no such host", "does not reach"),
        ("ErrImagePull", PULL + "tls: failed to verify certificate: x509: unknown authority", "does not trust"),
        ("ImagePullBackOff", 'Back-off pulling image "registry.example.com/m:1"', "cannot pull the image"),
        ("ImagePullBackOff", 'Back-off pulling image "m:1": ErrImagePull: manifest unknown', "no such image"),
        ("InvalidImageName", 'Failed to apply default image tag "A": couldn\'t parse image name', "cannot pull"),
        ("ErrImageNeverPull", 'Container image "m" is not present with pull policy of Never', "imagePullPolicy"),
        ("ImageInspectError", 'Failed to inspect image "m": rpc error', "cannot pull the image"),
        ("RegistryUnavailable", "image pull failed because the registry is unavailable", "cannot pull the image"),
        ("SignatureValidationFailed", "image pull failed for m because the signature", "cannot pull the image"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_told_from_a_load_that_failed(reason, said, advice):
    found = diagnose(pod(reason, said))
    assert found is not None
    assert found[0] is Reason.IMAGE_PULL_FAILED
    assert advice in found[1]
    assert f"({reason} on worker-1: {said})" in found[1]


def test_a_crash_loop_that_says_nothing_is_a_failed_load():
    found = diagnose(pod("CrashLoopBackOff", BACK_OFF))
    assert found == (Reason.LOAD_FAILED, f"CrashLoopBackOff on worker-1: {BACK_OFF}")


@pytest.mark.parametrize("reason", ["CrashLoopBackOff", "PostStartHookError"])
def test_what_a_script_has_left_says_why_where_the_kubelet_does_not(reason):
    message = BACK_OFF if reason == "CrashLoopBackOff" else hook_error("", SCRIPT)
    left = replace(pod(reason, message), termination_message=KMOD + "Key was rejected by service\n")
    found = diagnose(left)
    assert found is not None
    assert found[0] is Reason.KEY_REJECTED
    assert "Key was rejected by service" in found[1]


def test_a_driver_that_was_in_use_when_its_loader_was_stopped_stays_loaded():
    left = replace(pod("", ""), deleting=True, termination_message="modprobe: FATAL: Module m is in use.\n")
    found = diagnose_unload(left)
    assert found is not None
    assert found[0] is Reason.MODULE_IN_USE
    assert "stays loaded" in found[1]
    assert "(worker-1: modprobe: FATAL: Module m is in use.)" in found[1]
    assert diagnose_unload(replace(left, deleting=False)) is None
    assert diagnose_unload(replace(left, waiting_reason="CrashLoopBackOff")) is None, "it has never loaded"


@pytest.mark.parametrize("said", ["", "exited", KMOD + "Key was rejected by service"])
def test_a_loader_that_was_stopped_otherwise_leaves_nothing_to_tell(said):
    assert diagnose_unload(replace(pod("", ""), deleting=True, termination_message=said)) is None


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


def test_the_words_of_one_tool_are_not_taken_for_those_of_another():
    for said, reason in (
        ("sh: 1: cp: not found", Reason.COMMAND_MISSING),
        ("executable file `modprobe` not found in $PATH: No such file or directory", Reason.COMMAND_MISSING),
        ("mkdir: cannot create directory '/x': File exists", Reason.LOAD_FAILED),
    ):
        found = diagnose(pod("PostStartHookError", hook_error(said)))
        assert found is not None
        assert found[0] is reason, said
