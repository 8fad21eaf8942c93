"""Questions to registries: the same one is asked once, few at a time, and one at a time while a registry is away.

Plans say what they want to know as long as they do not know it; when it is asked is decided here. What a registry
could not say is asked again, later and later. One that fails several times in a row is taken to be unavailable: then
a single question tries it now and then, and once it answers, all that wait are asked.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from cachetools import TTLCache

from kmm.catalog import Catalog
from kmm.contract import (
    CERTIFICATE_ANNOTATION,
    INPUTS_ANNOTATION,
    UNSIGNED_ANNOTATION,
    Access,
    Forbidden,
    Tls,
    Unavailable,
)
from kmm.core.status import timestamp
from kmm.core.view import Answer, Denied, Missing, Present, Question, Subject, Unknown
from kmm.errors import KmmError
from kmm.oci import reference
from kmm.runtime.credentials import CredentialError
from kmm.runtime.metrics import Metrics
from kmm.runtime.transport import Unreachable

_LOG = logging.getLogger(__name__)
_KEPT = 10_000  # answers that are kept for other Modules
_MOST_AT_ONCE = 128  # of all registries: several that hang must not keep the others from being asked
_ARCHITECTURES, _TEXT = 50, 300  # what is kept of a registry's words
_FILE_MOST = 64 * 1024  # bytes: what is larger is none of what is looked for
_IDLE_S = 3600.0
_SPENT = 0.9  # of a deadline: what took as long would have taken longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long answers serve, and when what was not answered is asked again.

    `missing_s`: nothing is built from a "missing" that is older. `denied_s`: until a refusal is tried again by itself
    (other credentials try it at once). `retry_s`, doubled each time, to `retry_most_s`: after no answer.
    `files_deadline_s`: for what has to be looked for in layers, doubled each time that it was not enough, to
    `files_deadline_most_s`; `files_rest_s`: until it is looked for again then, doubled likewise, to
    `files_rest_most_s`. `at_once`: questions in flight for one registry, beside one for what is in layers.
    `failures`: how many in a row make it count as unavailable.
    """

    present_s: float = 600.0
    missing_s: float = 60.0
    denied_s: float = 300.0
    retry_s: float = 2.0
    retry_most_s: float = 30.0
    deadline_s: float = 20.0
    files_deadline_s: float = 120.0
    files_deadline_most_s: float = 960.0
    files_rest_s: float = 240.0
    files_rest_most_s: float = 3600.0
    at_once: int = 8
    failures: int = 3


@dataclass(slots=True)
class _Wanted:
    """A question that has no answer yet. `due`: when it may be asked; `told`: when it was said that nobody knows.

    `slow`: how often the time was not enough to read what is asked for.
    """

    question: Question
    subjects: dict[str, Subject] = field(default_factory=dict)
    due: float = 0.0
    wanted: float = 0.0
    told: float = -1.0
    said: Unknown | Denied | None = None
    failures: int = 0
    slow: int = 0
    flying: bool = False


@dataclass(slots=True)
class _Registry:
    """What is waited for at one host, the next to ask first.

    `failures`: in a row; `since_s`: of the first of them. `retry`: when it may be asked anything; `said`: to whoever
    asks before. `left_alone`: until when it has asked for that itself.
    """

    host: str
    tls: Tls
    wanted: dict[Question, _Wanted] = field(default_factory=dict)
    failures: int = 0
    since_s: float = 0.0
    retry: float = 0.0
    left_alone: float = 0.0
    said: Unknown | None = None


class Probes:
    """Asks registries, in threads of its own.

    `access`: credentials and trust for a question of a Module, which may ask the API server. `answered` hears each
    answer, the Module that wanted it, and for how many seconds something may be started from it.
    """

    def __init__(
        self,
        catalog: Catalog,
        access: Callable[[Question, Subject], Access],
        answered: Callable[[Question, Answer, Subject, float], None],
        metrics: Metrics,
        patience: Patience | None = None,
    ) -> None:
        self._catalog, self._access, self._answered, self._metrics = catalog, access, answered, metrics
        self._patience = patience or Patience()
        self._changed = threading.Condition()
        self._registries: dict[tuple[str, Tls], _Registry] = {}
        self._flying = 0
        self._present: TTLCache[Question, Present] = TTLCache(_KEPT, self._patience.present_s, timer=time.monotonic)
        # When it was said.
        self._missing: TTLCache[Question, float] = TTLCache(_KEPT, self._patience.missing_s, timer=time.monotonic)
        # How often the time was not enough, and until when it is left alone: also where meanwhile nobody wants it.
        self._slow: TTLCache[Question, tuple[int, float]] = TTLCache(
            _KEPT, self._patience.files_rest_most_s * 2, timer=time.monotonic
        )
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask nothing more."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def ask(self, question: Question, subject: Subject) -> None:
        """Say that a Module wants to know; its answer comes when there is one."""
        key = (_host(question.image), question.tls)
        said: Answer | None = None
        with self._changed:
            left_s = self._patience.missing_s
            known: Answer | None = self._present.get(question)
            if known is None and (said_s := self._missing.get(question)) is not None:
                known, left_s = Missing(), left_s - (time.monotonic() - said_s)
            if known is None:
                registry = self._registries.setdefault(key, _Registry(key[0], question.tls))
                wanted = registry.wanted.get(question) or self._wanted(question)
                registry.wanted[question] = wanted
                is_new = subject.uid not in wanted.subjects
                wanted.subjects[subject.uid] = subject
                wanted.wanted = time.monotonic()
                said = (wanted.said or registry.said) if is_new else None
                self._changed.notify()
        if known is not None:
            self._answered(question, known, subject, left_s)
        elif said is not None:
            self._answered(question, said, subject, 0.0)

    def forget(self, uid: str) -> None:
        """Ask nothing more for a Module that is gone."""
        with self._changed:
            for registry in self._registries.values():
                for wanted in list(registry.wanted.values()):
                    wanted.subjects.pop(uid, None)
                    if not wanted.subjects and not wanted.flying:
                        del registry.wanted[wanted.question]
            self._changed.notify()

    def _wanted(self, question: Question) -> _Wanted:
        slow, due = self._slow.get(question, (0, 0.0))
        return _Wanted(question, slow=slow, due=due)

    def _run(self) -> None:
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                waits_s = [_IDLE_S]
                for registry in list(self._registries.values()):
                    for wanted in self._due(registry, now):
                        wanted.flying = True
                        self._flying += 1
                        # A daemon: one that hangs must not keep the process from ending.
                        threading.Thread(
                            target=self._ask, args=(registry, wanted), name=f"probe-{registry.host}", daemon=True
                        ).start()
                    if self._room(registry):
                        waits_s += [max(each.due, registry.retry) - now for each in self._resting(registry)]
                    if not registry.wanted:
                        del self._registries[registry.host, registry.tls]
                self._changed.wait(max(0.01, min(waits_s)))

    def _room(self, registry: _Registry) -> int:
        """Return how many more may be in flight: one that has just failed is not asked many things at once.

        To read layers takes long, and takes nobody's place.
        """
        flying = sum(each.flying and not each.question.files for each in registry.wanted.values())
        room = (1 if registry.failures else self._patience.at_once) - flying
        return max(0, min(room, _MOST_AT_ONCE - self._flying))

    def _resting(self, registry: _Registry) -> list[_Wanted]:
        """Return what may be in flight, and is not. Layers that are read at once would only be slower, each."""
        reads = any(each.flying and each.question.files for each in registry.wanted.values())
        return [each for each in registry.wanted.values() if not (each.flying or (reads and each.question.files))]

    def _due(self, registry: _Registry, now: float) -> list[_Wanted]:
        """Return what is to be asked now, and drop what is not wanted any more."""
        due = [each for each in self._resting(registry) if max(each.due, registry.retry) <= now]
        for wanted in due:
            if wanted.wanted <= wanted.told:
                del registry.wanted[wanted.question]  # whoever was told has not asked again
        # Those first that have failed least: many that always fail must not keep a new one from being tried.
        left = sorted((each for each in due if each.question in registry.wanted), key=lambda each: each.failures)
        files = [each for each in left if each.question.files][:1]
        return [*(each for each in left if not each.question.files), *files][: self._room(registry)]

    def _ask(self, registry: _Registry, wanted: _Wanted) -> None:
        began = time.monotonic()
        try:
            answer = self._inspect(wanted, list(wanted.subjects.values()))
        except Exception as error:  # whatever it is, the question must not be in flight for ever
            _LOG.error("a question to %s raised %s at %s", registry.host, type(error).__name__, _place(error))
            answer = _Later(Unknown(message=f"it cannot be asked: {type(error).__name__}"), of_registry=False)
        patience = self._patience
        outcome = "retry" if isinstance(answer, _Later) else type(answer).__name__
        self._metrics.probed(registry.host, outcome.lower(), time.monotonic() - began)
        tell: list[tuple[_Wanted, Answer]] = []
        with self._changed:
            now = time.monotonic()
            wanted.flying = False
            self._flying -= 1
            # The next one first: a question that always fails must not keep the others from being tried.
            registry.wanted.pop(wanted.question, None)
            if isinstance(answer, Present):
                self._present[wanted.question] = answer
                image = (wanted.question.image, wanted.question.tls)
                for asked in [asked for asked in self._missing if (asked.image, asked.tls) == image]:
                    self._missing.pop(asked, None)  # it is there now, whoever was told otherwise
            elif isinstance(answer, Missing):
                self._missing[wanted.question] = now
            elif wanted.subjects:
                registry.wanted[wanted.question] = wanted
            if isinstance(answer, _Later):
                wanted.failures += 1
                delay_s = min(patience.retry_s * 2 ** min(wanted.failures - 1, 16), patience.retry_most_s)
                wanted.due = now + max(delay_s, answer.retry_after_s)
                if answer.slow:
                    wanted.slow += 1
                    rest_s = patience.files_rest_s * 2.0 ** min(wanted.slow - 1, 16)
                    wanted.due = now + max(min(rest_s, patience.files_rest_most_s), answer.retry_after_s)
                    self._slow[wanted.question] = (wanted.slow, wanted.due)
                tell += self._failed(registry, wanted, answer, now) if answer.of_registry else [(wanted, answer.said)]
            else:
                if not isinstance(answer, Denied) or answer.by_registry:
                    self._heard_from(registry, now)
                wanted.failures, wanted.due = 0, now + patience.denied_s
                self._slow.pop(wanted.question, None)
                tell.append((wanted, answer))
            for each, said in tell:
                each.told, each.said = now, None if isinstance(said, Present | Missing) else said
            told = [(each.question, said, list(each.subjects.values())) for each, said in tell]
            self._changed.notify()
        for question, said, subjects in told:
            for subject in subjects:
                self._answered(question, said, subject, patience.missing_s)

    def _heard_from(self, registry: _Registry, now: float) -> None:
        """Note that a registry answers."""
        if registry.left_alone > now:
            return  # that one was under way before it asked to be left alone
        if registry.said:
            _LOG.info("registry %s answers again", registry.host)
            for each in registry.wanted.values():
                each.due = each.due if isinstance(each.said, Denied) else 0.0
        registry.failures, registry.retry, registry.said = 0, 0.0, None

    def _failed(
        self, registry: _Registry, wanted: _Wanted, answer: _Later, now: float
    ) -> list[tuple[_Wanted, Answer]]:
        """Note that a registry gave no answer; return whom to tell."""
        patience = self._patience
        if not registry.failures:
            registry.since_s = time.time()
        registry.failures += 1
        # The first words stand while it lasts: to tell all that wait of each other one would be noise.
        first = registry.said or (wanted.said if isinstance(wanted.said, Unknown) else None)
        said = first or Unknown(message=f"{answer.said.message}, since {timestamp(registry.since_s)}")
        more = registry.failures - patience.failures
        if more < 0 and not answer.retry_after_s:
            return [(wanted, said)]
        if registry.said is None:
            _LOG.warning("registry %s is taken to be unavailable: %s", registry.host, answer.said.message)
        delay_s = min(patience.retry_s * 2 ** min(max(0, more + 1), 16), patience.retry_most_s)
        registry.retry, registry.said = now + max(delay_s, answer.retry_after_s), said
        registry.left_alone = max(registry.left_alone, now + answer.retry_after_s)
        others = [each for each in registry.wanted.values() if each is not wanted and not each.flying]
        return [(wanted, said), *((each, said) for each in others if each.said != said)]

    def _inspect(self, wanted: _Wanted, subjects: list[Subject]) -> Answer | _Later:
        question, began = wanted.question, time.monotonic()
        deadline_s = self._deadline_s(wanted)
        try:
            registry = self._catalog.registry(reference.parse(question.image).host)
            access = self._access_of_any(question, subjects)
        except CredentialError as error:
            return Denied(message=str(error), by_registry=False)
        except (KmmError, reference.ReferenceError) as error:
            return _Later(Unknown(message=str(error)), of_registry=False)
        files = question.files
        try:
            found = registry.inspect(question.image, access, deadline_s, files, annotations=question.annotations)
            if found is None:
                return Missing()
            kept = (CERTIFICATE_ANNOTATION, INPUTS_ANNOTATION, UNSIGNED_ANNOTATION)
            return Present(
                digest=found.digest[:_TEXT],
                architectures=tuple(each[:_TEXT] for each in found.architectures[:_ARCHITECTURES]),
                annotations={key: found.annotations[key][:_TEXT] for key in kept if key in found.annotations},
                files={
                    path: bytes(content)
                    for path in files
                    if (content := found.files.get(path)) is not None and len(content) <= _FILE_MOST
                },
            )
        except Forbidden as error:
            return Denied(message=str(error))
        except Unavailable as error:
            after_s = min(error.retry_after_s or 0.0, 600.0)
            if files and time.monotonic() - began >= deadline_s * _SPENT:
                # That says nothing of the registry, of which others may want to know something.
                said = f"{error}: its layers are large, or come slowly; it is tried again, later and for longer"
                return _Later(Unknown(message=said), after_s, of_registry=False, slow=True)
            return _Later(Unknown(message=str(error)), after_s)
        except Exception as error:  # a plugin may raise anything: that is no answer
            # Without its text, which may hold anything.
            _LOG.error("registry plugin %s raised %s at %s", registry.name, type(error).__name__, _place(error))
            return _Later(Unknown(message=f"the registry plugin raised {type(error).__name__}"), of_registry=False)

    def _deadline_s(self, wanted: _Wanted) -> float:
        patience = self._patience
        if not wanted.question.files:
            return patience.deadline_s
        return min(patience.files_deadline_s * 2.0 ** min(wanted.slow, 16), patience.files_deadline_most_s)

    def _access_of_any(self, question: Question, subjects: list[Subject]) -> Access:
        """Return what to ask with, by the first Module that can still say: another may be gone meanwhile."""
        failed: KmmError = Unreachable("no Module wants to know any more")
        for subject in reversed(subjects):
            try:
                return self._access(question, subject)
            except KmmError as error:
                failed = error
        raise failed


def _host(image: str) -> str:
    try:
        return reference.parse(image).host
    except reference.ReferenceError:
        return ""


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"


@dataclass(frozen=True, slots=True)
class _Later:
    """No answer. `of_registry`: it is the registry that gave none, and not us who could not ask. `slow`: there was
    not enough time to read it.
    """

    said: Unknown
    retry_after_s: float = 0.0
    of_registry: bool = True
    slow: bool = False
