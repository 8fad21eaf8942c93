"""The plan for one Module as a whole: what is done, what is kept, and what a person is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kmm.api.metadata import PREFIX
from kmm.api.module import ModuleSpec
from kmm.api.schema import load
from kmm.catalog import Catalog
from kmm.contract import Finding, Kind, ModuleRef, Progress, State
from kmm.core import names
from kmm.core.actions import Announce, Create, Delete, SetStatus
from kmm.core.reasons import Reason
from kmm.core.spoke import plan_module
from kmm.core.view import DaemonSet, KernelNodes, Operator, Pod, Subject, Task, View
from kmm.loader import load_catalog

JOB = Kind(api_version="batch/v1", kind="Job", plural="jobs")
REF = ModuleRef(namespace="n", name="m")
K1, K2 = "6.1.0-18-amd64", "6.1.0-20-amd64"
NOW_S = 1_000_000.0


def spec(mappings=({"regexp": "^6", "containerImage": "registry.example.com/a"},), **more) -> ModuleSpec:
    container = {"modprobe": {"moduleName": "m"}, "kernelMappings": list(mappings), **more.pop("container", {})}
    value, findings = load(ModuleSpec, {"selector": {"a": "b"}, "moduleLoader": {"container": container}, **more})
    assert value is not None, findings
    return value


def subject(**more) -> Subject:
    return Subject(**{"ref": REF, "uid": "u", "spec": spec(), "generation": 7, **more})


def view(**more) -> View:
    kernels = more.pop("kernels", {K1: 2})
    fields = {
        "targets": {kernel: KernelNodes(nodes=count) for kernel, count in kernels.items()},
        "kernels": frozenset(kernels),
        "operator": Operator(namespace="operator"),
        "namespace_labels": {"pod-security.kubernetes.io/enforce": "privileged"},
    }
    return View(**fields | more)


def plan(of: Subject, seen: View, catalog: Catalog | None = None):
    return plan_module(of, seen, catalog or Catalog(), NOW_S)


def loader(kernel: str, of: Subject, seen: View, **more) -> DaemonSet:
    """The loader that the operator would have made for a kernel."""
    kernels = {each: KernelNodes(nodes=1) for each in {*seen.kernels, kernel}}
    wanted = plan(of, replace(seen, targets=kernels, kernels=frozenset(kernels), daemon_sets=()))
    (manifest,) = [
        each.manifest
        for each in wanted.actions
        if isinstance(each, Create) and each.manifest["metadata"]["annotations"][names.VERBATIM_KERNEL] == kernel
    ]
    fields = {
        "kind": Kind(api_version="apps/v1", kind="DaemonSet", plural="daemonsets"),
        "name": manifest["metadata"]["name"],
        "uid": f"uid-{kernel}",
        "labels": manifest["metadata"]["labels"],
        "annotations": manifest["metadata"]["annotations"],
        "selector": manifest["spec"]["selector"]["matchLabels"],
        "role": names.LOADER,
    }
    return DaemonSet(**fields | more)


def status_of(made) -> dict:
    (found,) = [each.status for each in made.actions if isinstance(each, SetStatus)]
    return dict(found)


def condition(made, type_: str) -> dict:
    (found,) = [each for each in status_of(made)["conditions"] if each["type"] == type_]
    return found


def others(made) -> list:
    return [each for each in made.actions if not isinstance(each, SetStatus | Announce)]


def test_a_mapping_without_build_and_sign_is_never_gated():
    made = plan(subject(), view(kernels={K1: 2, K2: 1}))
    assert [each.kind.kind for each in others(made)] == ["DaemonSet", "DaemonSet"]
    assert condition(made, "Ready")["reason"] == Reason.LOADING


def test_a_kernel_without_a_mapping_is_normal_and_stops_no_other():
    made = plan(subject(spec=spec([{"literal": K1, "containerImage": "a"}])), view(kernels={K1: 2, K2: 3}))
    assert len(others(made)) == 1
    counts = status_of(made)["moduleLoader"]
    assert counts == {"nodesMatchingSelectorNumber": 5, "desiredNumber": 2, "availableNumber": 0}
    assert [each.reason for each in made.actions if isinstance(each, Announce)] == [Reason.NO_MAPPING]


def test_a_mapping_that_cannot_be_used_for_one_kernel_stops_no_other():
    mappings = [{"regexp": ".", "containerImage": "registry.example.com/a:${KERNEL_X}"}]
    made = plan(subject(spec=spec(mappings)), view(kernels={"6": 1, K1: 1}))
    assert len(others(made)) == 1
    reasons = {each["kernelVersion"]: each["reason"] for each in status_of(made)["kernels"]}
    assert reasons == {"6": Reason.MAPPING_UNREADABLE, K1: Reason.LOADING}


@pytest.mark.parametrize(
    ("of", "seen", "reason"),
    [
        (subject(spec=None, errors=(Finding(path="spec.x", message="is wrong"),)), view(), Reason.INVALID_SPEC),
        (subject(spec=spec(container={"version": "1"})), view(), Reason.VERSION_UNSUPPORTED),
        (subject(), view(namespace_labels={}), Reason.NAMESPACE_NOT_PRIVILEGED),
    ],
)
def test_a_module_that_cannot_be_rolled_out_says_why_and_keeps_what_runs(of, seen, reason):
    running = loader(K1, subject(), view())
    made = plan(of, replace(seen, daemon_sets=(running,)))
    assert others(made) == []
    ready = condition(made, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert reason in made.reasons[""]


@pytest.mark.parametrize(
    "operator",
    [Operator(namespace="n"), Operator(privileged_namespaces=frozenset({"n"})), Operator(openshift=True)],
)
def test_where_privileged_pods_are_allowed(operator):
    assert len(others(plan(subject(), view(namespace_labels={}, operator=operator)))) == 1


def test_no_targeted_node_is_ready_with_a_reason():
    ready = condition(plan(subject(), view(kernels={})), "Ready")
    assert (ready["status"], ready["reason"]) == ("True", Reason.NO_NODES)


def test_nothing_is_done_for_a_module_that_is_being_deleted_or_before_the_watches_have_synced():
    assert plan(subject(deleting=True), view()).actions == ()
    assert plan(subject(), view(synced=False)).actions == ()


def test_when_all_is_loaded_nothing_is_left_to_do_and_it_is_told_once():
    of, seen = subject(), view()
    done = replace(seen, daemon_sets=(loader(K1, of, seen, available=2, ready=2, scheduled=2),))
    first = plan(of, done)
    assert others(first) == []
    assert [each.reason for each in first.actions if isinstance(each, Announce)] == [Reason.LOADED]
    assert status_of(first)["observedGeneration"] == 7
    assert {each["status"] for each in status_of(first)["conditions"]} == {"True"}
    assert plan(of, replace(done, status=status_of(first))).actions == ()


def test_a_loader_whose_kernel_no_targeted_node_runs_is_removed():
    of, seen = subject(), view()
    gone = loader(K2, of, seen)
    (deleted,) = [each for each in plan(of, replace(seen, daemon_sets=(gone,))).actions if isinstance(each, Delete)]
    assert (deleted.name, deleted.uid) == (gone.name, gone.uid)


def test_a_loader_whose_kernel_lost_its_mapping_is_removed_but_not_where_the_mapping_cannot_be_read():
    seen = view()
    running = loader(K1, subject(), seen)
    lost = subject(spec=spec([{"literal": "5", "containerImage": "a"}]))
    assert [type(each) for each in others(plan(lost, replace(seen, daemon_sets=(running,))))] == [Delete]
    unreadable = subject(spec=spec([{"literal": K1, "containerImage": "a:${KERNEL_X}-" + "x" * 200}]))
    assert others(plan(unreadable, replace(seen, daemon_sets=(running,)))) == []


def test_tasks_that_nothing_wants_are_removed():
    of = subject()
    labels = {names.JOB_TYPE: "build"}
    tasks = tuple(
        Task(
            kind=JOB,
            name=f"t-{kernel}",
            uid=kernel,
            labels=labels,
            annotations={names.VERBATIM_KERNEL: kernel},
            job_type="build",
            progress=Progress(state=State.RUNNING),
        )
        for kernel in (K1, "5.10")
    )
    deleted = {each.name for each in plan(of, view(tasks=tasks)).actions if isinstance(each, Delete)}
    assert deleted == {f"t-{K1}", "t-5.10"}, "the one kernel has no build section any more, the other no node"


def failing(of: Subject, seen: View, reason: str, message: str) -> View:
    pod = Pod(
        name="p",
        uid="p",
        module=REF,
        module_uid=of.uid,
        role=names.LOADER,
        node="worker-1",
        kernel=K1,
        waiting_reason=reason,
        waiting_message=message,
    )
    return replace(seen, daemon_sets=(loader(K1, of, seen),), pods=(pod,))


def test_why_a_load_failed_is_told_and_kept_when_the_kubelet_says_less():
    of = subject()
    seen = failing(
        of, view(), "PostStartHookError", "modprobe: ERROR: could not insert 'm': Key was rejected by service"
    )
    first = plan(of, seen)
    loaded = condition(first, "Loaded")
    assert loaded["reason"] == Reason.KEY_REJECTED
    assert "enrol its certificate" in loaded["message"]
    assert [each.reason for each in first.actions if isinstance(each, Announce)] == [Reason.KEY_REJECTED]
    later = replace(failing(of, view(), "CrashLoopBackOff", "back-off 5m0s restarting"), status=status_of(first))
    assert plan(of, later).actions == ()


def test_the_device_plugin_is_there_while_it_is_asked_for():
    asked = subject(spec=spec(devicePlugin={"container": {"image": "registry.example.com/p:${MOD_NAME}"}}))
    made = plan(asked, view(), load_catalog())
    (create,) = [each for each in others(made) if "device-plugin" in each.name]
    pod = create.manifest["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"a": "b", f"{PREFIX}n.m.ready": ""}
    assert pod["containers"][0]["image"] == "registry.example.com/p:m"
    metadata = create.manifest["metadata"]
    running = DaemonSet(
        kind=create.kind,
        name=create.name,
        uid="dp",
        role=names.DEVICE_PLUGIN,
        labels=metadata["labels"],
        annotations=metadata["annotations"],
        selector=create.manifest["spec"]["selector"]["matchLabels"],
    )
    assert not any(
        "device-plugin" in each.name for each in others(plan(asked, view(daemon_sets=(running,)), load_catalog()))
    )
    (deleted,) = [each for each in plan(subject(), view(daemon_sets=(running,))).actions if isinstance(each, Delete)]
    assert deleted.uid == "dp"


def test_a_renderer_that_is_missing_is_told_and_stops_no_loader():
    asked = subject(spec=spec(devicePlugin={"container": {"image": "a"}, "renderer": "nonesuch"}))
    made = plan(asked, view())
    assert len(others(made)) == 1
    available = condition(made, "PluginsAvailable")
    assert (available["status"], available["reason"]) == ("False", Reason.PLUGIN_MISSING)
    assert 'no device-plugin renderer "nonesuch"' in available["message"]


def test_a_build_without_any_builder_is_told():
    building = spec([{"regexp": "^6", "containerImage": "a", "build": {"dockerfileConfigMap": {"name": "d"}}}])
    made = plan(subject(spec=building), view(dockerfiles={"d": ("dockerfile", "FROM a")}))
    assert others(made)[0].question.image == "a"
