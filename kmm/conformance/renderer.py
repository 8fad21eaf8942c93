"""What builders, signers and device-plugin renderers promise: both of their functions are pure, and total."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from kmm.conformance import rendered
from kmm.conformance.chance import examples
from kmm.conformance.child import in_two_worlds
from kmm.conformance.contract import Contract, broken, hold, told, unjudged
from kmm.conformance.rendered import Allowed, Finder, Rendering
from kmm.conformance.samples import NAMESPACE, SAID, TASKS, differing, failed, samples
from kmm.conformance.subject import Subject
from kmm.conformance.world import World, judged_by, unknown_to
from kmm.contract import Limited, Place, Placed, Progress, Renderer, State
from kmm.core.choice import IGNORABLE

_EXAMPLES = 40
_CARRIED_OUT = {"Job", "DaemonSet", "ConfigMap"}
_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)


class RendererContract(Contract):
    """A renderer, whatever it renders."""

    @pytest.fixture
    def params(self) -> Mapping[str, Any]:
        """The `params` of the Modules that are rendered for: none, where a subclass does not say."""
        return {}

    @pytest.fixture
    def renderer(self, subject: Subject, offer: str) -> Renderer[Any]:
        """The renderer, as the operator has it."""
        found: Renderer[Any] = subject.offered(self.field, offer)
        return found

    @pytest.fixture
    def renderings(self, renderer: Renderer[Any], params: Mapping[str, Any]) -> Sequence[Rendering]:
        """What it makes of each sample."""
        asked = samples(self.field, renderer.requires, params)
        again = samples(self.field, renderer.requires, copy.deepcopy(params))
        return [
            _rendered(renderer, each.name, each.request, untouched.request)
            for each, untouched in zip(asked, again, strict=True)
        ]

    @pytest.fixture
    def allowed(self, subject: Subject, renderer: Renderer[Any], renderings: Sequence[Rendering]) -> Allowed:
        """What it may render."""
        given_words = [*rendered.words(subject.settings.options)]
        for each in renderings:
            fields = (getattr(each.request, name) for name in each.request.__dataclass_fields__)
            given_words += [word for field in fields for word in _words(field)]
        return Allowed(namespace=NAMESPACE, owns=tuple(renderer.owns), words=frozenset(given_words))

    @pytest.fixture
    def watched(self, subject: Subject, offer: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """What it says in two processes in which nothing but the request is the same, and what it asked for there."""
        asked = {
            "value": subject.value,
            "field": self.field,
            "offer": offer,
            "options": subject.settings.options,
            "params": params,
        }
        return in_two_worlds(json.dumps(asked))

    def test_what_is_asked_is_rendered(self, renderings: Sequence[Rendering]) -> None:
        """Every request that has what `requires` names is rendered, as a list of at least one object."""
        for each in renderings:
            if each.error:
                broken(f"{each.sample}: {each.error}")
            made: object = each.made
            if not isinstance(made, list | tuple):
                broken(f"{each.sample}: a {type(made).__name__} is returned, not a list of objects")
            if not made:
                broken(f"{each.sample}: an empty list is returned")

    def test_equal_requests_are_rendered_equally(self, watched: Sequence[Mapping[str, Any]]) -> None:
        """Equal requests give the same bytes everywhere: with another hash seed, clock, folder and environment."""
        first, second = (each["said"] for each in watched)
        for one, other in zip(first, second, strict=False):
            if one != other:
                broken(f"{one[0]}: {_difference(one[-1], other[-1])}")

    def test_it_asks_for_nothing_but_its_request(self, watched: Sequence[Mapping[str, Any]]) -> None:
        """It is pure: it looks at no clock and no environment, draws nothing, starts no thread and no process, opens
        nothing but its own package's files. (What a C extension does by itself is not seen.)
        """
        hold(each for run in watched for each in run["asked"])

    def test_requests_are_left_as_they_were(self, renderings: Sequence[Rendering]) -> None:
        """What it is given it does not change."""
        hold(f"{each.sample}: the request is another one after `render`" for each in renderings if each.changed)

    def test_json_can_write_it(self, renderings: Sequence[Rendering], allowed: Allowed) -> None:
        """What is rendered is what JSON has: objects, lists, texts, finite numbers, true, false, null."""
        hold(_findings(renderings, allowed, rendered.unwritable))

    def test_only_owned_kinds_are_rendered(self, renderings: Sequence[Rendering], allowed: Allowed) -> None:
        """Every rendered object is of a kind in `owns`: the operator watches those, and has rights for no others."""
        hold(_findings(renderings, allowed, rendered.foreign))

    def test_names_are_within_their_limits(self, renderings: Sequence[Rendering], allowed: Allowed) -> None:
        """Names of objects, containers and volumes and labels are within Kubernetes' limits, however long the names
        that a Module gives are.
        """
        hold(_findings(renderings, allowed, rendered.misnamed))

    def test_what_is_the_cores_is_left_to_it(self, renderings: Sequence[Rendering], allowed: Allowed) -> None:
        """The core's labels and annotations, the owner and the namespace are left to the core."""
        hold(_findings(renderings, allowed, rendered.usurped))

    def test_secrets_are_named_and_not_made(self, renderings: Sequence[Rendering], allowed: Allowed) -> None:
        """Secrets are referred to by the names that the request or the settings give, and none is rendered."""
        hold(_findings(renderings, allowed, rendered.unknown_secrets))

    def test_keys_are_in_no_argument_and_no_environment(
        self, renderings: Sequence[Rendering], allowed: Allowed
    ) -> None:
        """A Secret reaches a container as files, and never by its environment or arguments, which others can read."""
        hold(_findings(renderings, allowed, rendered.exposed_secrets))

    def test_observe_answers_whatever_is_seen(self, renderer: Renderer[Any], renderings: Sequence[Rendering]) -> None:
        """`observe` never raises, whatever a status says, and leaves what it is given as it was: it returns a
        Progress with a State and texts. Only a failure is final.
        """

        @examples(_EXAMPLES, *_SLOW)
        @given(_seen([each.objects for each in renderings]), _PODS)
        def answers(objects: list[Any], pods: list[Any]) -> None:
            given_objects, given_pods = copy.deepcopy((objects, pods))
            shown = f"objects {json.dumps(given_objects):.300}, pods {json.dumps(given_pods):.300}"
            try:
                progress: Any = renderer.observe(objects, pods)
            except Exception as error:  # whatever it is, it is wrong
                broken(f"{told(error)}: with {shown}")
            if not isinstance(progress, Progress):
                broken(f"a {type(progress).__name__} is returned, not a Progress: with {shown}")
            texts: tuple[Any, ...] = (progress.reason, progress.message)
            state: Any = progress.state
            if not isinstance(state, State) or not all(isinstance(each, str) for each in texts):
                broken(f"{progress!r:.300} has something else than a State and texts: with {shown}")
            if progress.final not in (False, state is State.FAILED):
                broken(f"{progress!r:.300} is final, and no failure: with {shown}")
            if (objects, pods) != (given_objects, given_pods):
                broken(f"what is seen is changed: with {shown}")

        answers()

    def test_a_failure_says_why(self, renderer: Renderer[Any], renderings: Sequence[Rendering]) -> None:
        """A task that has failed is told so, and why: with what its container said last."""
        tasks = [each for each in renderings if any(_kind(made) in TASKS for made in each.objects)]
        if not tasks:
            unjudged(f"nothing that is rendered is a {' or a '.join(TASKS)}: how others fail is not known here")
        for each in tasks:
            _, objects, pods = failed([made for made in each.objects if isinstance(made, Mapping)])
            try:
                progress = renderer.observe(objects, pods)
            except Exception as error:
                unjudged(f"observe raises {told(error)}")
            if progress.state is not State.FAILED:
                broken(f"{each.sample}: a task whose pod has failed is told to be {progress.state}")
            if SAID not in progress.message:
                broken(
                    f'{each.sample}: its container said "{SAID}", and the message of its failure is '
                    f'"{progress.message:.200}"'
                )

    def test_an_api_server_takes_it(
        self,
        renderer: Renderer[Any],
        renderings: Sequence[Rendering],
        allowed: Allowed,
        kmm_kubeconfig: Path,
    ) -> None:
        """An API server takes what is rendered, once the core has finished it, and knows each of its fields.

        The embedded one is asked, or with --kmm-cluster a real one, which then stores nothing.
        """
        good = _good(renderings, allowed)
        if strange := unknown_to(kmm_kubeconfig, renderer.owns):
            unjudged(f"the API server has no {' and no '.join(strange)}: --kmm-cluster asks another one")
        hold(judged_by(kmm_kubeconfig, self.field, renderer, good))

    def test_a_modules_life_runs_with_it(
        self,
        subject: Subject,
        renderer: Renderer[Any],
        renderings: Sequence[Rendering],
        allowed: Allowed,
        params: Mapping[str, Any],
        kmm_world: World,
    ) -> None:
        """In a cluster, an operator brings a Module to be ready with it, and nothing is left once that is deleted."""
        good = _good(renderings, allowed)
        strange = sorted({kind.kind for kind in renderer.owns} - _CARRIED_OUT)
        if strange:
            unjudged(f"nothing in the embedded cluster carries out a {' or a '.join(strange)}")
        if any(judged_by(kmm_world.kubeconfig, self.field, renderer, good)):
            unjudged("an API server does not take what is rendered")
        kmm_world.live(subject, self.field, renderer.name, params)


class BuilderContract(RendererContract):
    """A builder: what `kmm_builders` offers."""

    field: ClassVar[str] = "builders"
    noun: ClassVar[str] = "builder"

    @pytest.fixture
    def used(self, renderer: Renderer[Any], params: Mapping[str, Any]) -> Mapping[str, bool]:
        """Of what a Module may say of a build: whether it changes what is rendered."""
        found = {}
        for name in IGNORABLE:
            if name == "params":
                continue  # what they may hold is the builder's to say
            try:
                with_it, without = (
                    json.dumps(renderer.render(request), default=repr)
                    for request in differing(renderer.requires, params, name)
                )
            except Exception:  # which another rule is about
                unjudged("not every request is rendered")
            found[name] = with_it != without
        return found

    def test_what_it_ignores_changes_nothing(self, renderer: Renderer[Any], used: Mapping[str, bool]) -> None:
        """What `ignores` names changes nothing in what is rendered: users are told that it comes to nothing."""
        ignores = renderer.ignores if isinstance(renderer, Limited) else ()
        hold(f"{each} is in ignores, and changes what is rendered" for each in ignores if used.get(each))

    def test_nothing_is_ignored_in_silence(self, renderer: Renderer[Any], used: Mapping[str, bool]) -> None:
        """What a Module may say of a build changes what is rendered, or `ignores` names it."""
        ignores = renderer.ignores if isinstance(renderer, Limited) else ()
        silent = [each for each, changes in used.items() if not changes and each not in ignores]
        hold(f"{each} changes nothing, and is not in ignores" for each in silent)


class SignerContract(RendererContract):
    """A signer: what `kmm_signers` offers."""

    field: ClassVar[str] = "signers"
    noun: ClassVar[str] = "signer"

    def test_where_it_works_is_said_as_it_is_done(
        self, renderer: Renderer[Any], renderings: Sequence[Rendering]
    ) -> None:
        """Where it says where it works (`place`), it says so of all that is rendered: the same each time, with names
        of Secrets that it mounts, and with the certificate and what it reads alone among them.
        """
        if not isinstance(renderer, Placed):
            unjudged("it works in the Module's namespace, and reads what the request names")
        for each in renderings:
            if each.error:
                unjudged("not all is rendered")
            ref, params = each.request.module, each.request.params
            try:
                place: Any = renderer.place(ref, copy.deepcopy(params))
                again: Any = renderer.place(ref, copy.deepcopy(params))
            except Exception as error:  # a plugin may raise anything
                broken(f"{each.sample}: place raises {told(error)}, though it is rendered")
            if not isinstance(place, Place) or place != again:
                broken(f"{each.sample}: {place!r:.200} is no Place, or another one the next time: {again!r:.200}")
            used = {word for made in each.objects for word in rendered.words(made)}
            if not {place.certificate, place.alone} - {""} <= {*place.secrets} <= used:
                broken(f"{each.sample}: {place!r:.200} names a Secret that is not among its secrets, or not mounted")


class DevicePluginContract(RendererContract):
    """A renderer of device plugins: what `kmm_device_plugins` offers."""

    field: ClassVar[str] = "device_plugins"
    noun: ClassVar[str] = "device-plugin renderer"


def _rendered(renderer: Renderer[Any], name: str, request: Any, untouched: Any) -> Rendering:
    try:
        made = renderer.render(request)
    except Exception as error:  # a plugin may raise anything
        return Rendering(sample=name, request=untouched, error=told(error), changed=request != untouched)
    return Rendering(sample=name, request=untouched, made=made, changed=request != untouched)


def _findings(renderings: Sequence[Rendering], allowed: Allowed, finder: Finder) -> list[str]:
    """Return what is wrong with all that was rendered. Skips where nothing was."""
    if all(each.error for each in renderings):
        unjudged("nothing is rendered")
    return [f"{each.sample}: {found}" for each in renderings for found in finder(each, allowed)]


def _good(renderings: Sequence[Rendering], allowed: Allowed) -> Sequence[Rendering]:
    """Return what was rendered, if nothing is wrong with it that a simpler rule says; skips else."""
    wrong = [found for finder in rendered.ALL for found in _findings(renderings, allowed, finder)]
    if wrong or not all(each.objects for each in renderings):
        unjudged("what is rendered breaks a simpler rule")
    return renderings


def _words(value: Any) -> Iterable[str]:
    fields = getattr(value, "__dataclass_fields__", None)
    if fields:
        return [word for name in fields for word in _words(getattr(value, name))]
    if isinstance(value, tuple):
        return [word for each in value for word in _words(each)]
    return rendered.words(value)


def _kind(manifest: Any) -> str:
    return str(manifest.get("kind")) if isinstance(manifest, Mapping) else ""


def _difference(one: str, other: str) -> str:
    """Return where two texts begin to differ."""
    first = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    begin = max(0, first - 30)
    return f"…{one[begin : first + 40]}… in one process, …{other[begin : first + 40]}… in the other"


# ── What may be seen ──────────────────────────────────────────────────────────────────────────────────────────

_WORDS = st.sampled_from(
    ("", "True", "False", "Unknown", "Complete", "Failed", "Suspended", "Running", "Succeeded", "Pending", "Error",
     "OOMKilled", "Evicted", "DeadlineExceeded", "PodScheduled", "DisruptionTarget", "ImagePullBackOff")
)  # fmt: skip
_KEYS = st.sampled_from(
    ("conditions", "type", "status", "reason", "message", "phase", "containerStatuses", "initContainerStatuses",
     "state", "terminated", "waiting", "running", "exitCode", "name", "succeeded", "failed", "active", "logSnippet",
     "desiredNumberScheduled", "numberAvailable", "observedGeneration", "other")
)  # fmt: skip
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | _WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=6,
)
_CONDITIONS = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("type", "status", "reason", "message"), _WORDS | _ANY)),
    max_size=3,
)
_STATE = st.fixed_dictionaries(
    {},
    optional={
        key: st.fixed_dictionaries({}, optional=dict.fromkeys(("exitCode", "reason", "message"), _WORDS | _ANY))
        for key in ("terminated", "waiting")
    },
)
_STATUSES = _ANY | st.fixed_dictionaries(
    {},
    optional={
        "phase": _WORDS | _ANY,
        "conditions": _CONDITIONS | _ANY,
        "containerStatuses": st.lists(st.fixed_dictionaries({"name": _WORDS, "state": _STATE}), max_size=2) | _ANY,
        "message": _ANY,
        "reason": _ANY,
        "desiredNumberScheduled": _ANY,
        "numberAvailable": _ANY,
    },
)
_METADATA = st.fixed_dictionaries({}, optional={"name": _WORDS, "labels": _ANY, "annotations": _ANY})
_PODS = st.lists(st.fixed_dictionaries({}, optional={"metadata": _METADATA, "status": _STATUSES}), max_size=2)


def _seen(rendered_objects: Sequence[Sequence[Any]]) -> st.SearchStrategy[list[Any]]:
    """Objects as they were rendered, with any status, or none of them any more."""
    every = [[each for each in objects if isinstance(each, Mapping)] for objects in rendered_objects]

    def with_statuses(objects: list[Mapping[str, Any]]) -> st.SearchStrategy[list[Any]]:
        return st.tuples(
            *(
                st.fixed_dictionaries({**{key: st.just(each[key]) for key in each}, "status": _STATUSES})
                for each in objects
            )
        ).map(list)

    return st.just([]) | st.sampled_from(every or [[]]).flatmap(with_statuses)
