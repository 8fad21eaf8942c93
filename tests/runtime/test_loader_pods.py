"""What is read of loaders' pods, as kubelets of several releases write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from kmm.api.module import Modprobe
from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.commands import load_command
from kmm.core.diagnosis import diagnose, diagnose_unload
from kmm.core.reasons import Reason
from kmm.core.view import Pod
from kmm.runtime.kinds import PodFacts, read_pod, trim_pod

SAID = "modprobe: ERROR: could not insert 'm': Key was rejected by service\n"
ALONE, SCRIPT = Modprobe(module_name="m"), Modprobe(module_name="m", firmware_path="/firmware")
BACK_OFF = "back-off 10s restarting failed container=module-loader pod=m-1_n(u)"


def killed(message: str = "") -> dict[str, Any]:
    """How a container ends whose hook has failed: `sleep` takes no SIGTERM."""
    ended = {"exitCode": 137, "reason": "Error", "containerID": "containerd://0a"}
    return {"terminated": ended | ({"message": message} if message else {})}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason} | ({"message": message} if message else {})}


def hook_error(modprobe: Modprobe, said: str, release: tuple[int, int]) -> dict[str, Any]:
    """The state of a container whose postStart hook has just failed, as a release of the kubelet writes it.

    Its output was lost up to 1.21: the reason itself holds stderr. A script's stderr is empty: it prints all.
    """
    argv = load_command(modprobe, ())
    command, errors = " ".join(argv), "" if argv[0] == "/bin/sh" else said
    error = f"command '{command}' exited with 1: {errors}"
    if release < (1, 22):
        return waiting(f"PostStartHookError: {error}")
    hook = (
        f'Exec lifecycle hook ([{command}]) for Container "module-loader" in Pod "m-1_n(u)" failed - error: {error}'
    )
    return waiting("PostStartHookError", f"{hook}, message: {json.dumps(said)}")


def facts(state: Mapping[str, Any], last: Mapping[str, Any] | None = None, *, deleting: bool = False) -> PodFacts:
    container = {"name": "module-loader", "state": state, "lastState": last or {}, "restartCount": 1}
    meta: dict[str, Any] = {"name": "m-1", "namespace": "n", "uid": "u", "labels": {names.ROLE: names.LOADER}}
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    body = {"metadata": meta, "spec": {"nodeName": "worker-1"}, "status": {"containerStatuses": [container]}}
    return trim_pod(read_pod(json.dumps(body).encode()))


def diagnosed(found: PodFacts) -> tuple[Reason, str] | None:
    judge = diagnose_unload if found.deleting else diagnose
    return judge(
        Pod(
            name="m-1",
            uid="u",
            module=ModuleRef(namespace="n", name="m"),
            module_uid="uid",
            role=found.role,
            node=found.node,
            kernel="6.1.0",
            deleting=found.deleting,
            waiting_reason=found.waiting_reason,
            waiting_message=found.waiting_message,
            termination_message=found.termination_message,
        )
    )


def silent(found: PodFacts) -> bool:
    return not (found.waiting_reason or found.waiting_message or found.termination_message)


@pytest.mark.parametrize("release", [(1, 20), (1, 21), (1, 22), (1, 28), (1, 36)], ids="{0[0]}.{0[1]}".format)
@pytest.mark.parametrize("modprobe", [ALONE, SCRIPT], ids=["alone", "script"])
def test_why_a_hook_failed_is_found_in_what_each_kubelet_writes(release, modprobe):
    # A script leaves it in the termination log too, and there it is where the kubelet does not tell it.
    last = killed(SAID if modprobe is SCRIPT else "")
    found = facts(hook_error(modprobe, SAID, release), last)
    assert found.waiting_reason == "PostStartHookError"
    reason, message = diagnosed(found)
    assert reason is Reason.KEY_REJECTED
    assert message.endswith(f"(worker-1: {SAID.strip()})")


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_made_says_nothing(reason):
    assert silent(facts(waiting(reason), killed(SAID)))


def test_a_loader_that_runs_says_nothing_whatever_was_before():
    assert silent(facts({"running": {"startedAt": "2026-01-01T00:00:00Z"}}, killed(SAID)))


def test_in_a_crash_loop_what_a_script_left_says_why():
    reason, message = diagnosed(facts(waiting("CrashLoopBackOff", BACK_OFF), killed(SAID)))
    assert reason is Reason.KEY_REJECTED
    assert SAID.strip() in message


def test_a_loader_that_goes_says_what_it_left_when_it_was_stopped():
    in_use = "modprobe: FATAL: Module m is in use.\n"
    reason, message = diagnosed(facts(killed(in_use), deleting=True))
    assert reason is Reason.MODULE_IN_USE
    assert in_use.strip() in message


def test_a_loader_that_is_being_stopped_does_not_say_how_it_ended_before():
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert silent(facts(running, killed("modprobe: FATAL: Module m is in use."), deleting=True))


@pytest.mark.parametrize(
    ("state", "last"),
    [
        (waiting("PostStartHookError", "x" * 1_000_000 + SAID), {}),
        (waiting("PostStartHookError: " + "x" * 1_000_000 + SAID), {}),
        (waiting("CrashLoopBackOff", BACK_OFF), killed("x" * 1_000_000 + SAID)),
    ],
    ids=["message", "reason", "left"],
)
def test_of_a_long_message_the_end_is_kept(state, last):
    found = facts(state, last)
    assert len(found.waiting_reason) + len(found.waiting_message) + len(found.termination_message) < 10_000
    reason, message = diagnosed(found)
    assert reason is Reason.KEY_REJECTED
    assert len(message) < 1024


@pytest.mark.parametrize("container", [{}, {"state": None}, {"state": {"waiting": None}}, {"lastState": None}])
def test_what_is_null_of_a_container_is_not_there(container):
    body = {"metadata": {"name": "m-1"}, "status": {"containerStatuses": [container]}}
    assert silent(trim_pod(body))
