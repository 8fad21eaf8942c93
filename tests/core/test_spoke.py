"""The plan for one Module as a whole: what is done, what is kept, and what a person is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kmm.api.metadata import PREFIX
from kmm.api.module import ModuleSpec
from kmm.api.schema import load
from kmm.catalog import Catalog, Plugin, build_catalog
from kmm.contract import CERTIFICATE_ANNOTATION, Finding, Kind, ModuleRef, Progress, State
from kmm.core import names
from kmm.core.actions import Announce, Create, Delete, Probe, SetStatus
from kmm.core.images import learn
from kmm.core.place import mark
from kmm.core.reasons import Reason
from kmm.core.spoke import plan_module
from kmm.core.view import (
    DaemonSet,
    KernelNodes,
    Missing,
    Operator,
    Pod,
    Present,
    Question,
    SecretFacts,
    Subject,
    Task,
    Unknown,
    View,
)
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


def remembered(**more) -> Task:
    """Return a signature that has failed for good with a Secret."""
    stands = mark("operator", "pin", PIN)
    return Task(**{
        "kind": JOB,
        "name": "t",
        "uid": "t",
        "namespace": "operator",
        "annotations": {names.VERBATIM_KERNEL: K1, names.ALONE: stands, names.ALONE_WITH: "pin"},
        "job_type": "sign",
        "progress": Progress(state=State.FAILED, final=True),
        "finished_at_s": 0.0,
        **more,
    })  # fmt: skip


PIN = SecretFacts(keys=("pin",), digest="p", sealed="s")
UNDER_WAY = {"progress": Progress(state=State.RUNNING), "finished_at_s": None}


@pytest.mark.parametrize("kernels", [{K1: 1}, {K2: 1}], ids=["no sign section", "no node"])
@pytest.mark.parametrize("state", [{}, UNDER_WAY], ids=["failed for good", "under way"])
def test_what_a_secret_read_alone_was_used_for_stays_until_that_changes(kernels, state):
    for secrets, gone in (
        ({"operator/pin": PIN}, []),
        ({"operator/pin": replace(PIN, sealed="other")}, ["t"]),
        ({}, ["t"]),
    ):
        made = plan(subject(), view(kernels=kernels, tasks=(remembered(**state),), secrets=secrets))
        assert [each.uid for each in made.actions if isinstance(each, Delete)] == gone
    over = remembered(progress=Progress(state=State.FAILED))
    made = plan(subject(), view(kernels=kernels, tasks=(over,), secrets={"operator/pin": PIN}))
    assert [each.uid for each in made.actions if isinstance(each, Delete)] == ["t"]


def test_a_failed_task_outlives_its_kernel_until_the_next_attempt_would_be_due():
    failed = Task(
        kind=JOB,
        name="t",
        uid="t",
        annotations={names.VERBATIM_KERNEL: "5.10"},
        job_type="build",
        progress=Progress(state=State.FAILED),
        finished_at_s=NOW_S - 59,
    )
    made = plan(subject(), view(tasks=(failed,)))
    assert not [each for each in made.actions if isinstance(each, Delete)]
    assert made.wake_at_s == NOW_S + 1
    due = plan(subject(), view(tasks=(replace(failed, finished_at_s=NOW_S - 60),)))
    assert [each.name for each in due.actions if isinstance(each, Delete)] == ["t"]
    unmapped = plan(subject(), view(kernels={"5.10": 1}, tasks=(failed,)))
    assert [each.name for each in unmapped.actions if isinstance(each, Delete)] == ["t"], "its node is there"


def test_a_write_that_was_refused_is_said_by_its_kernel_and_tried_again():
    of = subject()
    seen = view(kernels={K1: 1, K2: 1})
    first, second = (each for each in plan(of, seen).actions if isinstance(each, Create))
    refused = plan(of, replace(seen, refused={first.name: "quota exceeded", "another": "of what nobody wants now"}))
    assert [each.name for each in refused.actions if isinstance(each, Create)] == [first.name, second.name]
    kernels = {each["kernelVersion"]: each for each in status_of(refused)["kernels"]}
    assert (kernels[K1]["state"], kernels[K1]["reason"]) == ("Failed", Reason.WRITE_REFUSED)
    assert kernels[K1]["message"] == "quota exceeded"
    assert kernels[K2]["reason"] == Reason.LOADING
    assert condition(refused, "Ready")["reason"] == Reason.WRITE_REFUSED


def test_a_device_plugin_that_was_refused_says_so():
    of = subject(spec=spec(devicePlugin={"container": {"image": "registry.example.com/p"}}))
    catalog = load_catalog()
    creates = [each.name for each in plan(of, view(), catalog).actions if isinstance(each, Create)]
    made = plan(of, view(refused={creates[-1]: "quota exceeded"}), catalog)
    ready = condition(made, "DevicePluginReady")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", Reason.WRITE_REFUSED, "quota exceeded")


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


BUILDS = [
    {
        "regexp": "^6",
        "containerImage": "r.example.com/a:${KERNEL_FULL_VERSION}",
        "build": {"dockerfileConfigMap": {"name": "d"}},
    }
]


class Builder:
    owns = (JOB,)
    requires = ()
    name = "b"

    def __init__(self, made=None):
        self.made = {"template": {"spec": {"containers": [{"name": "c"}]}}} if made is None else made

    def render(self, request):
        assert request.image
        return [{"apiVersion": "batch/v1", "kind": "Job", "spec": self.made}]

    def observe(self, objects, pods):
        return Progress(state=State.PENDING if not objects and not pods else State.RUNNING)


def with_builder(made=None) -> Catalog:
    return build_catalog([Plugin(name="b", distribution="b", version="1", builders=(Builder(made),))])


def test_which_builder_was_chosen_is_kept_in_the_status():
    of, seen = subject(spec=spec(BUILDS)), view(dockerfiles={"d": ("dockerfile", "FROM a")}, answers=missing(K1))
    made = status_of(plan(of, seen, with_builder()))
    assert made["builder"] == "b"
    unknown = replace(seen, status=made, openshift_builds=Unknown(message="it is away"))
    assert [each.kind.kind for each in others(plan(of, unknown, with_builder()))] == ["Job"]
    named = [{**BUILDS[0], "build": {**BUILDS[0]["build"], "builder": "b"}}]
    assert status_of(plan(subject(spec=spec(named)), unknown, with_builder()))["builder"] is None
    blocked = replace(subject(spec=None), errors=(Finding(path="spec.x", message="is wrong"),))
    assert status_of(plan(blocked, unknown, with_builder()))["builder"] == "b"


def test_while_nobody_knows_what_builds_nothing_is_started_and_what_runs_goes_on():
    of, seen = subject(spec=spec(BUILDS)), view(dockerfiles={"d": ("dockerfile", "FROM a")}, answers=missing(K1))
    running = plan(of, seen, with_builder())
    (create,) = others(running)
    task = Task(
        kind=JOB,
        name=create.name,
        uid="t",
        annotations=create.manifest["metadata"]["annotations"],
        job_type="build",
        progress=Progress(state=State.RUNNING),
    )
    unknown = replace(seen, openshift_builds=Unknown(message="it is away"))
    for tasks in ((), (task,)):
        made = plan(of, replace(unknown, tasks=tasks), with_builder())
        assert others(made) == []
        (kernel,) = status_of(made)["kernels"]
        assert (kernel["state"], kernel["reason"]) == ("Pending", Reason.BUILDER_UNDECIDED)
        assert "the API server did not say: it is away" in condition(made, "ImagesReady")["message"]
        assert condition(made, "PluginsAvailable")["status"] == "True"
    there = {Question(image=f"r.example.com/a:{K1}"): Present(digest="sha256:1")}
    loads = others(plan(of, replace(unknown, answers=there), with_builder()))
    assert [each.kind.kind for each in loads] == ["DaemonSet"], "what is there needs no builder"


def missing(*images: str) -> dict:
    return {Question(image=f"r.example.com/a:{image}"): Missing() for image in images}


@pytest.mark.parametrize("slots", [0, 1])
def test_a_plan_says_whether_it_waits_for_a_slot(slots):
    seen = view(dockerfiles={"d": ("dockerfile", "FROM a")}, answers=missing(K1), build_slots=slots)
    made = plan(subject(spec=spec(BUILDS)), seen, with_builder())
    assert (made.queued, [each.kind.kind for each in others(made)]) == (not slots, ["Job"] * slots)


@pytest.mark.parametrize("slots", [0, 1])
def test_a_plan_says_whether_it_waits_for_a_slot_though_the_image_is_loaded_meanwhile(slots):
    signing = {"unsignedImage": "r.example.com/u", "keySecret": {"name": "k"}, "certSecret": {"name": "c"}}
    of = subject(spec=spec([{"regexp": "^6", "containerImage": "r.example.com/a", "sign": signing}]))
    there = Present(digest="sha256:0", annotations={CERTIFICATE_ANNOTATION: "old"})
    secrets = {name: SecretFacts(keys=(), digest="d", certificate="new") for name in ("k", "c")}
    asked = Question(image="r.example.com/a", annotations=True)
    seen = view(answers={asked: there}, secrets=secrets, build_slots=slots)
    catalog = build_catalog([Plugin(name="b", distribution="b", version="1", signers=(Builder(),))])
    ready = loader(K1, of, seen, available=2, ready=2)
    answers = {replace(asked, evidence=ready.uid): there}
    made = plan(of, replace(seen, daemon_sets=(ready,), answers=answers), catalog)
    assert (made.queued, [each.kind.kind for each in others(made)]) == (not slots, ["Job"] * slots)
    assert status_of(made)["kernels"][0]["reason"] == Reason.LOADED


def test_of_many_that_wait_no_more_are_asked_for_again_than_there_are_slots():
    kernels = [f"6.{number}.0" for number in range(9)]
    answers = missing(*kernels)
    files = {"d": ("dockerfile", "FROM a")}
    seen = view(kernels=dict.fromkeys(kernels, 1), dockerfiles=files, answers=answers, stale=frozenset(answers))
    made = plan(subject(spec=spec(BUILDS)), replace(seen, build_slots=2), with_builder())
    assert [each.question.image for each in made.actions if isinstance(each, Probe)] == [
        f"r.example.com/a:{kernel}" for kernel in kernels[:2]
    ]
    assert (made.starts, made.queued) == (0, True)
    fresh = plan(subject(spec=spec(BUILDS)), replace(seen, build_slots=2, stale=frozenset()), with_builder())
    assert (fresh.starts, fresh.queued) == (2, True)


def test_two_kernels_with_one_image_name_never_have_two_pushers():
    of = subject(spec=spec(BUILDS))
    seen = view(kernels={K1: 1, f"{K1}+": 1}, dockerfiles={"d": ("dockerfile", "FROM a")}, answers=missing(K1))
    made = plan(of, seen, with_builder())
    assert [each.kind.kind for each in others(made)] == ["Job"]
    reasons = {each["kernelVersion"]: each["reason"] for each in status_of(made)["kernels"]}
    assert reasons == {K1: Reason.BUILDING, f"{K1}+": Reason.MAPPING_UNREADABLE}


def test_an_image_that_two_kernels_share_is_loaded_on_both_once_it_is_there():
    of = subject(spec=spec(BUILDS))
    there = {Question(image=f"r.example.com/a:{K1}"): Present(digest="sha256:0")}
    made = plan(of, view(kernels={K1: 1, f"{K1}+": 1}, answers=there), with_builder())
    assert [each.kind.kind for each in others(made)] == ["DaemonSet", "DaemonSet"]


@pytest.mark.parametrize("evidence", ["", "of a task that is gone"])
def test_the_digest_that_the_registry_said_is_told_though_it_is_not_asked_again(evidence):
    of = subject(spec=spec(BUILDS))
    told = {
        Question(image=f"r.example.com/a:{K1}", evidence=each): Present(digest="sha256:0") for each in ("", evidence)
    }
    ready = loader(K1, of, view(answers={Question(image=f"r.example.com/a:{K1}"): Present(digest="sha256:0")}))
    made = plan(of, view(daemon_sets=(replace(ready, available=2, ready=2),), answers=told))
    (kernel,) = status_of(made)["kernels"]
    assert (kernel["reason"], kernel["digest"]) == ("Loaded", "sha256:0")


def test_that_an_image_is_there_takes_back_every_missing_about_it():
    image, other = Question(image="a", evidence="old"), Question(image="b")
    answers = learn({image: Missing(), other: Missing()}, Question(image="a", evidence="new"), Present(digest="d"))
    assert set(answers) == {other, Question(image="a", evidence="new")}
    unknown = learn({image: Present(digest="d")}, Question(image="a", evidence="new"), Missing())
    assert image in unknown


@pytest.mark.parametrize(
    "rendered",
    [
        [1],
        "x",
        {"template": {"spec": {"containers": ["x"]}}},
        {"template": {"spec": {"containers": 5}}},
        {"template": {"metadata": [1], "spec": {"containers": [{}]}}},
        {"a": {1}},
    ],
)
def test_a_renderer_of_odd_things_fails_its_kernels_and_not_the_plan(rendered):
    of = subject(spec=spec([*BUILDS, {"literal": "5.10", "containerImage": "a"}]))
    seen = view(kernels={K1: 1, "5.10": 1}, dockerfiles={"d": ("dockerfile", "FROM a")}, answers=missing(K1))
    made = plan(of, seen, with_builder(rendered))
    assert [each.kind.kind for each in others(made)] == ["DaemonSet"]
    assert condition(made, "PluginsAvailable")["reason"] == Reason.RENDERER_FAILED


@pytest.mark.parametrize("kernel", ["", ".", "..", "../../etc", "a:b", "a\nb", "a\x00b", "a b", "\ud800", "é"])
def test_a_kernel_that_is_no_folder_is_an_error_of_that_kernel(kernel):
    made = plan(subject(spec=spec([{"regexp": ".*", "containerImage": "a"}])), view(kernels={kernel: 1, K1: 1}))
    assert len(others(made)) == 1
    reasons = {each["kernelVersion"]: each["reason"] for each in status_of(made)["kernels"]}
    assert reasons[kernel] == Reason.MAPPING_UNREADABLE


def test_an_image_named_by_its_digest_can_be_loaded_but_not_built():
    digest = f"r.example.com/a@sha256:{'0' * 64}"
    assert len(others(plan(subject(spec=spec([{"regexp": ".", "containerImage": digest}])), view()))) == 1
    made = plan(subject(spec=spec([{**BUILDS[0], "containerImage": digest}])), view())
    assert others(made) == []
    assert "named by its digest" in condition(made, "Loaded")["message"]


@pytest.mark.parametrize(
    "odd",
    [
        {"kernels": "x"},
        {"kernels": ["x", None, {"kernelVersion": ["a"]}, {"kernelVersion": K1, "reason": ["x"]}]},
        {"conditions": "x"},
        {"conditions": ["x", {"type": 5}]},
        {"moduleLoader": 5},
    ],
)
def test_a_status_that_cannot_be_read_is_written_anew(odd):
    made = plan(subject(), view(status=odd))
    assert plan(subject(), view(status=status_of(made), daemon_sets=(loader(K1, subject(), view()),))).actions == ()


def test_what_was_known_of_kernels_is_kept_while_nothing_is_done():
    first = status_of(plan(subject(), view()))
    blocked = status_of(plan(subject(spec=None), view(status=first)))
    assert blocked["kernels"] == first["kernels"]
    assert blocked["moduleLoader"]["desiredNumber"] == 2


def test_beyond_the_hundredth_kernel_nothing_is_told_again_and_again():
    kernels = {f"5.{number}": 1 for number in range(130)}
    first = plan(subject(), view(kernels=kernels))
    (told,) = [each for each in first.actions if isinstance(each, Announce) and each.warning]
    assert told.message.startswith("kernels 5.0, 5.1, 5.10, 5.100, 5.101 and 95 more: no kernel mapping fits")
    later = plan(subject(), view(kernels={**kernels, "5.0": 2}, status=status_of(first)))
    assert [each for each in later.actions if isinstance(each, Announce)] == []
    assert status_of(later)["kernelsNotShown"] == 30


def test_a_failed_pull_is_told_by_its_first_words():
    of = subject()
    first = plan(of, failing(of, view(), "ErrImagePull", "denied: requested access"))
    later = replace(failing(of, view(), "ImagePullBackOff", "Back-off pulling image"), status=status_of(first))
    assert plan(of, later).actions == ()


def test_a_device_plugin_whose_name_is_taken_says_so():
    asked = subject(spec=spec(devicePlugin={"container": {"image": "a"}}))
    name = names.daemon_set_name("m", "u", names.DEVICE_PLUGIN, "", None)
    made = plan(asked, view(taken=frozenset({name})), load_catalog())
    assert condition(made, "DevicePluginReady")["reason"] == Reason.NAME_TAKEN
    assert condition(made, "PluginsAvailable")["status"] == "True"
