"""What registries promise: present, absent, refused and unavailable are told apart, in time, without a secret."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from kmm.conformance.contract import Contract, broken, hold
from kmm.conformance.registries import (
    PASSWORD,
    SECRETS,
    TOKEN,
    WRONG,
    Asked,
    Registries,
    Running,
    ask,
    ask_aside,
    overheard,
    texts,
)
from kmm.conformance.subject import Subject
from kmm.contract import Access, Credential, Registry, Tls
from kmm.embedded.registry_fault import RegistryFault, Trouble

_FILE = "/opt/lib/modules/6.1.0/acme.ko"
_TIMES = 10
_OVER = 1.2  # of its deadline a question may take
# A question that takes too long is asked again with more time: what a busy machine adds matters less and less.
_DEADLINES_S = (1.0, 3.0, 8.0)
_SHORT_S = 2.0


class RegistryContract(Contract):
    """A registry: what `kmm_registries` offers. It is asked about registries on 127.0.0.1, of each kind there is."""

    field: ClassVar[str] = "registries"
    noun: ClassVar[str] = "registry"

    @pytest.fixture
    def registry(self, subject: Subject, offer: str) -> Registry:
        """What is asked: it must be able to ask 127.0.0.1."""
        found: Registry = subject.offered(self.field, offer)
        return found

    def test_an_image_that_is_there_is_told_of(self, registry: Registry, kmm_registries: Registries) -> None:
        """An image that is there is told with its digest, and with the files and annotations that are asked for; an
        index with its architectures.
        """
        for each in kmm_registries.running:
            name = f"{each.repository()}:1"
            digest = each.registry.push_image(
                name, layers=[{_FILE: b"old"}], files={_FILE: b"new"}, annotations={"k": "v"}
            )
            by_digest = f"{name.partition(':')[0]}@{digest}"
            for reference in (name, by_digest):
                asked = ask(registry, each.image(reference), each.access())
                _expect(asked, f"present as {digest}", each, "an image that is there")
            asked = ask(registry, each.image(name), each.access(), files=[_FILE, "/none"], annotations=True)
            _expect(asked, f"present as {digest}", each, "an image whose files are wanted")
            found = (dict(asked.info.files), dict(asked.info.annotations)) if asked.info else ()
            if found != ({_FILE: b"new"}, {"k": "v"}):
                broken(f"{each.mode}: of the files and annotations of an image this is told: {found!r:.300}")
            with _struck(each, name.partition(":")[0], kind=Trouble.REDIRECT, on=("blob",)):
                asked = ask(registry, each.image(name), each.access(), files=[_FILE])
                _expect(asked, f"present as {digest}", each, "an image whose layers are elsewhere")
            digests = {
                architecture: each.registry.push_image(name, {"/a": b"a"}, architecture=architecture)
                for architecture in ("arm64", "amd64")
            }
            each.registry.push_index(name, digests)
            asked = ask(registry, each.image(name), each.access())
            if set(asked.info.architectures if asked.info else ()) != set(digests):
                broken(
                    f"{each.mode}: an index of {' and '.join(digests)} is {asked.what}, told as {asked.info!r:.300}"
                )

    def test_an_image_that_is_not_there_is_none(self, registry: Registry, kmm_registries: Registries) -> None:
        """An image of which a registry says that it does not exist is None: nothing is raised."""
        for each in kmm_registries.running:
            repository = each.repository()
            each.registry.push_image(f"{repository}:1", {"/a": b"a"})
            for name in (f"{repository}:2", f"{repository}@sha256:{'0' * 64}", f"{each.repository()}:1"):
                asked = ask(registry, each.image(name), each.access())
                _expect(asked, "absent", each, "an image that is not there")

    def test_a_refusal_is_forbidden(self, registry: Registry, kmm_registries: Registries) -> None:
        """Where credentials are refused or do not suffice, that is Forbidden, not "missing". All are tried."""
        for each in kmm_registries.guarded:
            name = f"{each.repository()}:1"
            digest = each.registry.push_image(name, {"/a": b"a"})
            image = each.image(name)
            _expect(ask(registry, image, each.access(WRONG)), "refused", each, "an image with a wrong password")
            _expect(ask(registry, image, each.access_with()), "refused", each, "an image without credentials")
            asked = ask(registry, image, each.access(WRONG, PASSWORD))
            _expect(asked, f"present as {digest}", each, "an image with a wrong password, and then the right one")
        for each in kmm_registries.running:
            repository = each.repository()
            with _struck(each, repository, kind=Trouble.REFUSE, code=403, on=("manifest",)):
                asked = ask(registry, each.image(f"{repository}:1"), each.access())
                _expect(asked, "refused", each, "an image of which it answers 403")
            hidden = each.repository()
            with _struck(each, hidden, kind=Trouble.HIDE, on=("manifest",)):
                asked = ask(registry, each.image(f"{hidden}:1"), each.access())
                _expect(asked, "refused", each, "an image of a repository that it hides behind a 401")

    def test_no_answer_is_unavailable(self, registry: Registry, kmm_registries: Registries) -> None:
        """Errors of the server, answers that are none, broken connections and certificates that do not fit are
        Unavailable: never "missing", and never Forbidden.
        """
        for each in kmm_registries.running:
            for what, fault in _faults(each):
                repository = each.repository()
                each.registry.push_image(f"{repository}:1", {"/a": b"a"})
                with _struck(each, repository, **fault):
                    asked = ask(registry, each.image(f"{repository}:1"), each.access(), _SHORT_S, annotations=True)
                    _expect(asked, "unavailable", each, f"an image, where {what}")
            for what, fault in _faults_of_layers():
                repository = each.repository()
                each.registry.push_image(f"{repository}:1", files={_FILE: b"new"})
                with _struck(each, repository, **fault):
                    asked = ask(registry, each.image(f"{repository}:1"), each.access(), _SHORT_S, files=[_FILE])
                    _expect(asked, "unavailable", each, f"an image whose files are wanted, where {what}")
            if each.registry.ca_pem:
                trusting = Access(credentials=each.access().credentials, tls=Tls())
                asked = ask(registry, each.image(f"{each.repository()}:1"), trusting)
                _expect(asked, "unavailable", each, "an image, where its certificate is of an unknown authority")
            with each.registry.down():
                asked = ask(registry, each.image(f"{each.repository()}:1"), each.access())
                _expect(asked, "unavailable", each, "an image, where nobody listens")

    def test_deadlines_are_kept(self, registry: Registry, kmm_registries: Registries) -> None:
        """A question is over within its deadline, and a fifth of it, where a registry does not answer or does so in
        drops.
        """
        with ThreadPoolExecutor() as threads:
            hold(found for found in threads.map(lambda late: _late(registry, *late), _slow(kmm_registries)) if found)

    def test_no_credential_is_in_any_text(self, registry: Registry, kmm_registries: Registries) -> None:
        """No password and no token is in an answer, an error, what caused that, or what is logged or printed."""
        for each in kmm_registries.guarded:
            repository = each.repository()
            each.registry.push_image(f"{repository}:1", {"/a": b"a"})
            token = each.access_with(Credential(token=TOKEN))
            with overheard() as heard:
                for access in (each.access(), each.access(WRONG), token):
                    for image in (f"{repository}:1", f"{repository}:2", f"{repository}:not a tag"):
                        heard.extend(texts(ask(registry, each.image(image), access)))
                for on in ("manifest", "token"):
                    with _struck(each, "", kind=Trouble.REFUSE, code=503, on=(on,)):
                        heard.extend(texts(ask(registry, each.image(f"{repository}:3"), each.access(), _SHORT_S)))
            hold(
                f"{each.mode}: a credential is in a text: {_around(text, secret)}"
                for text in heard
                for secret in (*SECRETS, *each.registry.access_tokens())
                if secret in text
            )

    def test_the_same_question_has_the_same_answer(self, registry: Registry, kmm_registries: Registries) -> None:
        """The same question has the same answer, ten times in a row."""
        for each in kmm_registries.running:
            name = f"{each.repository()}:1"
            each.registry.push_image(name, {"/a": b"a"})
            questions = {"that is there": (name, each.access()), "that is not": (f"{name}0", each.access())}
            if each.guarded:
                questions["with a wrong password"] = (name, each.access(WRONG))
            for what, (image, access) in questions.items():
                answers = [ask(registry, each.image(image), access).what for _ in range(_TIMES)]
                if len(set(answers)) > 1:
                    broken(f"{each.mode}: an image {what} is, asked {_TIMES} times: {', '.join(answers)}")


def _expect(asked: Asked, what: str, running: Running, question: str) -> None:
    if asked.what != what:
        why = f": {told}" if (told := " ".join(str(asked.error or "").split())[:300]) else ""
        broken(f"{running.mode}: {question} is {asked.what}, and should be {what}{why}")


@contextmanager
def _struck(running: Running, repository: str, **fault: Any) -> Iterator[None]:
    """Let a fault strike whatever is asked about a repository, as long as the context lasts."""
    # A token server does not know of what repository it is asked.
    named = "" if "token" in fault["on"] else repository
    armed = running.registry.faults.add(RegistryFault(times=None, repository=named, **fault))
    try:
        yield
    finally:
        armed.times = 0


def _faults(running: Running) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what goes wrong with an answer, in words, and the fault that does it."""
    on = ("manifest",)
    for code in (500, 502, 503, 429):
        yield f"it answers {code}", {"kind": Trouble.REFUSE, "code": code, "on": on}
    yield "a proxy answers with a page", {"kind": Trouble.PAGE, "code": 502, "on": on}
    yield "the connection ends without an answer", {"kind": Trouble.RESET, "on": on}
    yield "the connection ends within an answer", {"kind": Trouble.CUT, "on": on, "after_bytes": 20}
    yield "an answer is not what its digest says", {"kind": Trouble.CORRUPT, "on": on}
    yield "an answer is too short", {"kind": Trouble.TRUNCATE, "on": on, "after_bytes": 20}
    yield "an answer does not end", {"kind": Trouble.FLOOD, "on": on}
    if "Bearer" in running.mode:
        running.registry.expire_tokens()
        yield "its token server answers 503", {"kind": Trouble.REFUSE, "code": 503, "on": ("token",)}


def _faults_of_layers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what goes wrong once an image is known to be there."""
    on = ("blob",)
    for code in (404, 500):
        yield f"it answers {code} of a layer", {"kind": Trouble.REFUSE, "code": code, "on": on}
    yield "a layer is not what its digest says", {"kind": Trouble.CORRUPT, "on": on}
    yield "a layer is too short", {"kind": Trouble.TRUNCATE, "on": on, "after_bytes": 20}


def _slow(registries: Registries) -> Sequence[tuple[Running, str, dict[str, Any]]]:
    """Return registries that are slow: which, in words, and the fault that makes them so."""
    plain, *_, bearer = registries.running
    return [
        (plain, "does not answer", {"kind": Trouble.HANG, "on": ("manifest",)}),
        (plain, "answers in drops", {"kind": Trouble.DRIP, "on": ("manifest",), "delay_s": 0.3}),
        (bearer, "gives no token", {"kind": Trouble.HANG, "on": ("token",)}),
    ]


def _late(registry: Registry, running: Running, what: str, fault: dict[str, Any]) -> str:
    """Return how much too late questions are over, at each deadline; empty where one of them is kept."""
    took = []
    for deadline_s in _DEADLINES_S:
        repository = running.repository()
        running.registry.push_image(f"{repository}:1", {"/a": b"a"})
        image, most_s = running.image(f"{repository}:1"), deadline_s * _OVER
        with _struck(running, repository, **fault):
            took_s = ask_aside(registry, image, running.access(), deadline_s, most_s + 1, annotations=True)
        if took_s <= most_s:
            return ""
        took.append(
            f"{took_s:.1f} s of {deadline_s:.0f}" if took_s < float("inf") else f"not after {most_s + 1:.1f} s"
        )
    return f"{running.mode}: where a registry {what}, a question takes {', '.join(took)}"


def _around(text: str, secret: str) -> str:
    """Return what stands around a secret, and not the secret."""
    before, _, after = text.partition(secret)
    return f"…{before[-60:]}<it is here>{after[:20]}…"
