"""The image of one kernel: there, built, signed; what is unknown starts nothing, and no unsigned image is final."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import pytest

from kmm.api.module import Module
from kmm.api.schema import load
from kmm.contract import Kind, ModuleRef, Place, Progress, State, Tls
from kmm.core.actions import Announce, Create, Delete, Probe
from kmm.core.images import ImageStep, Makers, Phase, back_off_s, image_step, kept_until_s, temporary_image
from kmm.core.mapping import resolve
from kmm.core.reasons import Reason
from kmm.core.view import (
    Denied,
    KernelNodes,
    Missing,
    Operator,
    Owned,
    Pod,
    Present,
    Question,
    SecretFacts,
    Subject,
    Task,
    TaskPod,
    Unknown,
    View,
)
from kmm.errors import PluginError, SpecError

PREFIX = "kmm.node.kubernetes.io/"
JOB = Kind(api_version="batch/v1", kind="Job", plural="jobs")
CONFIG_MAP = Kind(api_version="v1", kind="ConfigMap", plural="configmaps")
KERNEL = "6.1.0-18-amd64"
IMAGE = f"registry.example.com:5000/acme/driver:{KERNEL}"
TEMPORARY = f"{IMAGE}-n_m_kmm_unsigned"
UNSIGNED = "registry.example.com/acme/unsigned:1"
NOW_S = 1_700_000_000.0
LONG_S = 1e9
INPUTS_RECORDED = "io.x-k8s.kmm.inputs"
CERTIFICATE_RECORDED = "io.x-k8s.kmm.certificate"
UNSIGNED_RECORDED = "io.x-k8s.kmm.unsigned"

SIGNING = {"certSecret": {"name": "cert"}, "keySecret": {"name": "key"}}
BUILD = {"build": {"dockerfileConfigMap": {"name": "files"}}}
SIGN = {"sign": {**SIGNING, "unsignedImage": UNSIGNED}}
BUILD_AND_SIGN = {**BUILD, "sign": SIGNING}
EACH_WAY = pytest.mark.parametrize("how", [BUILD, SIGN, BUILD_AND_SIGN], ids=["build", "sign", "build and sign"])
UNFINISHED_OR_FAILED = pytest.mark.parametrize("state", [State.PENDING, State.RUNNING, State.FAILED])

SECRETS = {
    "cert": SecretFacts(keys=("cert",), digest="c", certificate="new"),
    "key": SecretFacts(keys=("key",), digest="k"),
    "push": SecretFacts(keys=(".dockerconfigjson",), digest="p"),
    "build": SecretFacts(keys=("token",), digest="b"),
}
DOCKERFILES = {"files": ("dockerfile", "FROM scratch"), "others": ("dockerfile", "FROM scratch AS other")}


@dataclass(frozen=True)
class Fake:
    """A renderer whose one Job says all that it was asked for."""

    name: str = "fake"
    owns: tuple[Kind, ...] = (JOB,)
    requires: tuple[str, ...] = ()
    makes: Any = None

    def render(self, request):
        if isinstance(self.makes, Exception):
            raise self.makes
        pod = {"containers": [{"name": "make"}], "restartPolicy": "Never"}
        spec = {"request": dataclasses.asdict(request), "template": {"spec": pod}}
        return [{"apiVersion": "batch/v1", "kind": "Job", "spec": spec}] if self.makes is None else self.makes

    def observe(self, objects, pods):
        return Progress(state=State.PENDING)


class All(dict):
    """The same answer to every question that it has no other for."""

    def __init__(self, answer, others=()):
        super().__init__(others)
        self.answer = answer

    def get(self, question, default=None):
        return super().get(question, self.answer)


MISSING = All(Missing())


def maker(**fakes) -> Makers:
    def named(name):
        return fakes.get("renderer") or Fake(name=name or "fake")

    return Makers(builder=fakes.get("builder", named), signer=fakes.get("signer", named))


def plan(
    how: dict,
    *,
    answers=MISSING,
    tasks=(),
    now_s=NOW_S,
    proven=False,
    loader="",
    kernel=KERNEL,
    architectures=("amd64",),
    name="m",
    spec=None,
    makers=None,
    **view,
) -> ImageStep:
    """Plan the image of one kernel for a Module whose container is `how`."""
    container = {
        "containerImage": "registry.example.com:5000/acme/driver:$KERNEL_FULL_VERSION",
        "modprobe": {"moduleName": "acme"},
        "kernelMappings": [{"regexp": "."}],
        **how,
    }
    manifest = {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "kind": "Module",
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"selector": {"a": "b"}, "moduleLoader": {"container": container}, **(spec or {})},
    }
    module, findings = load(Module, manifest)
    assert module is not None, findings
    subject = Subject(ref=ModuleRef(namespace="n", name=name), uid="module-uid", spec=module.spec)
    target = resolve(module.spec.module_loader.container, subject.ref, kernel)
    nodes = KernelNodes(nodes=1, architectures=frozenset(architectures))
    defaults = {"dockerfiles": DOCKERFILES, "secrets": SECRETS, "kernels": frozenset({kernel})}
    if isinstance(answers, All):
        answers = All(answers.answer, {wanting(how, question): answer for question, answer in answers.items()})
    else:
        answers = {wanting(how, question): answer for question, answer in answers.items()}
    view = {**view, "stale": frozenset(wanting(how, question) for question in view.get("stale", ()))}
    seen = View(**{**defaults, "tasks": tuple(tasks), "answers": answers, "targets": {kernel: nodes}, **view})
    step = image_step(subject, target, nodes, seen, makers or maker(), now_s, proven=proven, loader=loader)
    for probe in of(step, Probe):
        assert probe.question == wanting(how, probe.question)
    plainly = [Probe(question=plain(each.question)) if isinstance(each, Probe) else each for each in step.actions]
    return dataclasses.replace(step, actions=tuple(plainly))


def wanting(how: dict, question: Question) -> Question:
    """Return a question as it is asked: annotations matter of what is signed, and of what was built to be signed."""
    return dataclasses.replace(question, annotations="sign" in how or question.image == TEMPORARY)


def plain(question: Question) -> Question:
    return dataclasses.replace(question, annotations=False)


def asked(image=IMAGE, evidence="", **tls) -> Question:
    return Question(image=image, tls=Tls(**tls), evidence=evidence)


def there(**annotations) -> Present:
    return Present(digest="sha256:1", annotations=annotations)


def of(step: ImageStep, type_: type) -> list[Any]:
    return [action for action in step.actions if isinstance(action, type_)]


def created(step: ImageStep) -> Create:
    (create,) = of(step, Create)
    return create


def deleted(step: ImageStep) -> list[str]:
    return [action.uid for action in of(step, Delete)]


def probed(step: ImageStep) -> list[Question]:
    return [action.question for action in of(step, Probe)]


def job_type(create: Create) -> str:
    return create.manifest["metadata"]["labels"][f"{PREFIX}job-type"]


def attempt_of(create: Create) -> str:
    return create.manifest["metadata"]["annotations"][f"{PREFIX}attempt"]


def inputs_of(create: Create) -> str:
    return create.manifest["metadata"]["annotations"][f"{PREFIX}inputs"]


def contents_of(create: Create) -> str:
    """Return the hash that a build is to record in its image."""
    return request_of(create)["inputs"]


def request_of(create: Create) -> dict:
    return create.manifest["spec"]["request"]


def task(create: Create, state: State, *, uid="task-uid", ago_s=0.0, attempt=None, deleting=False, **said) -> Task:
    """Return what the cluster holds of a created task, over since `ago_s`."""
    metadata = create.manifest["metadata"]
    annotations = dict(metadata["annotations"])
    if attempt is not None:
        annotations[f"{PREFIX}attempt"] = str(attempt)
    over = state in (State.SUCCEEDED, State.FAILED)
    return Task(
        kind=create.kind,
        name=create.name,
        uid=uid,
        namespace=create.namespace,
        labels=metadata["labels"],
        annotations=annotations,
        deleting=deleting,
        job_type=job_type(create),
        progress=Progress(state=state, **said),
        finished_at_s=NOW_S - ago_s if over else None,
    )


def started(how: dict, **more) -> Create:
    """Return the task that is started first."""
    return created(plan(how, **more))


def signing(how: dict = BUILD_AND_SIGN, **more) -> tuple[Create, Create]:
    """Return the build and the signature of a Module that has both."""
    build = started(how, **more)
    found = All(Missing(), {asked(TEMPORARY): there(**{INPUTS_RECORDED: contents_of(build)})})
    return build, created(plan(how, **{**more, "answers": found}))


# ── Exists ────────────────────────────────────────────────────────────────────────────────────────────────────


@EACH_WAY
def test_the_final_image_is_asked_for_first_and_nothing_is_started_before_the_answer(how):
    step = plan(how, answers={})
    assert (step.phase, step.reason) == (Phase.WAITING, Reason.CHECKING_IMAGE)
    assert step.actions == (Probe(question=asked()),)


@EACH_WAY
def test_an_image_that_is_there_is_ready_whoever_made_it(how):
    step = plan(how, answers={asked(): there()})
    assert (step.phase, step.reason, step.digest, step.actions) == (Phase.READY, Reason.IMAGES_READY, "sha256:1", ())


@EACH_WAY
def test_an_image_that_loaders_run_is_not_even_asked_for(how):
    step = plan(how, answers={}, proven=True)
    assert (step.phase, step.actions) == (Phase.READY, ())


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
def test_a_loader_that_cannot_pull_its_image_is_a_reason_to_ask_again(reason):
    pod = Pod(
        name="p",
        uid="pod-uid",
        module=ModuleRef(namespace="n", name="m"),
        module_uid="module-uid",
        role="module-loader",
        node="a",
        kernel=KERNEL,
        waiting_reason=reason,
    )
    step = plan(BUILD, answers={asked(): there()}, proven=True, pods=(pod,))
    assert step.actions == (Probe(question=asked(evidence="pod-uid")),)
    again = plan(BUILD, answers={asked(evidence="pod-uid"): Missing()}, proven=True, pods=(pod,))
    assert job_type(created(again)) == "build"
    other = dataclasses.replace(pod, kernel="5.14.0")
    assert plan(BUILD, answers={}, proven=True, pods=(other,)).phase is Phase.READY


def test_the_registry_is_asked_in_the_way_that_the_mapping_says():
    tls = {"registryTLS": {"insecure": True, "insecureSkipTLSVerify": True}}
    step = plan({**BUILD, **tls}, answers={})
    assert probed(step) == [asked(insecure=True, skip_verify=True)]


def test_no_answer_that_is_older_than_a_loader_serves_it():
    step = plan(BUILD, answers={asked(): Missing()}, loader="loader-uid")
    assert step.actions == (Probe(question=asked(evidence="loader-uid")),)
    done = task(started(BUILD), State.SUCCEEDED)
    assert probed(plan(BUILD, answers={}, tasks=[done], loader="loader-uid")) == [asked(evidence="task-uid")]


@EACH_WAY
def test_unknown_is_never_missing(how):
    step = plan(how, answers={asked(): Unknown(message="the registry timed out")})
    assert (step.phase, step.reason) == (Phase.WAITING, Reason.REGISTRY_UNAVAILABLE)
    assert step.message == "the registry timed out"
    # It stays wanted; when it is asked again is not the plan's to say.
    assert (step.actions, step.wake_at_s, step.starts) == ((Probe(question=asked()),), None, 0)


@EACH_WAY
def test_nothing_is_started_from_an_answer_that_is_too_old(how):
    answers = {asked(): Missing(), asked(TEMPORARY): Missing()}
    step = plan(how, answers=answers, stale=frozenset({asked()}))
    assert (step.reason, step.actions, step.starts) == (Reason.CHECKING_IMAGE, (Probe(question=asked()),), 0)
    assert step.queued, "it keeps its place"
    fresh = plan(how, answers=answers)
    assert (fresh.starts, fresh.queued) == (1, False)
    # What finds no slot is not asked for before its turn.
    waiting = plan(how, answers=answers, stale=frozenset({asked()}), build_slots=0)
    assert (waiting.reason, waiting.actions, waiting.queued) == (Reason.BUILD_QUEUED, (), True)
    # What runs goes on, whatever was said when it began.
    running = task(created(plan(how, answers=answers)), State.RUNNING)
    step = plan(how, answers=answers, tasks=[running], stale=frozenset({asked()}))
    assert (step.actions, step.phase) == ((), Phase.WAITING)


def test_with_other_credentials_it_is_asked_anew():
    step = plan(BUILD, answers={asked(): Missing()}, access="others")
    assert step.actions == (Probe(question=dataclasses.replace(asked(), access="others")),)


@pytest.mark.parametrize("answer", [Unknown(message="x"), Denied(message="x"), None])
@pytest.mark.parametrize("state", list(State))
def test_what_runs_is_kept_while_the_answer_is_not_known(answer, state):
    running = task(started(BUILD), state, ago_s=LONG_S)
    changed = {"files": ("dockerfile", "FROM another")}
    step = plan(BUILD, answers=All(answer), tasks=[running], dockerfiles=changed)
    assert (of(step, Create), of(step, Delete)) == ([], [])


@EACH_WAY
def test_forbidden_starts_nothing_and_says_that_the_repository_may_not_exist_yet(how):
    step = plan(how, answers=All(Denied(message="401 after the credentials were accepted")))
    assert (step.phase, step.reason) == (Phase.BLOCKED, Reason.REGISTRY_FORBIDDEN)
    assert step.actions == (Probe(question=asked()),)
    assert step.message.startswith("401 after the credentials were accepted")
    assert "may not exist yet" in step.message


@EACH_WAY
def test_forbidden_means_missing_only_where_the_configuration_says_so_of_that_registry(how):
    denied = All(Denied(message="no"))
    means = Operator(denied_means_missing=frozenset({"registry.example.com:5000"}))
    assert plan(how, answers=denied, operator=means).starts == 1
    other = Operator(denied_means_missing=frozenset({"registry.example.com"}))
    assert plan(how, answers=denied, operator=other).starts == 0


@EACH_WAY
def test_an_index_that_lacks_an_architecture_starts_nothing_and_names_it(how):
    found = Present(digest="sha256:1", architectures=("amd64", "s390x"))
    step = plan(how, answers={asked(): found}, architectures=("amd64", "ppc64le", "arm64"))
    assert (step.phase, step.reason, step.actions) == (Phase.BLOCKED, Reason.ARCHITECTURE_MISSING, ())
    assert "arm64, ppc64le" in step.message


@pytest.mark.parametrize("found", [(), ("amd64", "arm64")])
def test_a_single_manifest_or_a_whole_index_serves_every_architecture(found):
    step = plan(BUILD, answers={asked(): Present(digest="d", architectures=found)}, architectures=("amd64", "arm64"))
    assert step.phase is Phase.READY


# ── What is started ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("how", "type_"), [(BUILD, "build"), (SIGN, "sign")])
def test_a_missing_image_starts_one_task_with_its_name_labels_annotations_and_owner(how, type_):
    step = plan(how)
    create = created(step)
    metadata = create.manifest["metadata"]
    assert create.kind == JOB
    assert re.fullmatch(f"m-{type_}-[0-9a-f]{{10}}", create.name)
    assert metadata["namespace"] == "n"
    assert metadata["labels"] == {
        f"{PREFIX}module.name": "m",
        f"{PREFIX}target-kernel": KERNEL,
        f"{PREFIX}job-type": type_,
    }
    assert metadata["annotations"] == {
        f"{PREFIX}kernel": KERNEL,
        f"{PREFIX}inputs": step.inputs,
        f"{PREFIX}attempt": "1",
        f"{PREFIX}provider": "fake",
    }
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
            "kind": "Module",
            "name": "m",
            "uid": "module-uid",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    reason = Reason.BUILDING if type_ == "build" else Reason.SIGNING
    assert (step.phase, step.reason, step.starts, step.attempts) == (Phase.WAITING, reason, 1, 0)
    assert re.fullmatch("[0-9a-f]{16,64}", step.inputs)


@pytest.mark.parametrize(("how", "reason"), [(BUILD, Reason.BUILD_STARTED), (SIGN, Reason.SIGN_STARTED)])
def test_a_start_is_announced_with_what_is_made_by_whom(how, reason):
    (said,) = of(plan(how), Announce)
    assert (said.reason, said.warning) == (reason, False)
    assert IMAGE in said.message
    assert "fake" in said.message
    assert KERNEL in said.message


def test_a_user_whose_argument_ours_wins_over_is_warned():
    arguments = [{"name": "A", "value": "1"}, {"name": "MOD_NAME", "value": "2"}, {"name": "KERNEL_VERSION"}]
    build = {**BUILD["build"], "buildArgs": arguments}
    (said,) = of(plan({"build": build}), Announce)
    assert (said.reason, said.warning) == (Reason.BUILD_STARTED, True)
    assert said.message.endswith(
        "; the value that buildArgs give to KERNEL_VERSION, MOD_NAME is not used: the operator sets it"
    )


def test_the_kernel_is_verbatim_in_the_annotation_and_safe_in_label_and_image():
    kernel = "6.1.0_rc1~x+"
    create = started(BUILD, kernel=kernel)
    metadata = create.manifest["metadata"]
    assert metadata["annotations"][f"{PREFIX}kernel"] == kernel
    assert metadata["labels"][f"{PREFIX}target-kernel"] == "6.1.0_rc1_x"
    assert request_of(create)["image"].endswith(":6.1.0_rc1_x")
    assert request_of(create)["kernel"] == kernel
    assert {"name": "KERNEL_VERSION", "value": kernel} in request_of(create)["args"]


def test_two_kernels_that_look_alike_as_a_label_have_different_labels_and_names():
    kernels = frozenset({"6.1.0", "6.1.0+"})
    one, other = (started(BUILD, kernel=kernel, kernels=kernels) for kernel in sorted(kernels))
    labels = [each.manifest["metadata"]["labels"][f"{PREFIX}target-kernel"] for each in (one, other)]
    assert len(set(labels)) == 2
    assert one.name != other.name


@pytest.mark.parametrize("how", [BUILD, SIGN])
def test_names_have_at_most_63_characters(how):
    create = started(how, name="m" + "-x" * 25 + "y")
    assert len(create.name) <= 63
    assert re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", create.name)


def test_the_same_view_starts_the_same_task_so_that_none_can_be_doubled():
    assert plan(BUILD) == plan(BUILD)


def test_the_builder_is_asked_with_all_that_the_module_says():
    build = {
        "dockerfileConfigMap": {"name": "files"},
        "buildArgs": [{"name": "A", "value": "$MOD_NAME"}],
        "secrets": [{"name": "build"}],
        "baseImageRegistryTLS": {"insecure": True},
        "kanikoParams": {"tag": "v1"},
        "selector": {"builds": "yes"},
        "params": {"x": [1]},
    }
    tolerations = [{"operator": "Exists"}]
    spec = {"imageRepoSecret": {"name": "push"}, "tolerations": tolerations}
    how = {"build": build, "registryTLS": {"insecureSkipTLSVerify": True}}
    request = request_of(started(how, spec=spec, architectures=("arm64",)))
    assert request["image"] == IMAGE
    assert request["architecture"] == "arm64"
    assert (request["dockerfile"], request["dockerfile_config_map"]) == ("FROM scratch", "files")
    assert request["dockerfile_key"] == "dockerfile"
    assert {"name": "A", "value": "m"} in request["args"]
    assert request["secrets"] == [{"name": "build", "keys": ["token"]}]
    assert request["push_secret"] == "push"
    assert request["push_tls"] == {"insecure": False, "skip_verify": True}
    assert request["base_tls"] == {"insecure": True, "skip_verify": False}
    assert (request["node_selector"], request["builder_tag"]) == ({"builds": "yes"}, "v1")
    assert (request["params"], list(request["tolerations"])) == ({"x": [1]}, tolerations)


def test_what_is_built_is_for_the_architecture_where_the_module_wants_it_built():
    build = {**BUILD["build"], "selector": {"kubernetes.io/arch": "arm64"}}
    request = request_of(started({"build": build}, architectures=("amd64", "arm64")))
    assert (request["architecture"], request["architectures"]) == ("arm64", [])


def test_where_the_nodes_have_several_architectures_the_image_is_for_all_of_them():
    request = request_of(started(BUILD, architectures=("ppc64le", "amd64", "arm64")))
    assert (request["architecture"], request["architectures"]) == ("amd64", ["amd64", "arm64", "ppc64le"])
    assert request_of(started(BUILD, architectures=("arm64",)))["architectures"] == []


def test_a_node_of_another_architecture_starts_a_build_again():
    build = started(BUILD, architectures=("amd64",))
    for architectures in (("arm64",), ("amd64", "arm64")):
        step = plan(BUILD, tasks=(task(build, State.RUNNING),), architectures=architectures)
        assert [each.name for each in step.actions] == [build.name]
        assert isinstance(step.actions[0], Delete)
    assert plan(BUILD, tasks=(task(build, State.RUNNING),), architectures=()).actions == ()


def test_the_signer_is_asked_with_all_that_the_module_says():
    sign = {
        **SIGN["sign"],
        "unsignedImageRegistryTLS": {"insecure": True},
        "filesToSign": ["/opt/lib/modules/$KERNEL_FULL_VERSION/a.ko"],
        "params": {"x": 1},
    }
    how = {"sign": sign, "modprobe": {"moduleName": "acme", "dirName": "/drivers"}}
    request = request_of(started(how, spec={"imageRepoSecret": {"name": "push"}}))
    assert (request["unsigned_image"], request["image"]) == (UNSIGNED, IMAGE)
    assert request["unsigned_tls"] == {"insecure": True, "skip_verify": False}
    assert (request["dir_name"], request["files"]) == ("/drivers", [f"/opt/lib/modules/{KERNEL}/a.ko"])
    secrets = [request[f"{which}_secret"] for which in ("cert", "key", "push")]
    assert secrets == ["cert", "key", "push"]
    assert request["params"] == {"x": 1}


def test_the_signer_is_told_which_secrets_have_credentials_and_a_change_of_them_is_another_task():
    request = request_of(started(SIGN, pull_secrets=("push", "of-the-account")))
    assert list(request["pull_secrets"]) == ["push", "of-the-account"]
    assert started(SIGN).name != started(SIGN, pull_secrets=("push",)).name


@pytest.mark.parametrize("how", [BUILD, SIGN])
def test_the_pods_of_a_task_hold_no_token_of_a_service_account(how):
    assert started(how).manifest["spec"]["template"]["spec"].get("automountServiceAccountToken") is False


@pytest.mark.parametrize("how", [BUILD, SIGN])
def test_a_task_pod_leaves_why_it_failed_in_its_termination_message(how):
    containers = started(how).manifest["spec"]["template"]["spec"]["containers"]
    assert [each.get("terminationMessagePolicy") for each in containers] == ["FallbackToLogsOnError"]


@pytest.mark.parametrize("how", [BUILD, SIGN])
def test_the_pods_of_a_task_have_the_label_that_our_watch_selects(how):
    template = started(how).manifest["spec"]["template"]
    assert template.get("metadata", {}).get("labels", {}).get(f"{PREFIX}module.name") == "m"


@pytest.mark.parametrize(
    "makes",
    [
        RuntimeError("boom"),
        [],
        7,
        "text",
        ["text"],
        [{"apiVersion": "v1", "kind": "Pod"}],
        [{"apiVersion": ["batch/v1"], "kind": {}}],
        [{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "other"}}],
        [{"apiVersion": "batch/v1", "kind": "Job", "metadata": []}, {"apiVersion": "v1", "kind": "Secret"}],
        [{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": ["a"]}}],
    ],
    ids=str,
)
def test_a_renderer_that_does_what_it_may_not_is_a_plugin_error(makes):
    with pytest.raises(PluginError, match="fake"):
        plan(BUILD, makers=maker(renderer=Fake(makes=makes)))


def test_labels_that_a_renderer_leaves_null_are_as_good_as_none():
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": None, "annotations": None}, "spec": {}}
    create = started(BUILD, makers=maker(renderer=Fake(makes=[job])))
    assert job_type(create) == "build"


def test_what_a_renderer_says_of_names_labels_and_owners_counts_for_nothing():
    said = {
        "name": "x",
        "generateName": "x-",
        "finalizers": ["x/y"],
        "ownerReferences": [{"uid": "other"}],
        "labels": {f"{PREFIX}module.name": "other", "own": "kept"},
        "annotations": {f"{PREFIX}attempt": "7"},
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": said, "spec": {}}
    metadata = started(BUILD, makers=maker(renderer=Fake(makes=[job]))).manifest["metadata"]
    assert metadata["name"].startswith("m-build-")
    assert not {"generateName", "finalizers"} & set(metadata)
    assert [each["uid"] for each in metadata["ownerReferences"]] == ["module-uid"]
    assert (metadata["labels"][f"{PREFIX}module.name"], metadata["labels"]["own"]) == ("m", "kept")
    assert metadata["annotations"][f"{PREFIX}attempt"] == "1"


def of_two(*kinds: str) -> Makers:
    """Return makers of tasks that are two objects."""
    versions = {"Job": "batch/v1", "ConfigMap": "v1"}
    objects = [{"apiVersion": versions[kind], "kind": kind, "spec": {}} for kind in kinds]
    return maker(renderer=Fake(owns=(JOB, CONFIG_MAP), makes=objects))


def halves(makers: Makers) -> tuple[Task, Owned]:
    """Return what is rendered for a task of two objects, as the cluster has it."""
    first, second = (
        task(create, State.RUNNING, uid=f"uid-{index}")
        for index, create in enumerate(of(plan(BUILD, makers=makers), Create))
    )
    return first, Owned(kind=second.kind, name=second.name, uid=second.uid, annotations=second.annotations)


@pytest.mark.parametrize("kinds", [("ConfigMap", "Job"), ("Job", "ConfigMap")])
def test_a_task_of_two_objects_is_one_attempt(kinds):
    makers = of_two(*kinds)
    creates = of(plan(BUILD, makers=makers), Create)
    assert [each.kind.kind for each in creates] == list(kinds)
    assert len({each.name for each in creates}) == 2
    first, second = halves(makers)
    step = plan(BUILD, makers=makers, tasks=[dataclasses.replace(first, beside=(second,))])
    assert (step.reason, step.actions, step.starts) == (Reason.BUILDING, (), 0)


def test_an_attempt_takes_a_slot_for_each_of_its_jobs():
    job = {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": {}}}}
    beside = {"apiVersion": "v1", "kind": "ConfigMap"}
    makers = maker(renderer=Fake(owns=(JOB, CONFIG_MAP), makes=[beside, job, job]))
    assert plan(BUILD, makers=makers, build_slots=1).starts == 2
    assert plan(BUILD, makers=makers, build_slots=0).starts == 0


@pytest.mark.parametrize("kinds", [("ConfigMap", "Job"), ("Job", "ConfigMap")])
@pytest.mark.parametrize("lost", [0, 1])
def test_what_is_missing_of_an_attempt_is_created_again_and_only_that(kinds, lost):
    makers = of_two(*kinds)
    creates = of(plan(BUILD, makers=makers), Create)
    there = task(creates[1 - lost], State.PENDING)
    step = plan(BUILD, makers=makers, tasks=[there], build_slots=0)
    assert (step.reason, step.starts, step.actions) == (Reason.BUILDING, 0, (creates[lost],))
    stranger = plan(BUILD, makers=makers, tasks=[there], taken=frozenset({creates[lost].name}))
    assert (stranger.phase, stranger.reason, stranger.actions) == (Phase.BLOCKED, Reason.NAME_TAKEN, ())


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED])
def test_an_attempt_that_lacks_something_is_not_over_whatever_the_rest_says(state):
    makers = of_two("ConfigMap", "Job")
    creates = of(plan(BUILD, makers=makers), Create)
    job = task(creates[1], state, uid="job")
    step = plan(BUILD, makers=makers, tasks=[job], build_slots=0)
    assert (step.reason, step.actions) == (Reason.BUILDING, (creates[0],))
    # The registry is asked because of what has ended once the whole has: an answer before that says nothing.
    assert probed(plan(BUILD, makers=makers, tasks=[job], answers={})) == [asked()]
    second = Owned(kind=creates[0].kind, name=creates[0].name, uid="map")
    whole = dataclasses.replace(job, beside=(second,))
    assert probed(plan(BUILD, makers=makers, tasks=[whole], answers={})) == [asked(evidence="job")]


def test_what_is_left_of_an_attempt_goes_once_its_image_is_loaded():
    makers = of_two("ConfigMap", "Job")
    job = task(of(plan(BUILD, makers=makers), Create)[1], State.SUCCEEDED, uid="job")
    assert deleted(plan(BUILD, makers=makers, tasks=[job], answers=All(there()), proven=True)) == ["job"]


def test_an_attempt_that_is_not_whole_and_would_be_of_other_objects_now_is_deleted():
    half, _ = halves(of_two("ConfigMap", "Job"))
    earlier = task(started(BUILD), State.FAILED, uid="earlier", attempt=0)
    step = plan(BUILD, makers=of_two("Job", "ConfigMap"), tasks=[half, earlier])
    assert (deleted(step), of(step, Create)) == (["uid-0"], [])
    # What is whole is not rendered again: another version of its renderer changes nothing.
    assert plan(BUILD, makers=maker(), tasks=[task(started(BUILD), State.RUNNING)]).actions == ()


# ── Build, then sign ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("image", "temporary"),
    [
        (IMAGE, TEMPORARY),
        ("localhost:5000/a", "localhost:5000/a:n_m_kmm_unsigned"),
        ("r.example.com/a:1@sha256:" + "0" * 64, "r.example.com/a:1-n_m_kmm_unsigned"),
    ],
)
def test_the_temporary_name_is_the_tag_with_a_suffix(image, temporary):
    assert temporary_image(image, ModuleRef(namespace="n", name="m")) == temporary


def test_a_temporary_tag_that_is_too_long_is_an_error_of_that_kernel():
    how = {**BUILD_AND_SIGN, "containerImage": "registry.example.com/a:" + "x" * 120}
    with pytest.raises(SpecError, match="128"):
        plan(how)


def test_from_nothing_to_a_signed_image_one_answer_at_a_time():
    known: dict[Question, Any] = {}
    tasks: list[Task] = []

    def go() -> ImageStep:
        return plan(BUILD_AND_SIGN, answers=known, tasks=tasks)

    assert probed(go()) == [asked()]
    known[asked()] = Missing()
    assert go().actions == (Probe(question=asked(TEMPORARY)),)
    known[asked(TEMPORARY)] = Missing()
    build = created(go())
    assert (job_type(build), request_of(build)["image"]) == ("build", TEMPORARY)
    tasks.append(task(build, State.RUNNING, uid="b"))
    assert (go().reason, go().actions) == (Reason.BUILDING, ())
    tasks[:] = [task(build, State.SUCCEEDED, uid="b")]
    assert go().actions == (Probe(question=asked(TEMPORARY, evidence="b")),)
    known[asked(TEMPORARY, evidence="b")] = there()
    sign = created(go())
    assert (job_type(sign), request_of(sign)["unsigned_image"]) == ("sign", TEMPORARY)
    assert (request_of(sign)["image"], deleted(go())) == (IMAGE, [])
    tasks.append(task(sign, State.RUNNING, uid="s"))
    assert (go().reason, go().actions) == (Reason.SIGNING, ())
    tasks[1] = task(sign, State.SUCCEEDED, uid="s")
    assert go().actions == (Probe(question=asked(evidence="s")),)
    known[asked(evidence="s")] = there()
    last = go()
    assert (last.phase, sorted(deleted(last)), of(last, Create)) == (Phase.READY, ["b", "s"], [])


@pytest.mark.parametrize("recorded", [None, "inputs of another build"])
def test_a_temporary_image_of_other_or_unknown_inputs_is_built_again(recorded):
    found = there(**({INPUTS_RECORDED: recorded} if recorded else {}))
    step = plan(BUILD_AND_SIGN, answers={asked(): Missing(), asked(TEMPORARY): found})
    assert (job_type(created(step)), request_of(created(step))["image"]) == ("build", TEMPORARY)


def test_a_temporary_image_of_the_same_inputs_is_signed_without_a_build():
    build, sign = signing()
    assert (job_type(build), job_type(sign)) == ("build", "sign")
    assert request_of(sign)["unsigned_image"] == TEMPORARY


def test_a_temporary_image_that_another_build_has_overwritten_since_is_not_signed():
    build = started(BUILD_AND_SIGN)
    found = there(**{INPUTS_RECORDED: "inputs of another build"})
    answers = {asked(): Missing(), asked(TEMPORARY, evidence="b"): found}
    step = plan(BUILD_AND_SIGN, answers=answers, tasks=[task(build, State.SUCCEEDED, uid="b")])
    assert [job_type(each) for each in of(step, Create)] != ["sign"]


REACHED = ("push Secret", "selector", "registry's TLS", "base image's TLS")


def test_the_hash_in_the_temporary_image_is_of_what_goes_into_it_and_not_of_how_registries_are_reached():
    for what, (before, after) in BUILDS_CHANGE.items():
        same = contents_of(started(**{"how": BUILD, **before})) == contents_of(started(**{"how": BUILD, **after}))
        assert same is (what in REACHED), what


def test_a_push_credential_that_changes_builds_nothing_again_that_is_built():
    spec = {"imageRepoSecret": {"name": "push"}}
    build, sign = signing(spec=spec)
    answers = All(Missing(), {asked(TEMPORARY): there(**{INPUTS_RECORDED: contents_of(build)})})
    changed = {"spec": spec, "secrets": digest_of("push"), "answers": answers}
    tasks = [task(build, State.SUCCEEDED, uid="b"), task(sign, State.FAILED, uid="s")]
    assert sorted(deleted(plan(BUILD_AND_SIGN, tasks=tasks, **changed))) == ["b", "s"]
    step = plan(BUILD_AND_SIGN, **changed)
    assert (job_type(created(step)), request_of(created(step))["unsigned_image"]) == ("sign", TEMPORARY)


@pytest.mark.parametrize("answer", [Unknown(message="x"), Denied(message="x")], ids=["unknown", "forbidden"])
def test_a_temporary_image_that_the_registry_does_not_tell_of_starts_nothing(answer):
    step = plan(BUILD_AND_SIGN, answers={asked(): Missing(), asked(TEMPORARY): answer})
    assert (of(step, Create), step.starts) == ([], 0)
    assert step.reason in (Reason.REGISTRY_UNAVAILABLE, Reason.REGISTRY_FORBIDDEN)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("temporary", [Missing(), there(), None])
def test_whatever_becomes_of_a_signature_it_starts_no_build(state, temporary):
    build, sign = signing()
    answers = All(temporary, {asked(): Missing(), asked(evidence="s"): Missing()})
    for tasks in ([task(build, State.SUCCEEDED, uid="b")], []):
        step = plan(BUILD_AND_SIGN, answers=answers, tasks=[*tasks, task(sign, state, uid="s", ago_s=LONG_S)])
        assert "build" not in [job_type(each) for each in of(step, Create)]


def test_a_failing_build_starts_no_signature():
    step = plan(BUILD_AND_SIGN, tasks=[task(started(BUILD_AND_SIGN), State.FAILED, uid="b")])
    assert (step.reason, step.actions) == (Reason.BUILD_FAILED, ())


def test_a_sign_section_with_nothing_to_sign_is_an_error_of_the_mapping():
    with pytest.raises(SpecError, match="nothing to sign"):
        plan({"sign": SIGNING})


@pytest.mark.parametrize("answer", [Missing(), there(), there(**{INPUTS_RECORDED: "x"})])
@pytest.mark.parametrize("state", [None, *State])
def test_no_build_beside_a_signature_ever_pushes_under_the_final_name(answer, state):
    tasks = [task(started(BUILD_AND_SIGN), state, ago_s=LONG_S)] if state else []
    step = plan(BUILD_AND_SIGN, answers=All(answer, {asked(): Missing()}), tasks=tasks)
    pushed = {job_type(each): request_of(each)["image"] for each in of(step, Create)}
    assert pushed.get("build", TEMPORARY) == TEMPORARY


# ── An input changes ──────────────────────────────────────────────────────────────────────────────────────────


def build_with(**more) -> dict:
    return {"how": {"build": {**BUILD["build"], **more}}}


def sign_with(**more) -> dict:
    return {"how": {"sign": {**SIGN["sign"], **more}}}


def digest_of(secret: str) -> dict:
    return {**SECRETS, secret: dataclasses.replace(SECRETS[secret], digest="changed")}


BUILDS_CHANGE = {
    "Dockerfile": ({}, {"dockerfiles": {"files": ("dockerfile", "FROM changed")}}),
    "ConfigMap": ({}, build_with(dockerfileConfigMap={"name": "others"})),
    "argument": (
        build_with(buildArgs=[{"name": "A", "value": "1"}]),
        build_with(buildArgs=[{"name": "A", "value": "2"}]),
    ),
    "more arguments": ({}, build_with(buildArgs=[{"name": "A", "value": "1"}])),
    "more Secrets": ({}, build_with(secrets=[{"name": "build"}])),
    "Secret": (
        build_with(secrets=[{"name": "build"}]),
        {**build_with(secrets=[{"name": "build"}]), "secrets": digest_of("build")},
    ),
    "push Secret": (
        {"spec": {"imageRepoSecret": {"name": "push"}}},
        {"spec": {"imageRepoSecret": {"name": "push"}}, "secrets": digest_of("push")},
    ),
    "image": ({}, {"how": {**BUILD, "containerImage": "registry.example.com/other:1"}}),
    "selector": ({}, build_with(selector={"a": "b"})),
    "registry's TLS": ({}, {"how": {**BUILD, "registryTLS": {"insecure": True}}}),
    "base image's TLS": ({}, build_with(baseImageRegistryTLS={"insecureSkipTLSVerify": True})),
    "builder": ({}, build_with(builder="other")),
    "builder's tag": ({}, build_with(kanikoParams={"tag": "v2"})),
    "params": (build_with(params={"a": {"b": 1}}), build_with(params={"a": {"b": 2}})),
}
SIGNS_CHANGE = {
    "certificate": ({}, {"secrets": digest_of("cert")}),
    "key": ({}, {"secrets": digest_of("key")}),
    "another key": ({}, sign_with(keySecret={"name": "build"})),
    "push Secret": (
        {"spec": {"imageRepoSecret": {"name": "push"}}},
        {"spec": {"imageRepoSecret": {"name": "push"}}, "secrets": digest_of("push")},
    ),
    "unsigned image": ({}, sign_with(unsignedImage="registry.example.com/acme/unsigned:2")),
    "image": ({}, {"how": {**SIGN, "containerImage": "registry.example.com/other:1"}}),
    "files": ({}, sign_with(filesToSign=["/a.ko"])),
    "folder": ({}, {"how": {**SIGN, "modprobe": {"moduleName": "acme", "dirName": "/other"}}}),
    "registry's TLS": ({}, {"how": {**SIGN, "registryTLS": {"insecure": True}}}),
    "unsigned image's TLS": ({}, sign_with(unsignedImageRegistryTLS={"insecure": True})),
    "signer": ({}, sign_with(signer="other")),
    "params": ({}, sign_with(params={"a": 1})),
}
CHANGES = [
    pytest.param({"how": how, **before}, {"how": how, **after}, id=f"{what} of a {type_}")
    for type_, how, changes in (("build", BUILD, BUILDS_CHANGE), ("signature", SIGN, SIGNS_CHANGE))
    for what, (before, after) in changes.items()
]


@UNFINISHED_OR_FAILED
@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_an_input_that_changes_restarts_the_task_at_once_by_delete_then_create(before, after, state):
    first = started(**before)
    running = task(first, state)
    assert of(plan(**before, tasks=[running]), Delete) == []

    step = plan(**after, tasks=[running])
    assert (deleted(step), of(step, Create)) == (["task-uid"], [])
    assert step.phase is Phase.WAITING
    # Two pushers must not share a tag: nothing is made before the other is gone.
    assert plan(**after, tasks=[dataclasses.replace(running, deleting=True)]).actions == ()
    second = created(plan(**after))
    assert inputs_of(second) != inputs_of(first)
    assert second.name != first.name
    assert attempt_of(second) == "1"


@UNFINISHED_OR_FAILED
def test_what_is_no_input_restarts_nothing(state):
    running = task(started(BUILD), state)
    others = {**SECRETS, "build": dataclasses.replace(SECRETS["build"], digest="changed")}
    step = plan(BUILD, tasks=[running], secrets=others, kernels=frozenset({KERNEL, "5.14.0"}), build_slots=0)
    assert step.actions == ()


def test_a_final_image_that_exists_is_never_rebuilt_whatever_changes():
    for after in BUILDS_CHANGE.values():
        assert plan(**{"how": BUILD, **after[1]}, answers=All(there())).phase is Phase.READY


def test_a_changed_dockerfile_restarts_the_signature_too():
    build, sign = signing()
    tasks = [task(build, State.SUCCEEDED, uid="b"), task(sign, State.RUNNING, uid="s")]
    step = plan(BUILD_AND_SIGN, tasks=tasks, dockerfiles={"files": ("dockerfile", "FROM changed")})
    assert (sorted(deleted(step)), of(step, Create)) == (["b", "s"], [])


def test_a_changed_key_restarts_the_signature_and_not_the_build():
    build, sign = signing()
    tasks = [task(build, State.SUCCEEDED, uid="b"), task(sign, State.RUNNING, uid="s")]
    step = plan(BUILD_AND_SIGN, tasks=tasks, secrets=digest_of("key"))
    assert (deleted(step), of(step, Create)) == (["s"], [])


@pytest.mark.parametrize("how", [BUILD, SIGN], ids=["build", "sign"])
def test_nothing_is_started_while_a_pod_of_an_earlier_task_may_still_push(how):
    create = started(how)
    said = {"job_type": job_type(create), "label": create.manifest["metadata"]["labels"][f"{PREFIX}target-kernel"]}
    old = TaskPod(name="old", node="worker-1", **said)
    waits = plan(how, task_pods=(old,))
    assert (waits.phase, waits.actions, waits.starts) == (Phase.WAITING, (), 0)
    assert "the pod old" in waits.message
    assert "worker-1" in waits.message
    failed = task(create, State.FAILED, ago_s=LONG_S)
    again = plan(how, tasks=[failed], task_pods=(old,))
    assert (of(again, Create), again.attempts) == ([], 1)
    others = (
        dataclasses.replace(old, label="6.5.0"),
        dataclasses.replace(old, job_type={"build": "sign", "sign": "build"}[old.job_type]),
    )
    assert plan(how, task_pods=others).starts == 1


def test_the_tasks_of_another_kernel_are_left_alone():
    other = task(started(BUILD, kernel="5.14.0"), State.RUNNING, uid="other")
    step = plan(BUILD, tasks=[other])
    assert deleted(step) == []
    assert job_type(created(step)) == "build"


def test_a_build_that_the_module_no_longer_asks_for_is_deleted_before_signing_begins():
    step = plan(SIGN, tasks=[task(started(BUILD), State.RUNNING, uid="b")])
    assert (deleted(step), of(step, Create)) == (["b"], [])


# ── Attempts ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("attempt", "delay_s"),
    [(1, 60), (2, 120), (3, 240), (4, 480), (5, 960), (6, 1920), (7, 3600), (8, 3600), (5000, 3600)],
)
def test_the_delay_doubles_from_a_minute_to_an_hour(attempt, delay_s):
    assert back_off_s(attempt) == delay_s
    create = started(BUILD)
    early = plan(BUILD, tasks=[task(create, State.FAILED, attempt=attempt, ago_s=delay_s - 1)])
    assert (early.phase, early.actions, early.wake_at_s) == (Phase.BLOCKED, (), NOW_S + 1)
    due = plan(BUILD, tasks=[task(create, State.FAILED, attempt=attempt, ago_s=delay_s)])
    assert attempt_of(created(due)) == str(attempt + 1)


@pytest.mark.parametrize(("how", "reason"), [(BUILD, Reason.BUILD_FAILED), (SIGN, Reason.SIGN_FAILED)])
def test_a_failed_task_is_kept_and_shown_with_why(how, reason):
    failed = task(started(how), State.FAILED, ago_s=10, message="disk full")
    step = plan(how, tasks=[failed])
    assert (step.phase, step.reason, step.message, step.actions) == (Phase.BLOCKED, reason, "disk full", ())
    assert (step.attempts, step.last_failure_s, step.inputs) == (1, NOW_S - 10, failed.inputs)


@pytest.mark.parametrize("how", [BUILD, SIGN], ids=["build", "sign"])
def test_what_has_failed_for_good_is_not_tried_again_before_an_input_changes(how):
    failed = task(started(how), State.FAILED, uid="1", ago_s=LONG_S, message="the PIN is wrong", final=True)
    step = plan(how, tasks=[failed])
    assert (step.phase, step.actions, step.wake_at_s) == (Phase.BLOCKED, (), None)
    assert step.message == "the PIN is wrong; it is not tried again before what it is made from changes"
    step = plan(how, tasks=[failed], spec={"imageRepoSecret": {"name": "push"}})
    assert deleted(step) == ["1"], "its inputs have changed"


def test_what_has_succeeded_for_good_is_looked_for_like_any_other():
    over = task(started(BUILD), State.SUCCEEDED, ago_s=60, final=True)
    assert attempt_of(created(plan(BUILD, tasks=[over]))) == "2"


def test_what_has_failed_for_good_is_kept_for_an_hour_where_no_node_wants_it():
    create = started(SIGN)
    assert kept_until_s(task(create, State.FAILED, final=True)) == NOW_S + 3600
    assert kept_until_s(task(create, State.FAILED)) == NOW_S + 60


def test_a_task_that_failed_without_a_message_is_told_by_its_reason():
    assert plan(BUILD, tasks=[task(started(BUILD), State.FAILED, reason="Evicted")]).message == "Evicted"


def test_the_next_attempt_is_created_first_and_only_then_the_one_before_is_deleted():
    first = started(BUILD)
    failed = task(first, State.FAILED, uid="1", ago_s=60, message="why")
    due = plan(BUILD, tasks=[failed])
    second = created(due)
    assert (deleted(due), attempt_of(second), inputs_of(second)) == ([], "2", inputs_of(first))
    assert second.name != first.name
    assert (due.attempts, due.starts) == (1, 1)

    then = plan(BUILD, tasks=[failed, task(second, State.PENDING, uid="2")])
    assert (deleted(then), of(then, Create), then.attempts) == (["1"], [], 1)
    going = dataclasses.replace(failed, deleting=True)
    after = plan(BUILD, tasks=[going, task(second, State.RUNNING, uid="2")])
    assert (after.actions, after.attempts) == ((), 1)


def test_a_count_survives_a_crash_after_every_step():
    first = started(BUILD)
    failed = task(first, State.FAILED, uid="1", ago_s=60)
    second = created(plan(BUILD, tasks=[failed]))
    for tasks in ([failed, task(second, State.FAILED, uid="2")], [task(second, State.FAILED, uid="2")]):
        step = plan(BUILD, tasks=tasks)
        assert (step.attempts, step.wake_at_s, of(step, Create)) == (2, NOW_S + 120, [])


@pytest.mark.parametrize("order", [1, -1])
def test_the_latest_attempt_counts_in_whatever_order_they_are_listed(order):
    create = started(BUILD)
    tasks = [task(create, State.FAILED, uid=str(each), attempt=each, ago_s=LONG_S) for each in (2, 10)][::order]
    step = plan(BUILD, tasks=tasks)
    assert (attempt_of(created(step)), deleted(step)) == ("11", ["2"])


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING])
def test_a_task_under_way_is_waited_for(state):
    step = plan(BUILD, tasks=[task(started(BUILD), state, message="pulling")])
    assert (step.phase, step.reason, step.message) == (Phase.WAITING, Reason.BUILDING, "pulling")
    assert (step.actions, step.attempts) == ((), 0)


@pytest.mark.parametrize("state", list(State))
def test_a_task_on_its_way_out_is_waited_for(state):
    step = plan(BUILD, tasks=[task(started(BUILD), state, deleting=True, ago_s=LONG_S)])
    assert (step.phase, step.actions) == (Phase.WAITING, ())


# ── Succeeded ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", [BUILD, SIGN])
@pytest.mark.parametrize("older", [Missing(), there()])
def test_a_task_that_succeeded_is_deleted_only_after_an_answer_asked_because_of_it(how, older):
    done = task(started(how), State.SUCCEEDED)
    step = plan(how, answers={asked(): older}, tasks=[done])
    assert (step.phase, step.actions) == (Phase.WAITING, (Probe(question=asked(evidence="task-uid")),))
    found = plan(how, answers={asked(): older, asked(evidence="task-uid"): there()}, tasks=[done])
    assert (found.phase, deleted(found), found.digest) == (Phase.READY, ["task-uid"], "sha256:1")


def test_a_task_that_is_being_deleted_is_not_deleted_again():
    going = task(started(BUILD), State.SUCCEEDED, deleting=True)
    assert plan(BUILD, answers=All(there()), tasks=[going]).actions == ()


def test_proof_by_running_loaders_does_not_delete_what_has_just_succeeded():
    done = task(started(BUILD), State.SUCCEEDED)
    assert probed(plan(BUILD, answers={}, tasks=[done], proven=True)) == [asked(evidence="task-uid")]


@pytest.mark.parametrize(
    ("how", "state"),
    [(BUILD, State.FAILED), (SIGN, State.FAILED), (BUILD_AND_SIGN, State.SUCCEEDED)],
    ids=["failed build", "failed signature", "build whose signature is gone"],
)
def test_no_finished_task_is_left_for_ever_where_running_loaders_prove_the_image(how, state):
    left = task(started(how), state, ago_s=LONG_S)
    step = plan(how, answers=All(there()), tasks=[left], proven=True, loader="loader-uid")
    assert (step.phase, deleted(step)) == (Phase.READY, ["task-uid"])


@pytest.mark.parametrize("how", [BUILD, SIGN])
@pytest.mark.parametrize(("attempt", "delay_s"), [(1, 60), (2, 120), (9, 3600)])
def test_built_but_not_found_backs_off_like_a_failure(how, attempt, delay_s):
    create = started(how)
    done = task(create, State.SUCCEEDED, attempt=attempt, ago_s=delay_s - 1)
    step = plan(how, answers={asked(evidence="task-uid"): Missing()}, tasks=[done])
    assert (step.phase, step.reason, step.actions) == (Phase.BLOCKED, Reason.BUILT_BUT_NOT_FOUND, ())
    assert (step.wake_at_s, step.attempts) == (NOW_S + 1, attempt)
    assert IMAGE in step.message
    due = task(create, State.SUCCEEDED, attempt=attempt, ago_s=delay_s)
    again = plan(how, answers={asked(evidence="task-uid"): Missing()}, tasks=[due])
    assert (attempt_of(created(again)), deleted(again)) == (str(attempt + 1), [])


def test_a_temporary_image_that_was_built_but_is_not_found_backs_off_too():
    done = task(started(BUILD_AND_SIGN), State.SUCCEEDED, uid="b")
    step = plan(BUILD_AND_SIGN, answers=MISSING, tasks=[done])
    assert (step.reason, step.actions, step.wake_at_s) == (Reason.BUILT_BUT_NOT_FOUND, (), NOW_S + 60)


# ── The certificate changes ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("recorded", [None, "", "new"])
@pytest.mark.parametrize("how", [SIGN, BUILD_AND_SIGN])
def test_an_image_is_not_signed_again_where_no_other_certificate_is_recorded(how, recorded):
    found = there() if recorded is None else there(**{CERTIFICATE_RECORDED: recorded})
    assert plan(how, answers={asked(): found}).phase is Phase.READY


def test_an_image_is_signed_again_where_the_signer_recorded_another_certificate():
    found = there(**{CERTIFICATE_RECORDED: "old"})
    step = plan(SIGN, answers={asked(): found})
    assert (job_type(created(step)), request_of(created(step))["unsigned_image"]) == ("sign", UNSIGNED)
    running = task(created(step), State.SUCCEEDED)
    answers = {asked(): found, asked(evidence="task-uid"): there(**{CERTIFICATE_RECORDED: "new"})}
    after = plan(SIGN, answers=answers, tasks=[running])
    assert (after.phase, deleted(after)) == (Phase.READY, ["task-uid"])


@pytest.mark.parametrize(
    "secrets",
    [
        {key: facts for key, facts in SECRETS.items() if key != "cert"},
        {**SECRETS, "cert": dataclasses.replace(SECRETS["cert"], certificate="")},
    ],
    ids=["no Secret", "no certificate in it"],
)
def test_a_certificate_that_is_not_known_is_no_other_certificate(secrets):
    found = there(**{CERTIFICATE_RECORDED: "old"})
    assert plan(SIGN, answers={asked(): found}, secrets=secrets).phase is Phase.READY


def test_only_what_is_signed_has_a_certificate():
    assert plan(BUILD, answers={asked(): there(**{CERTIFICATE_RECORDED: "old"})}).phase is Phase.READY


@pytest.mark.parametrize(
    "now",
    [{}, {"dockerfiles": {"files": ("dockerfile", "FROM changed")}}, {"dockerfiles": {}}, {"spec": {}}],
    ids=["as it was", "another Dockerfile", "no Dockerfile", "other credentials"],
)
@pytest.mark.parametrize("told", [{}, {UNSIGNED_RECORDED: "sha256:1"}], ids=["not told of what", "told of what"])
def test_an_image_that_was_built_here_is_signed_again_from_what_was_built_then(now, told):
    answers = {asked(): there(**{CERTIFICATE_RECORDED: "old"}, **told), asked(TEMPORARY): there()}
    step = plan(BUILD_AND_SIGN, **{"answers": answers, "spec": {"imageRepoSecret": {"name": "push"}}, **now})
    assert (job_type(created(step)), request_of(created(step))["unsigned_image"]) == ("sign", TEMPORARY)
    running = task(created(step), State.RUNNING)
    after = plan(
        BUILD_AND_SIGN, **{"answers": answers, "spec": {"imageRepoSecret": {"name": "push"}}, **now}, tasks=[running]
    )
    assert (after.phase, after.reason, after.actions) == (Phase.READY, Reason.SIGNING, ())


@pytest.mark.parametrize("build_slots", [0, 1])
@pytest.mark.parametrize("temporary", [Missing(), there()], ids=["gone", "of another build"])
def test_another_certificate_never_rebuilds_a_final_image_that_exists(temporary, build_slots):
    found = there(**{CERTIFICATE_RECORDED: "old", UNSIGNED_RECORDED: "sha256:2"})
    answers = {asked(): found, asked(TEMPORARY): temporary}
    step = plan(BUILD_AND_SIGN, answers=answers, build_slots=build_slots)
    assert (step.phase, step.reason, step.actions) == (Phase.READY, Reason.CERTIFICATE_CHANGED, ())
    assert "delete the image" in step.message
    step = plan(BUILD_AND_SIGN, answers=answers, stale=frozenset({asked(TEMPORARY)}), build_slots=build_slots)
    assert step.actions == (Probe(question=asked(TEMPORARY)),), "nobody is told so by an answer that is too old"


@pytest.mark.parametrize("answer", [Unknown(message="x"), Denied(message="x"), None])
def test_what_was_built_and_is_not_known_to_be_there_is_asked_for_before_it_is_signed_again(answer):
    answers = {asked(): there(**{CERTIFICATE_RECORDED: "old"}), asked(TEMPORARY): answer}
    step = plan(BUILD_AND_SIGN, answers=answers)
    assert (step.phase, step.actions) == (Phase.READY, (Probe(question=asked(TEMPORARY)),))


@pytest.mark.parametrize("how", [SIGN, BUILD_AND_SIGN])
def test_a_signature_that_the_registry_does_not_show_is_told_as_that_and_backs_off(how):
    found = there(**{CERTIFICATE_RECORDED: "old"})
    answers = All(found)
    signed = task(created(plan(how, answers=answers)), State.SUCCEEDED)
    step = plan(how, answers=answers, tasks=[signed])
    assert (step.phase, step.reason, of(step, Create)) == (Phase.READY, Reason.CERTIFICATE_CHANGED, [])
    assert f"{IMAGE} still says that it is signed with another certificate" in step.message
    assert step.wake_at_s == NOW_S + 60
    later = plan(how, answers=answers, tasks=[signed], now_s=NOW_S + 60)
    assert attempt_of(created(later)) == "2"


@pytest.mark.parametrize("how", [SIGN, BUILD_AND_SIGN])
def test_what_is_signed_again_waits_for_a_slot_like_everything_else(how):
    temporary = there(**{INPUTS_RECORDED: contents_of(started(BUILD_AND_SIGN))})
    answers = {asked(): there(**{CERTIFICATE_RECORDED: "old"}), asked(TEMPORARY): temporary}
    step = plan(how, answers=answers, build_slots=0)
    assert (step.phase, step.reason, step.actions) == (Phase.READY, Reason.BUILD_QUEUED, ())
    assert job_type(created(plan(how, answers=answers))) == "sign"


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("how", [SIGN, BUILD_AND_SIGN])
def test_a_certificate_that_changes_once_more_restarts_what_signs_again(how, state):
    found = there(**{CERTIFICATE_RECORDED: "old"})
    temporary = there(**{INPUTS_RECORDED: contents_of(started(BUILD_AND_SIGN))})
    answers = All(found, {asked(TEMPORARY): temporary})
    outdated = task(created(plan(how, answers=answers)), state)
    step = plan(how, answers=answers, tasks=[outdated], secrets=digest_of("cert"))
    assert (step.phase, deleted(step), of(step, Create)) == (Phase.READY, ["task-uid"], [])
    assert job_type(created(plan(how, answers=answers, secrets=digest_of("cert")))) == "sign"


# ── The queue, and what is missing ────────────────────────────────────────────────────────────────────────────


@EACH_WAY
def test_what_finds_no_slot_is_queued(how):
    step = plan(how, build_slots=0)
    assert (step.phase, step.reason, step.starts) == (Phase.WAITING, Reason.BUILD_QUEUED, 0)
    assert of(step, Create) == []
    assert plan(how, build_slots=1).starts == 1


def test_a_repetition_is_asked_for_once_more_and_loses_no_count_meanwhile():
    failed = task(started(BUILD), State.FAILED, ago_s=60, message="why")
    evidence = asked(evidence="task-uid")
    step = plan(BUILD, tasks=[failed], answers={evidence: Missing()}, stale=frozenset({evidence}))
    assert (step.actions, step.attempts, step.last_failure_s) == ((Probe(question=evidence),), 1, NOW_S - 60)
    assert (step.starts, step.queued, step.message) == (0, True, "why")


def test_a_repetition_that_finds_no_slot_starts_nothing_and_loses_no_count():
    failed = task(started(BUILD), State.FAILED, ago_s=LONG_S, message="why")
    step = plan(BUILD, tasks=[failed], build_slots=0)
    assert (of(step, Create), of(step, Delete), step.starts, step.attempts) == ([], [], 0, 1)
    assert step.queued
    assert step.message == "why; as many builds and signatures run as may at once"


def test_a_full_queue_stops_nothing_that_is_under_way():
    running = task(started(BUILD), State.RUNNING)
    assert plan(BUILD, tasks=[running], build_slots=0).reason is Reason.BUILDING


@pytest.mark.parametrize(
    ("how", "view", "named"),
    [
        (BUILD, {"dockerfiles": {}}, '"files"'),
        (build_with(secrets=[{"name": "gone"}])["how"], {}, '"gone"'),
        ({**BUILD}, {"spec": {"imageRepoSecret": {"name": "gone"}}}, '"gone"'),
        (SIGN, {"spec": {"imageRepoSecret": {"name": "gone"}}}, '"gone"'),
        (sign_with(keySecret={"name": "gone"})["how"], {}, '"gone"'),
        (sign_with(certSecret={"name": "gone"})["how"], {}, '"gone"'),
        (BUILD_AND_SIGN, {"dockerfiles": {}}, '"files"'),
        (build_with(dockerfileConfigMap={})["how"], {}, "dockerfileConfigMap"),
    ],
)
def test_an_input_that_does_not_exist_is_named_and_starts_nothing(how, view, named):
    with pytest.raises(SpecError, match=named):
        plan(how, **view)
    # An image that is there needs none of them.
    assert plan(how, **view, answers=All(there())).phase is Phase.READY


def test_a_builder_that_is_not_installed_is_a_plugin_error():
    def none(name):
        raise PluginError(f'no builder "{name}"')

    how = build_with(builder="kanico")["how"]
    with pytest.raises(PluginError, match='no builder "kanico"'):
        plan(how, makers=maker(builder=none))


@pytest.mark.parametrize("how", [BUILD, SIGN])
def test_a_name_that_a_stranger_has_is_said_and_nothing_is_touched(how):
    name = started(how).name
    step = plan(how, taken=frozenset({name}))
    assert (step.phase, step.reason, step.actions, step.starts) == (Phase.BLOCKED, Reason.NAME_TAKEN, (), 0)
    assert f'"{name}"' in step.message


def test_a_name_that_a_stranger_has_is_said_for_a_later_attempt_too():
    failed = task(started(BUILD), State.FAILED, ago_s=60)
    name = created(plan(BUILD, tasks=[failed])).name
    step = plan(BUILD, tasks=[failed], taken=frozenset({name}))
    assert (step.phase, step.reason, of(step, Create)) == (Phase.BLOCKED, Reason.NAME_TAKEN, [])
    assert deleted(step) == []


# ── Tasks that the API server does not tell of ────────────────────────────────────────────────────────────────

OTHER = Kind(api_version="build.openshift.io/v1", kind="Build", plural="builds")


def begun(inputs: str) -> dict:
    return {"kernels": [{"kernelVersion": KERNEL, "inputsHash": inputs}]}


@EACH_WAY
def test_nothing_is_begun_that_may_be_under_way_unseen(how):
    step = plan(how, unlisted={JOB: "it is away"}, status=begun("before"))
    assert (step.phase, step.reason, step.actions) == (Phase.WAITING, Reason.TASKS_UNKNOWN, ())
    assert step.message == "which jobs there are is not known: it is away"
    # What was begun last is not forgotten meanwhile.
    assert step.inputs == "before"


@EACH_WAY
def test_kinds_that_make_nothing_here_are_in_nobodys_way(how):
    assert started(how, unlisted={OTHER: "it is away"}) == started(how)


def test_what_another_builder_may_have_under_way_is_waited_for():
    build = started(BUILD)
    unseen = {"unlisted": {OTHER: "it is away"}}
    assert plan(BUILD, **unseen, status=begun("before")).reason is Reason.TASKS_UNKNOWN
    assert started(BUILD, **unseen, status=begun(inputs_of(build))) == build


@EACH_WAY
def test_an_image_that_is_there_needs_no_tasks_to_be_seen(how):
    unseen = {"unlisted": {JOB: "it is away", OTHER: "it is away"}}
    assert plan(how, answers={asked(): there()}, **unseen).phase is Phase.READY
    assert plan(how, answers={}, proven=True, **unseen).phase is Phase.READY


# ── Elsewhere, and alone ──────────────────────────────────────────────────────────────────────────────────────

OWN_CERTIFICATE = SecretFacts(keys=("cert",), digest="c", certificate="theirs", sealed="sc")


@dataclass(frozen=True)
class Elsewhere(Fake):
    """A signer that works where it is told to."""

    where: Any = Place(operators=True, secrets=("pin", "cert"), certificate="cert", alone="pin")

    def place(self, module, params):
        if isinstance(self.where, Exception):
            raise self.where
        return self.where


def elsewhere(pin="1", where=None, **more):
    """Return how a signature in the operator's namespace is planned. `pin`: stands for what its Secret holds."""
    placed = {
        "kmm-system/pin": SecretFacts(keys=("pin",), digest="p", sealed=pin),
        "kmm-system/cert": OWN_CERTIFICATE,
    }
    signer = Elsewhere(where=where) if where else Elsewhere()
    operator = Operator(namespace="kmm-system")
    return {"makers": maker(renderer=signer), "secrets": {**SECRETS, **placed}, "operator": operator, **more}


def test_a_signature_elsewhere_has_no_owner_and_no_secret_of_the_modules_namespace():
    spec = {"imageRepoSecret": {"name": "push"}}
    create = created(plan(SIGN, **elsewhere(spec=spec, pull_secrets=("push",))))
    meta = create.manifest["metadata"]
    assert (create.namespace, "ownerReferences" in meta) == ("kmm-system", False)
    assert meta["labels"][f"{PREFIX}module.namespace"] == "n"
    assert meta["annotations"][f"{PREFIX}module-uid"] == "module-uid"
    assert create.manifest["spec"]["template"]["metadata"]["labels"][f"{PREFIX}module.namespace"] == "n"
    request = request_of(create)
    assert (request["push_secret"], request["pull_secrets"], request["certificate"]) == (None, [], "theirs")


def test_what_is_elsewhere_is_deleted_there():
    failed = dataclasses.replace(
        task(created(plan(SIGN, **elsewhere())), State.FAILED, uid="1", final=True), namespace="kmm-system"
    )
    step = plan(SIGN, tasks=[failed], **elsewhere(pin="2"))
    assert [(each.namespace, each.uid) for each in of(step, Delete)] == [("kmm-system", "1")]


def test_where_the_operator_is_a_module_too_its_task_has_an_owner():
    operator = Operator(namespace="n")
    secrets = {**SECRETS, "pin": SecretFacts(keys=("pin",), digest="p", sealed="1")}
    create = created(plan(SIGN, **{**elsewhere(), "operator": operator, "secrets": secrets}))
    assert create.manifest["metadata"]["ownerReferences"]
    assert f"{PREFIX}module-uid" not in create.manifest["metadata"]["annotations"]


def test_what_stands_for_a_pin_is_no_hash_of_it_alone():
    one, other = (created(plan(SIGN, **elsewhere(pin=each))) for each in "12")
    for key in ("inputs", "alone"):
        assert (
            one.manifest["metadata"]["annotations"][PREFIX + key]
            != other.manifest["metadata"]["annotations"][PREFIX + key]
        )


def test_a_secret_elsewhere_that_is_not_there_is_named_with_its_namespace():
    how = elsewhere()
    del how["secrets"]["kmm-system/pin"]
    with pytest.raises(SpecError, match='the Secret "pin" does not exist in the namespace kmm-system'):
        plan(SIGN, **how)


@pytest.mark.parametrize(
    "where",
    [ValueError("not you"), None, "here", Place(alone="other"), Place(certificate="cert"), Place(secrets=(1,))],
)
def test_a_signer_that_says_no_place_is_a_plugin_error(where):
    how = {**elsewhere(), "makers": maker(renderer=Elsewhere(where=where))}
    with pytest.raises(PluginError):
        plan(SIGN, **how)


def rival(**said) -> Task:
    """Return a task of another Module that reads the same Secret."""
    return task(created(plan(SIGN, name="other", **elsewhere())), said.pop("state", State.RUNNING), **said)


def test_while_another_reads_the_secret_it_waits():
    for more in ({"rivals": (rival(),)}, {"using": frozenset({rival().alone})}):
        step = plan(SIGN, **elsewhere(**more))
        assert (step.phase, step.reason, step.actions, step.awaits) == (Phase.WAITING, Reason.BUILD_QUEUED, (), True)
        assert not step.queued, "it holds no slot back"
        assert created(plan(SIGN, **elsewhere(pin="2", **more))), "with other contents it is another Secret"


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED])
def test_what_is_over_keeps_nobody_out(state):
    step = plan(SIGN, **elsewhere(rivals=(rival(state=state),)))
    assert (created(step).name, step.alone) == (created(plan(SIGN, **elsewhere())).name, rival().alone)


def test_what_failed_for_good_for_another_is_not_tried_nor_is_its_message_told():
    step = plan(SIGN, **elsewhere(rivals=(rival(state=State.FAILED, final=True, message="s3cret", ago_s=LONG_S),)))
    assert (step.phase, step.reason, step.actions, step.awaits) == (Phase.BLOCKED, Reason.SIGN_FAILED, (), True)
    assert "s3cret" not in step.message
    assert 'for good with what the Secret "pin" holds' in step.message


def test_what_failed_for_good_with_a_secret_stays_until_that_changes_whatever_else_does():
    failed = task(created(plan(SIGN, **elsewhere())), State.FAILED, uid="1", ago_s=LONG_S, message="no", final=True)
    edited = {"sign": {**SIGN["sign"], "filesToSign": ["/opt/another.ko"]}}
    step = plan(edited, tasks=[failed], **elsewhere())
    assert (step.phase, step.actions) == (Phase.BLOCKED, ())
    assert step.message == 'no; it is not tried again before the Secret "pin" changes'
    assert deleted(plan(edited, tasks=[failed], **elsewhere(pin="2"))) == ["1"]


EDITED = {"sign": {**SIGN["sign"], "filesToSign": ["/opt/another.ko"]}}


@pytest.mark.parametrize("how", [EDITED, BUILD, BUILD_AND_SIGN], ids=["another file", "no sign", "a build, too"])
def test_a_signature_that_reads_a_secret_alone_is_let_end_whatever_changes(how):
    running = task(created(plan(SIGN, **elsewhere())), State.RUNNING, uid="1")
    step = plan(how, tasks=[running], **elsewhere())
    assert (step.phase, step.actions, step.starts) == (Phase.WAITING, (), 0)
    assert 'started once it has ended: it uses the Secret "pin"' in step.message
    assert deleted(plan(how, tasks=[running], **elsewhere(pin="2"))) == ["1"], "it reads what is no more"
    over = task(created(plan(SIGN, **elsewhere())), State.FAILED, uid="1")
    assert deleted(plan(how, tasks=[over], **elsewhere())) == ["1"]


def test_what_has_failed_for_good_with_a_secret_stays_though_its_image_is_there():
    failed = task(created(plan(SIGN, **elsewhere())), State.FAILED, uid="1", ago_s=LONG_S, final=True)
    for pin, gone in (("1", []), ("2", ["1"])):
        step = plan(SIGN, tasks=[failed], answers=All(there()), **elsewhere(pin=pin))
        assert (step.phase, deleted(step)) == (Phase.READY, gone)
    step = plan(SIGN, tasks=[failed], answers={}, proven=True, **elsewhere())
    assert (step.phase, step.actions) == (Phase.READY, ()), "it is no reason to ask a registry"


def test_what_has_failed_for_good_with_one_secret_stays_and_is_no_attempt_with_another():
    failed = task(created(plan(SIGN, **elsewhere())), State.FAILED, uid="1", attempt=3, ago_s=LONG_S, final=True)
    how = elsewhere(where=Place(operators=True, secrets=("cert",), certificate="cert", alone="cert"))
    step = plan(SIGN, tasks=[failed], **how)
    assert (deleted(step), attempt_of(created(step))) == ([], "1")
    del how["secrets"]["kmm-system/pin"]
    assert deleted(plan(SIGN, tasks=[failed], **how)) == ["1"], "the Secret is gone"


def test_what_has_failed_for_good_with_a_secret_stays_though_some_of_it_is_missing():
    failed = task(created(plan(SIGN, **elsewhere())), State.FAILED, uid="1", ago_s=LONG_S, message="no", final=True)
    failed.annotations[f"{PREFIX}objects"] = "2"
    step = plan(EDITED, tasks=[failed], **elsewhere())
    assert (step.phase, step.actions) == (Phase.BLOCKED, ())


def test_the_pods_of_a_signature_that_reads_a_secret_alone_say_so():
    create = created(plan(SIGN, **elsewhere()))
    pod = create.manifest["spec"]["template"]["metadata"]
    assert pod["labels"][f"{PREFIX}alone"] == create.manifest["metadata"]["annotations"][f"{PREFIX}alone"]
