"""A cluster in memory, as small as the properties allow: it can lag, lose a write or its answer, and crash."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from kmm.catalog import Plugin, build_catalog
from kmm.contract import CERTIFICATE_ANNOTATION, Kind, ModuleRef, Progress, State
from kmm.core import names
from kmm.core.actions import Action, Announce, Create, Delete, LabelNode, Probe, Release, Replace, SetStatus
from kmm.core.images import BUILD, SIGN, learn
from kmm.core.view import (
    Answer,
    DaemonSet,
    KernelNodes,
    Missing,
    Operator,
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
DAEMON_SET = Kind(api_version="apps/v1", kind="DaemonSet", plural="daemonsets")
ROUND_S = 1000.0


class Renderer:
    """The builder and signer of the tests: a Job that says what it makes."""

    owns = (JOB,)
    requires = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def render(self, request: Any) -> list[dict[str, Any]]:
        return [{"apiVersion": "batch/v1", "kind": "Job", "spec": {"makes": request.image}}]

    def observe(self, objects: Any, pods: Any) -> Progress:
        return Progress(state=State.RUNNING if objects or pods else State.PENDING)


def catalog() -> Any:
    mine = Plugin(
        name="tests", distribution="tests", version="1", builders=(Renderer("build"),), signers=(Renderer("sign"),)
    )
    # What is installed must not build in its place.
    return build_catalog([*(each for each in load_catalog().plugins if not (each.builders or each.signers)), mine])


@dataclass
class Cluster:
    """What there is. `fails` and `unknown`: how many more tasks fail, how many more questions get no answer."""

    subject: Subject
    kernels: dict[str, int]
    images: dict[str, dict[str, str]] = field(default_factory=dict)
    fails: int = 0
    unknown: int = 0
    daemon_sets: dict[str, DaemonSet] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    makes: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    answers: dict[Question, Answer] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    now_s: float = 1_000_000.0
    happened: Counter[str] = field(default_factory=Counter)
    builds: bool = False
    signs: bool = False
    uids: Any = field(default_factory=lambda: itertools.count(1))

    def view(self) -> View:
        return View(
            targets={kernel: KernelNodes(nodes=count) for kernel, count in self.kernels.items()},
            kernels=frozenset(self.kernels),
            daemon_sets=tuple(self.daemon_sets.values()),
            tasks=tuple(self.tasks.values()),
            answers=dict(self.answers),
            dockerfiles={"dockerfile": ("dockerfile", "FROM scratch")},
            secrets={
                "cert": SecretFacts(keys=("cert",), digest="d", certificate="fp"),
                "key": SecretFacts(keys=("key",), digest="k"),
            },
            taken=frozenset(self.taken),
            status=self.status,
            operator=Operator(namespace="operator", privileged_namespaces=frozenset({self.subject.ref.namespace})),
        )

    # ── What the API server does with what it is asked ────────────────────────────────────────────────────────

    def carry_out(self, action: Action) -> None:
        self.happened[type(action).__name__] += 1
        match action:
            case Create():
                self._create(action)
            case Replace():
                self._replace(action)
            case Delete():
                self._delete(action)
            case SetStatus():
                merged = {**self.status, **action.status}
                self.status = {key: value for key, value in merged.items() if value is not None}
            case Probe():
                self._probe(action.question)
            case LabelNode() | Release() | Announce():
                pass

    def _create(self, action: Create) -> None:
        metadata = action.manifest["metadata"]
        assert metadata["ownerReferences"][0]["uid"] == self.subject.uid
        assert not self.subject.deleting, "nothing is created for a Module that is being deleted"
        if action.name in self.foreign:
            self.taken.add(action.name)
            self.happened["name taken"] += 1
            return
        if action.name in self.daemon_sets or action.name in self.tasks:
            self.happened["already exists"] += 1
            return
        common = {
            "kind": action.kind,
            "name": action.name,
            "uid": f"uid-{next(self.uids)}",
            "created": f"{self.now_s:020}",
            "labels": metadata["labels"],
            "annotations": metadata["annotations"],
        }
        if action.kind == DAEMON_SET:
            selector = action.manifest["spec"]["selector"]["matchLabels"]
            made = DaemonSet(**common, role=metadata["labels"][names.ROLE], selector=selector)
            image = action.manifest["spec"]["template"]["spec"]["containers"][0]["image"]
            gated = self.builds or self.signs
            assert made.role != names.LOADER or not gated or image in self.images, (
                "loaded before it was there, signed"
            )
            for other in self.daemon_sets.values():
                assert other.deleting or (other.role, other.kernel) != (made.role, made.kernel), "doubled"
            self.daemon_sets[action.name] = made
            return
        job_type = metadata["labels"][names.JOB_TYPE]
        task = Task(**common, job_type=job_type, progress=Progress(state=State.RUNNING))
        for other in self.tasks.values():
            same = self.makes[other.name] == action.manifest["spec"]["makes"]
            assert not same or other.progress.state in (State.SUCCEEDED, State.FAILED), "two run at once"
        image = action.manifest["spec"]["makes"]
        assert image not in self.images or image.endswith("_kmm_unsigned"), "made again though it is there"
        assert any(isinstance(self.answers.get(each), Missing) for each in self.answers if each.image == image) or (
            job_type == SIGN
        ), "a build needs the registry's word that its image is missing"
        assert not (self.signs and job_type == BUILD) or image.endswith("_kmm_unsigned"), (
            "unsigned under a final name"
        )
        self.tasks[action.name], self.makes[action.name] = task, image

    def _replace(self, action: Replace) -> None:
        found = self.daemon_sets.get(action.name)
        if found is None or (found.uid, found.generation) != (action.uid, action.generation) or found.deleting:
            self.happened["conflict"] += 1
            return
        generation = found.generation + bool(action.spec)
        annotations = {**found.annotations, **action.annotations}
        labels = {**found.labels, **action.labels}
        self.daemon_sets[action.name] = replace(
            found, annotations=annotations, labels=labels, generation=generation, spec=None
        )

    def _delete(self, action: Delete) -> None:
        assert action.uid not in self.foreign.values(), "a stranger's object"
        for kept in (self.daemon_sets, self.tasks):
            found = kept.get(action.name)
            if found is not None and found.uid == action.uid:
                kept[action.name] = replace(found, deleting=True)
                return
        self.happened["conflict"] += 1

    def _probe(self, question: Question) -> None:
        if self.unknown:
            self.unknown -= 1
            self.happened["unknown image"] += 1
            self.answers[question] = Unknown(message="the registry is away")
        elif question.image in self.images:
            present = Present(digest="sha256:0", annotations=self.images[question.image])
            self.answers = learn(self.answers, question, present)
        else:
            self.answers[question] = Missing()

    def edit(self) -> None:
        """Somebody else edits every DaemonSet, and takes its labels off."""
        for name, each in self.daemon_sets.items():
            self.daemon_sets[name] = replace(each, generation=each.generation + 1, labels={})

    # ── What the controllers do meanwhile ─────────────────────────────────────────────────────────────────────

    def is_moving(self) -> bool:
        """Whether the controllers have not ended what they are at."""
        return (
            any(each.deleting for each in (*self.daemon_sets.values(), *self.tasks.values()))
            or any(task.progress.state is State.RUNNING for task in self.tasks.values())
            or any(each.available != self._wanted_pods(each) for each in self.daemon_sets.values())
        )

    def _wanted_pods(self, each: DaemonSet) -> int:
        if each.role == names.LOADER:
            return next((count for kernel, count in self.kernels.items() if self._is_for(each, kernel)), 0)
        return sum(self.kernels.values())

    def _is_for(self, each: DaemonSet, kernel: str) -> bool:
        return each.selector[names.KERNEL] == names.kernel_label_values(self.kernels)[kernel]

    def live(self) -> None:
        """Let time pass: deletions end, pods start, tasks finish, what was not known may be asked again."""
        self.now_s += ROUND_S
        for kept in (self.daemon_sets, self.tasks):
            for name in [name for name, each in kept.items() if each.deleting]:
                del kept[name]
        for name, each in self.daemon_sets.items():
            count = self._wanted_pods(each)
            self.daemon_sets[name] = replace(each, scheduled=count, ready=count, available=count)
        for name, task in self.tasks.items():
            if task.progress.state is State.RUNNING:
                state = State.FAILED if self.fails else State.SUCCEEDED
                if self.fails:
                    self.fails -= 1
                    self.happened["failed task"] += 1
                else:
                    self.images[self.makes[name]] = {CERTIFICATE_ANNOTATION: "fp"} if task.job_type == SIGN else {}
                self.tasks[name] = replace(task, progress=Progress(state=state), finished_at_s=self.now_s)
        self.answers = {key: answer for key, answer in self.answers.items() if not isinstance(answer, Unknown)}


def subject(spec: Any, *, deleting: bool = False) -> Subject:
    return Subject(ref=ModuleRef(namespace="n", name="m"), uid="module-uid", spec=spec, deleting=deleting)
