"""Everything that a plugin and the core exchange: protocols and frozen values, standard library only.

A plugin is an importable object (usually a module) that an installed distribution names in the entry-point
group `kmm.v1`. It defines some of the functions of `kmm.hookspecs`; each *offers* objects of the types below,
and the core chooses among them by name or registry host. Nothing else of `kmm` is needed to write one.

Values are immutable, and a plugin must treat the mappings inside them as immutable too.
Durations end in `_s` (seconds); sizes are bytes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

CONTRACT_VERSION = "1.0"
"""Major and minor of this contract. Its major is also in the entry-point group."""

ENTRY_POINT_GROUP = "kmm.v1"

INPUTS_ANNOTATION = "io.x-k8s.kmm.inputs"
CERTIFICATE_ANNOTATION = "io.x-k8s.kmm.certificate"
UNSIGNED_ANNOTATION = "io.x-k8s.kmm.unsigned"

Manifest: TypeAlias = Mapping[str, Any]
"""A Kubernetes object, or a part of one, as JSON has it."""


class ContractError(Exception):
    """The base of what a plugin raises on purpose. Its text is shown to people: it holds no secret."""


class SettingsError(ContractError):
    """The operator's configuration of this plugin is wrong: the plugin is refused, with this text."""


class Unavailable(ContractError):
    """A registry could not say: a time-out, a 5xx answer, a TLS or DNS error. It never means "missing".

    `retry_after_s`: what the other side asked for, or None.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Forbidden(ContractError):
    """A registry refused to say (401 or 403 after the credentials were tried). It never means "missing"."""


class ContractDeprecation(DeprecationWarning):
    """What a plugin uses of this contract goes with its next major: since which minor, and what to use instead.

    `kmm plugins` and the operator's log tell it.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean "x"?` with the likeliest of `known`, or an empty text where none is like it."""
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower()[:100], lowered, n=1, cutoff=0.6)
    return f'; did you mean "{lowered[found[0]]}"?' if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a plugin may know of the operator's configuration.

    `options` is the plugin's own section (`plugins.options.<entry point name>`), empty where there is none: a
    plugin must work without it. `images` are the images that the operator's own tasks run, by use
    (`build` is kaniko's, `buildah`, `sign`), from the environment `RELATED_IMAGES_*`.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    operator_namespace: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)

    def only(self, *known: str) -> Mapping[str, Any]:
        """Return `options` after refusing every key that is not in `known`.

        Raises SettingsError, naming the key and the nearest known one.
        """
        for key in self.options:
            if key not in known:
                names = ", ".join(known) or "none"
                raise SettingsError(f'unknown option "{key}"{nearest(str(key), known)} (known: {names})')
        return self.options


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRef:
    """Which Module a request is for."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of Kubernetes object that a renderer makes: the core watches, collects and asks rights for it.

    For instance `Kind(api_version="batch/v1", kind="Job", plural="jobs")`. Only namespaced kinds. `creating`:
    subresources that whoever creates one must have the right to create too, as OpenShift asks `builds/docker` of
    whoever makes a Build with that strategy.
    """

    api_version: str
    kind: str
    plural: str
    creating: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How far a registry's identity is checked. `insecure`: plain HTTP. `skip_verify`: any certificate."""

    insecure: bool = False
    skip_verify: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildArg:
    """One argument of an image build, its variables already replaced."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFiles:
    """A Secret that a build may read: its name and the names of its keys. Its contents are not known here."""

    name: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """Build `image` for one kernel from a Dockerfile.

    `kernel` is verbatim, as the node reports it. `architecture` is as `kubernetes.io/arch` has it; where the kernel's
    nodes have several, `architectures` are all of them, `architecture` the first, and `image` is to become an index
    of them: a builder that makes none builds for the first alone. `dockerfile` is the text, and
    `dockerfile_config_map` and `dockerfile_key` say where it is in the cluster. `image` None: build without pushing.
    `secrets` are to be at `/run/secrets/<name>/<key>`. `push_secret`: a docker config Secret for pulling and pushing,
    out of sight of the Dockerfile's RUN where possible. `builder_tag`: the tag of the builder's own image that the
    Module asks for (`kanikoParams.tag`). `inputs`: hash of what goes into the image, to be recorded in it under
    INPUTS_ANNOTATION (as a label or annotation), so that an image that a build left behind can be told from
    another's. `params`: the Module's free `build.params`. `base_images`: those of `args` that the operator has
    chosen, as a Dockerfile's `DTK_AUTO`: the Module's own credentials need not be good for them.
    """

    module: ModuleRef
    kernel: str
    architecture: str
    dockerfile: str
    dockerfile_config_map: str
    dockerfile_key: str
    image: str | None
    args: tuple[BuildArg, ...] = ()
    secrets: tuple[SecretFiles, ...] = ()
    push_secret: str | None = None
    push_tls: Tls = Tls()
    base_tls: Tls = Tls()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Manifest, ...] = ()
    builder_tag: str | None = None
    inputs: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    architectures: tuple[str, ...] = ()
    base_images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignRequest:
    """Sign kernel modules inside `unsigned_image` and push the result as `image` (None: without pushing).

    `files`: absolute paths or globs inside the image; empty means every module below
    `<dir_name>/lib/modules/<kernel>`. Secrets are named, never read. `certificate`: the sha256 fingerprint of the
    certificate, where it is known, to be recorded in the manifest under CERTIFICATE_ANNOTATION, so that a rotated one
    is noticed. `pull_secrets`: those with credentials, in the order to try them: `push_secret`, where there is one,
    then those of the service account. `params`: the Module's `sign.params`.
    """

    module: ModuleRef
    kernel: str
    unsigned_image: str
    image: str | None
    dir_name: str
    files: tuple[str, ...] = ()
    key_secret: str | None = None
    cert_secret: str | None = None
    certificate: str = ""
    push_secret: str | None = None
    pull_secrets: tuple[str, ...] = ()
    push_tls: Tls = Tls()
    unsigned_tls: Tls = Tls()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Manifest, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePluginRequest:
    """Run a Module's device plugin on the nodes where its driver is loaded.

    The container's fields are the user's, in Kubernetes' own form. `node_selector` is complete: it already
    asks for nodes on which the driver is ready. `params`: the Module's free `devicePlugin.params`.
    """

    module: ModuleRef
    image: str
    image_pull_policy: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[Manifest, ...] = ()
    resources: Manifest = field(default_factory=dict)
    volume_mounts: tuple[Manifest, ...] = ()
    volumes: tuple[Manifest, ...] = ()
    init_container: Manifest | None = None
    service_account_name: str | None = None
    pull_secret: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Manifest, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)


class State(StrEnum):
    """How far a rendered task has come."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a renderer reads from the live state of what it rendered.

    `reason`: one word in PascalCase. `message`: why, for a person; the core cuts it and masks secrets. `final`: of a
    failure, that the same would fail again, and that trying does harm: nothing is tried before an input has changed.
    """

    state: State
    reason: str = ""
    message: str = ""
    final: bool = False


Request_contra = TypeVar("Request_contra", contravariant=True)


@runtime_checkable
class Renderer(Protocol[Request_contra]):
    """Turns a request into Kubernetes objects, and their live state into progress. Both functions are pure.

    Pure: no I/O, no clock, no randomness; equal input gives equal output. The core adds names, namespace,
    labels, owner, hash, watches, retries, deletion and the termination-message policy, and refuses objects
    that are of no kind in `owns`, name another namespace or are cluster-scoped.
    """

    @property
    def name(self) -> str:
        """What a Module or the configuration calls it: lower-case letters, digits and dashes."""
        ...

    @property
    def owns(self) -> Sequence[Kind]:
        """Every kind that `render` may return, at least one."""
        ...

    @property
    def requires(self) -> Sequence[str]:
        """Fields of the request that a user must set for `render` to work, e.g. `("key_secret",)`.

        `kmm validate` and a condition tell users which of them a Module lacks, by the Module's own names. What
        the core always supplies (images, the kernel, the Dockerfile) counts as set.
        """
        ...

    def render(self, request: Request_contra) -> Sequence[Manifest]:
        """Return the objects that carry out `request`, at least one."""
        ...

    def observe(self, objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
        """Say how far `objects` (as the cluster has them now) and their `pods` have come. Never raises."""
        ...


@runtime_checkable
class Limited(Protocol):
    """What a builder may have beside: what of a Module it has no means for.

    Where a Module sets one of them, the core warns of it by a condition, and the builder builds all the same.
    """

    @property
    def ignores(self) -> Sequence[str]:
        """Such fields of the request: of `args`, `base_tls`, `builder_tag`, `node_selector`, `params`, `push_tls` and
        `secrets`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the objects of a task are made, and what they read there beside what their request names.

    `operators`: in the operator's own namespace, whatever the Module's. Where those differ, the request names no
    Secret for registries: the Module's are not there. `secrets`: names of Secrets there; what they hold is an input
    of the task. `certificate`: which of them holds the certificate, under the key `cert`. `alone`: which of them only
    one task reads at a time, and none after a failure that is final, until it has changed.

    What Secrets of the operator's namespace hold is not looked for in what such a task says, since users could find
    it out by what they have it say: the signer sees to it that it says nothing of them.
    """

    operators: bool = False
    secrets: tuple[str, ...] = ()
    certificate: str = ""
    alone: str = ""


@runtime_checkable
class Placed(Protocol):
    """What a signer may have beside: what a Module's `params` alone say of where it works, and of what it reads."""

    def place(self, module: ModuleRef, params: Mapping[str, Any]) -> Place:
        """Return it; pure as `render` is. Raises ValueError for what the Module asks wrongly, or may not ask."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The one object of a cluster that lists images, such as an ImageStream: the core follows it.

    `kind`: one that clusters need not have.
    """

    kind: Kind
    namespace: str
    name: str


@runtime_checkable
class BaseImages(Protocol):
    """Knows the images that drivers are to be built in, one for each release of an operating system. All is pure.

    A Dockerfile that uses the build argument `argument` gets the image for its kernel's nodes, unless the Module sets
    that argument itself.
    """

    @property
    def name(self) -> str:
        """What messages call it: lower-case letters, digits and dashes."""
        ...

    @property
    def argument(self) -> str:
        """The build argument that stands for the image, e.g. `DTK_AUTO`."""
        ...

    @property
    def listing(self) -> Listing | None:
        """The object that lists the images, or None where nothing in the cluster does."""
        ...

    @property
    def release_file(self) -> str:
        """The absolute path, inside each image, of what says for which kernels it is; empty where there is none.

        It is read where `os_version` cannot tell: once for each image.
        """
        ...

    def images(self, listing: Manifest | None) -> Mapping[str, str]:
        """Return the images by the version of the operating system. `listing` None: there is no such object."""
        ...

    def os_version(self, os_image: str) -> str:
        """Return the version in a node's `status.nodeInfo.osImage`, or an empty text where it cannot be told."""
        ...

    def kernels(self, release: bytes) -> Sequence[str]:
        """Return the kernels that a release file names, as nodes report them."""
        ...


Builder: TypeAlias = Renderer[BuildRequest]
Signer: TypeAlias = Renderer[SignRequest]
DevicePlugin: TypeAlias = Renderer[DevicePluginRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A user name and password for a registry, or a bearer token alone. Secrets are not in its repr."""

    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How to reach a registry: credentials in the order to try them (then anonymously), TLS, extra CAs (PEM)."""

    credentials: tuple[Credential, ...] = ()
    tls: Tls = Tls()
    ca_pem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """An image that is there.

    `digest`: of the manifest or index that the reference names. `architectures`: as `kubernetes.io/arch` has
    them; empty where a single manifest counts for every architecture. `annotations`: of the manifest, and below them
    the labels of its configuration; empty where they were not asked for. `files`: contents by the path asked for; a
    path that is not in the image is left out.
    """

    digest: str
    architectures: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@runtime_checkable
class Registry(Protocol):
    """Asks one kind of registry about images: the one place where a plugin does I/O."""

    @property
    def name(self) -> str:
        """What messages and metrics call it."""
        ...

    @property
    def hosts(self) -> Sequence[str]:
        """Patterns of the registry hosts it serves: `host`, `host:port`, `*.domain` or `*`."""
        ...

    def inspect(
        self, image: str, access: Access, deadline_s: float, files: Sequence[str] = (), annotations: bool = False
    ) -> ImageInfo | None:
        """Return what is known of `image`, or None where the registry said that it does not exist.

        `deadline_s`: the call returns or raises within so many seconds. `files`: absolute paths inside the
        image whose contents are wanted, found by walking its layers from the top, bounded in size. `annotations`:
        whether they are wanted too; without, one cheap request may do.
        Raises Unavailable or Forbidden where the answer is not known.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A vendor's Module defaults, merged under the spec of each Module whose `spec.driver` is `name`.

    `spec`: a part of a Module's spec as a manifest has it. Maps merge deeply; a list that the user sets
    replaces the driver's.
    """

    name: str
    spec: Mapping[str, Any]
    description: str = ""


class Severity(StrEnum):
    """Whether a finding refuses a manifest or only comments on it."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong in a manifest: where (`spec.selector`), and what is wrong and would be right."""

    path: str
    message: str
    severity: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One thing that the operator did, for `kmm_observe`.

    `at_s`: seconds since the epoch. `action`: one of the operator's actions (`Create`, `Delete`, …);
    `kind`, `namespace`, `name`: of the object it was done to; `module`: on whose behalf, if one's; `driver`: what
    that one names as `spec.driver`, empty where it names none.
    """

    at_s: float
    action: str
    kind: str
    namespace: str
    name: str
    module: ModuleRef | None = None
    reason: str = ""
    message: str = ""
    duration_s: float = 0.0
    driver: str = ""
