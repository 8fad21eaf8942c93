"""What a plan is made from: everything known at one instant, frozen. Gathering it is the runtime's work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from kmm import NAMESPACE
from kmm.api.module import ModuleSpec
from kmm.contract import Finding, Kind, Manifest, ModuleRef, Progress, State, Tls
from kmm.core import names

_DIGITS = 7  # of a number in an annotation: more were not written by us


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The Module that is planned for. `spec`: with its driver merged in; None where it cannot be used.

    `driver`: the name of that driver, empty where it names none.
    """

    ref: ModuleRef
    uid: str
    generation: int = 1
    deleting: bool = False
    spec: ModuleSpec | None = None
    errors: tuple[Finding, ...] = ()
    driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelNodes:
    """The targeted nodes of one kernel: how many, of which architectures, and which operating systems they name."""

    nodes: int
    architectures: frozenset[str] = frozenset()
    os_images: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """An object whose controller is the Module (by uid). `namespace`: empty for that of the Module."""

    kind: Kind
    name: str
    uid: str
    namespace: str = ""
    generation: int = 1
    created: str = ""
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def applied(self) -> bool:
        """Whether it is as we wrote it last: nobody has edited it since."""
        return self.annotations.get(names.APPLIED_GENERATION) == str(self.generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSet(Owned):
    """A DaemonSet of ours. `spec`: only where it carries none of our annotations, for taking it over."""

    role: str
    selector: Mapping[str, str]
    spec: Manifest | None = None
    scheduled: int = 0
    ready: int = 0
    available: int = 0

    @property
    def kernel(self) -> str:
        """The kernel it is for: verbatim where we made it, else the label's value, which its selector keeps."""
        noted, label = self.annotations.get(names.VERBATIM_KERNEL), self.selector.get(names.KERNEL, "")
        return noted if noted and names.is_label_of(label, noted) else label


@dataclass(frozen=True, slots=True, kw_only=True)
class Task(Owned):
    """A build or a signature under way or over: one for each attempt, the first object that was rendered for it.

    `finished_at_s`: seconds since the epoch, once it is over; until that is known, it counts as under way. `beside`:
    what else was rendered for it, which goes with it.
    """

    job_type: str
    progress: Progress
    finished_at_s: float | None = None
    beside: tuple[Owned, ...] = ()

    @property
    def kernel(self) -> str:
        """The kernel it is for: verbatim where we made it, else the label's value."""
        return self.annotations.get(names.VERBATIM_KERNEL) or self.labels.get(names.TARGET_KERNEL, "")

    @property
    def attempt(self) -> int:
        """Which attempt it is, from 1."""
        return self._number(names.ATTEMPT)

    @property
    def inputs(self) -> str:
        """Hash of all that went into it."""
        return self.annotations.get(names.INPUTS, "")

    @property
    def alone(self) -> str:
        """What stands for the Secret that it reads alone, and for what that holds; empty where it reads none so."""
        return self.annotations.get(names.ALONE, "")

    @property
    def alone_with(self) -> str:
        """The name of that Secret, which is in the namespace of the task."""
        return self.annotations.get(names.ALONE_WITH, "")

    @property
    def failed_for_good(self) -> bool:
        """Whether it has failed, and would fail again."""
        return self.progress.state is State.FAILED and self.progress.final

    @property
    def keeps_others_out(self) -> bool:
        """Whether no other task may read that Secret: it is under way, or has failed for good."""
        return self.deleting or self.finished_at_s is None or self.failed_for_good

    @property
    def lacking(self) -> bool:
        """Whether something that was rendered for it is not there: never created, or deleted by somebody."""
        return self._number(names.OBJECTS) > 1 + len(self.beside)

    def _number(self, annotation: str) -> int:
        given = self.annotations.get(annotation, "1")
        return int(given) if given.isascii() and given.isdigit() and len(given) < _DIGITS else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of a DaemonSet of ours.

    `waiting_*`: of its container's state, as the kubelet says it. `termination_message`: what its container left when
    it ended last; of a pod that is going, when it was stopped. `held`: it has the Go operator's finalizer.
    """

    name: str
    uid: str
    module: ModuleRef
    module_uid: str
    role: str
    node: str
    kernel: str
    ready: bool = False
    deleting: bool = False
    held: bool = False
    waiting_reason: str = ""
    waiting_message: str = ""
    termination_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPod:
    """A pod of a build or signature of a Module of this name, which has not ended; the task itself may be gone.

    `label`: of its kernel, in whatever cluster it was at that time.
    """

    name: str
    node: str
    job_type: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Whether an image exists.

    `evidence`: the uid of what gives reason to ask again: no older answer serves. `access`: stands for the
    credentials that are used: with others, another answer may come. `annotations`: whether they matter, which costs
    the registry more than whether it is there. `files`: paths inside the image whose contents are wanted.
    """

    image: str
    tls: Tls = field(default_factory=Tls)
    evidence: str = ""
    access: str = ""
    annotations: bool = False
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The image is there. `files`: those of the wanted ones that it holds."""

    digest: str
    architectures: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The registry said that it is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A registry or the API server could not say. It never means "missing". It is asked again until it is known."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """The registry refuses to say, though credentials were tried. `by_registry`: else we could not even ask."""

    message: str
    by_registry: bool = True


Answer: TypeAlias = Present | Missing | Unknown | Denied


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The base images that one plugin knows: by the version of the operating system, and by kernel.

    `by_kernel`: of those whose release file has been read. `unread`: the others, the newest first.
    """

    by_version: Mapping[str, str] = field(default_factory=dict)
    by_kernel: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFacts:
    """What may be known of a Secret, and never its contents.

    `digest`: of its data. `certificate`: the sha256 fingerprint of the certificate under the key `cert`. `sealed`: of
    its data and its uid, which is as secret: of a PIN of six digits the digest alone would tell which it is.
    """

    keys: tuple[str, ...]
    digest: str
    certificate: str = ""
    sealed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """What the operator's configuration and its cluster say."""

    namespace: str = NAMESPACE
    openshift: bool = False
    privileged_namespaces: frozenset[str] = frozenset()
    max_unavailable: int | str = 1
    denied_means_missing: frozenset[str] = frozenset()
    builder: str | None = None
    signer: str | None = None
    device_plugin: str = "daemonset"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The cluster, as far as one Module is concerned.

    `targets`: targeted nodes by kernel. `kernels`: of the whole cluster. `dockerfiles` and `secrets`: what the
    Module refers to, or a task of it reads alone, and exists, by name; by `<namespace>/<name>` what is not in the
    Module's namespace. `rivals`: tasks of other Modules that read a Secret alone; `using`: what stands for Secrets
    that such tasks are started with now, or that pods of any task read yet. `taken`: names of objects that are not
    ours, found when creating. `refused`: why the API server would not have what was wanted last, by the object's
    name. `status`: what the Module's status says now. `build_slots`: how many more tasks may be started now.
    `synced`: every watch has synced once; before that, what is not seen may yet be there. `unlisted`: kinds of tasks
    of which that is not so, and why: who needs none of them need not wait for it.
    `openshift_builds`: whether the API server has OpenShift's builds. `base_images`: by the build argument that
    stands for them.
    `answers`: kept by `kmm.core.images.learn`; `stale`: those that are too old to start anything from. `access`: of
    the Module's questions; `pull_secrets`: what they are asked with, in the order to try them.
    """

    targets: Mapping[str, KernelNodes] = field(default_factory=dict)
    kernels: frozenset[str] = frozenset()
    daemon_sets: tuple[DaemonSet, ...] = ()
    tasks: tuple[Task, ...] = ()
    rivals: tuple[Task, ...] = ()
    using: frozenset[str] = frozenset()
    pods: tuple[Pod, ...] = ()
    task_pods: tuple[TaskPod, ...] = ()
    answers: Mapping[Question, Answer] = field(default_factory=dict)
    stale: frozenset[Question] = frozenset()
    access: str = ""
    pull_secrets: tuple[str, ...] = ()
    dockerfiles: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, SecretFacts] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    build_slots: int = 5
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    status: Manifest = field(default_factory=dict)
    operator: Operator = Operator()
    openshift_builds: bool | Unknown = False
    base_images: Mapping[str, Listed | Unknown] = field(default_factory=dict)
    synced: bool = True
    unlisted: Mapping[Kind, str] = field(default_factory=dict)
