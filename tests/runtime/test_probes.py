"""When registries are asked, how often, and who hears of it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from apiserver.client import eventually

from kmm.catalog import Plugin, build_catalog
from kmm.contract import CERTIFICATE_ANNOTATION, Access, Forbidden, ImageInfo, ModuleRef, Unavailable
from kmm.core.view import Denied, Missing, Present, Question, Subject, Unknown
from kmm.runtime.credentials import CredentialError
from kmm.runtime.metrics import Metrics
from kmm.runtime.probes import Patience, Probes
from kmm.runtime.transport import Unreachable

PATIENT = Patience(
    retry_s=0.02, retry_most_s=0.1, denied_s=0.05, missing_s=60, present_s=60, deadline_s=5, at_once=4, failures=3
)


class Registry:
    """A registry that answers what it is told to, and remembers what it was asked."""

    name, hosts = "tests", ("*",)

    def __init__(self):
        self.asked = Counter()
        self.at_once = self.most_at_once = 0
        self.deadlines_s = []  # of questions for files
        self.answer = lambda image: None
        self._lock = threading.Lock()

    def inspect(self, image, access, deadline_s, files=(), annotations=False):
        with self._lock:
            self.asked[image] += 1
            self.deadlines_s += [deadline_s] if files else []
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return self.answer(image)
        finally:
            with self._lock:
                self.at_once -= 1


class Operator:
    """Modules that want to know what they do not know, as plans do."""

    def __init__(self, probes_of):
        self.registry = Registry()
        catalog = build_catalog([Plugin(name="t", distribution="t", version="1", registries=(self.registry,))])
        self.heard = {}
        self.told = Counter()
        self.asked_before = []  # how often, when the first, the second, … had their answer
        self.access = lambda question, subject: Access()
        self.metrics = Metrics()
        self.wanted = True
        self.probes = Probes(catalog, self.access_of, self.hear, self.metrics, probes_of)

    def access_of(self, question, subject):
        return self.access(question, subject)

    def hear(self, question, answer, subject, fresh_s):
        self.heard[subject.uid, question] = answer
        self.told[subject.uid] += 1
        if len(self.heard) > len(self.asked_before):
            self.asked_before.append(sum(self.registry.asked.values()))
        if self.wanted and isinstance(answer, Unknown | Denied):
            self.probes.ask(question, subject)  # as the next plan would

    def ask(self, image, uid="u", **more):
        question = Question(image=f"registry.example.com/{image}", **more)
        self.probes.ask(question, Subject(ref=ModuleRef(namespace="n", name=uid), uid=uid))
        return question

    def answer(self, question, uid="u"):
        return eventually(lambda: self.heard.get((uid, question)), f"{question.image} is answered")


@pytest.fixture
def operator():
    made = []

    def make(**patience):
        found = Operator(replace(PATIENT, **patience))
        found.probes.start()
        made.append(found)
        return found

    yield make
    for each in made:
        each.wanted = False
        each.probes.stop()


def unavailable(message="registry.example.com: refused the connection", retry_after_s=None):
    def answer(image):
        raise Unavailable(message, retry_after_s)

    return answer


def test_what_the_registry_says_is_told(operator):
    there = operator()
    there.registry.answer = lambda image: ImageInfo(digest="sha256:1") if image.endswith("there") else None
    assert there.answer(there.ask("there")) == Present(digest="sha256:1")
    assert there.answer(there.ask("gone")) == Missing()


def test_the_same_is_asked_once_for_all_that_want_it_at_once_and_for_a_while(operator):
    there = operator()
    release = threading.Event()
    there.registry.answer = lambda image: release.wait(90) and None
    for uid in "abc":
        there.ask("a", uid)
    release.set()
    question = there.ask("a", "d")
    assert {there.answer(question, uid) for uid in "abcd"} == {Missing()}
    assert there.answer(there.ask("a", "e"), "e") == Missing()
    assert sum(there.registry.asked.values()) == 1


def test_new_evidence_and_other_credentials_are_asked_for_anew(operator):
    there = operator()
    for more in ({}, {"evidence": "task"}, {"access": "others"}):
        there.answer(there.ask("a", **more))
    assert sum(there.registry.asked.values()) == 3


def test_a_missing_one_is_asked_for_again_once_its_time_is_over(operator):
    there = operator(missing_s=0.05)
    there.answer(there.ask("a"))
    eventually(lambda: there.ask("a") and sum(there.registry.asked.values()) > 1)


def test_few_are_in_flight_for_one_registry(operator):
    there = operator()
    release = threading.Event()
    there.registry.answer = lambda image: release.wait(90) and None
    questions = [there.ask(f"a{number}") for number in range(12)]
    eventually(lambda: there.registry.at_once == 4)
    release.set()
    for question in questions:
        there.answer(question)
    assert there.registry.most_at_once == 4


def test_no_answer_is_unknown_and_says_since_when(operator):
    there = operator()
    there.registry.answer = unavailable()
    question = there.ask("a")
    said = there.answer(question)
    assert isinstance(said, Unknown)
    assert said.message.startswith("registry.example.com: refused the connection, since 20")
    there.registry.answer = lambda image: None
    eventually(lambda: there.heard["u", question] == Missing(), "it is asked again by itself")


def test_fifty_that_wait_for_a_dead_registry_ask_it_one_at_a_time_and_all_hear_when_it_is_back(operator):
    there = operator(retry_s=0.05, retry_most_s=0.2)
    there.registry.answer = unavailable()
    questions = {f"u{number}": there.ask(f"a{number}", f"u{number}") for number in range(50)}
    eventually(lambda: len(there.heard) == 50, "all of them know that it is away")
    assert there.registry.most_at_once <= 4
    assert there.asked_before[49] < 10
    there.registry.most_at_once = 0
    began, before = time.monotonic(), sum(there.registry.asked.values())
    eventually(lambda: sum(there.registry.asked.values()) >= before + 4)
    assert time.monotonic() - began >= 0.2, "not more often than once in a while"
    assert there.registry.most_at_once == 1
    assert len(there.registry.asked) > 4, "each time another one"
    there.registry.answer = lambda image: None
    for uid, question in questions.items():
        eventually(lambda uid=uid, question=question: there.heard[uid, question] == Missing())


def test_a_question_that_always_fails_keeps_no_other_from_being_answered(operator):
    there = operator()

    def answer(image):
        if image.endswith("bad"):
            raise Unavailable("registry.example.com: status 500")

    there.registry.answer = answer
    bad = there.ask("bad")
    eventually(lambda: there.registry.asked["registry.example.com/bad"] >= 3)
    for number in range(5):
        good = there.ask(f"good{number}")
        eventually(lambda good=good: there.heard.get(("u", good)) == Missing())
    assert isinstance(there.heard["u", bad], Unknown)


def test_it_waits_as_long_as_the_registry_asks_for(operator):
    there = operator()
    there.registry.answer = unavailable("registry.example.com: too many requests", retry_after_s=600)
    said = there.answer(there.ask("a"))
    for number in range(3):
        assert there.answer(there.ask(f"b{number}")) == said, "whoever asks meanwhile is told so too"
    time.sleep(0.3)  # several times what it would wait else
    assert sum(there.registry.asked.values()) == 1


def test_what_nobody_wants_any_more_is_not_asked_again(operator):
    there = operator()
    there.wanted = False
    there.registry.answer = unavailable()
    there.answer(there.ask("a"))
    eventually(lambda: not there.probes._registries)
    assert there.registry.asked["registry.example.com/a"] == 1


def test_a_refusal_is_told_and_tried_again_after_a_while(operator):
    there = operator()

    def answer(image):
        raise Forbidden("registry.example.com/a: refused, with 1 credential and anonymously")

    there.registry.answer = answer
    question = there.ask("a")
    assert there.answer(question) == Denied(
        message="registry.example.com/a: refused, with 1 credential and anonymously"
    )
    there.registry.answer = lambda image: ImageInfo(digest="sha256:1")
    eventually(lambda: there.heard["u", question] == Present(digest="sha256:1"))


def test_a_plugin_that_raises_is_no_answer_and_its_text_goes_nowhere(operator, caplog):
    there = operator()

    def answer(image):
        raise RuntimeError("password=hidden")

    there.registry.answer = answer
    said = there.answer(there.ask("a"))
    assert said == Unknown(message="the registry plugin raised RuntimeError")
    assert "hidden" not in caplog.text
    assert "RuntimeError" in caplog.text


def test_credentials_that_cannot_be_had_are_not_the_registrys_fault(operator):
    there = operator()

    def refuse(question, subject):
        raise CredentialError('the imageRepoSecret "s" does not exist')

    there.access = refuse
    assert there.answer(there.ask("a")) == Denied(message='the imageRepoSecret "s" does not exist', by_registry=False)
    assert not there.registry.asked


def test_what_is_no_image_is_told_at_once(operator):
    there = operator()
    said = there.answer(there.ask("NO SUCH"))
    assert isinstance(said, Unknown)


def test_metrics_tell_of_registries_and_never_of_images(operator):
    there = operator()
    there.answer(there.ask("secret-project"))
    text = there.metrics.text().decode()
    assert 'kmm_registry_seconds_count{outcome="missing",registry="registry.example.com"} 1.0' in text
    assert "secret-project" not in text


# ── Several Modules ───────────────────────────────────────────────────────────────────────────────────────────


def test_that_it_is_there_takes_back_that_it_was_missing(operator):
    there = operator()
    assert there.answer(there.ask("a")) == Missing()
    there.registry.answer = lambda image: ImageInfo(digest="sha256:1")
    assert there.answer(there.ask("a", evidence="task")) == Present(digest="sha256:1")
    assert there.answer(there.ask("a", "another"), "another") == Present(digest="sha256:1")


def test_a_module_that_is_gone_keeps_no_other_from_its_answer(operator):
    there = operator()
    there.registry.answer = unavailable()
    question = there.ask("a", "gone")
    there.ask("a", "stays")
    eventually(lambda: isinstance(there.heard.get(("stays", question)), Unknown))

    def access(question, subject):
        if subject.uid == "gone":
            raise Unreachable("its Secrets are not followed any more")
        return Access()

    there.access = access
    there.registry.answer = lambda image: None
    eventually(lambda: there.heard["stays", question] == Missing())


def test_rubbish_is_no_answer_and_is_not_waited_for(operator):
    there = operator()
    there.registry.answer = lambda image: {"digest": "x"}
    assert isinstance(there.answer(there.ask("a")), Unknown)
    there.registry.answer = lambda image: None
    eventually(lambda: Missing() in there.heard.values())


def test_what_cannot_even_be_asked_is_not_in_flight_for_ever(operator):
    there = operator()

    def access(question, subject):
        raise ValueError("a port that is none")

    there.access = access
    question = there.ask("a")
    assert isinstance(there.answer(question), Unknown)
    there.access = lambda question, subject: Access()
    eventually(lambda: there.heard["u", question] == Missing())


def test_a_registry_that_asks_to_be_left_alone_is_so_though_an_earlier_answer_comes_late(operator):
    there = operator()
    go = threading.Event()

    def answer(image):
        if image.endswith("limited"):
            raise Unavailable("too many requests", 60)
        go.wait(90)

    there.registry.answer = answer
    slow = there.ask("slow", "s")
    eventually(lambda: there.registry.asked["registry.example.com/slow"] == 1)
    limited = there.ask("limited", "l")
    eventually(lambda: ("l", limited) in there.heard)
    go.set()
    assert there.answer(slow, "s") == Missing()
    there.ask("another", "x")
    eventually(lambda: any(uid == "x" for uid, _ in there.heard))
    assert there.registry.asked["registry.example.com/another"] == 0


def test_many_images_that_cannot_be_read_hold_up_no_other_for_long(operator):
    there = operator()
    asked_before_it = []

    def answer(image):
        if "bad" in image:
            raise Unavailable("registry.example.com: the manifest is of an old schema")
        asked_before_it.append(sum(there.registry.asked.values()))

    there.registry.answer = answer
    for number in range(40):
        there.ask(f"bad{number}", "x")
    eventually(lambda: sum(there.registry.asked.values()) >= 80)
    # The one that is under way, the good one itself, and one more that may have begun while it was wanted.
    there.ask("good", "g")
    before = sum(there.registry.asked.values())
    eventually(lambda: asked_before_it)
    assert asked_before_it[0] - before <= 3


def test_only_what_is_used_of_a_registrys_words_is_kept(operator):
    there = operator()
    said = {CERTIFICATE_ANNOTATION: "f" * 64, "x": "a" * 4_000_000}
    there.registry.answer = lambda image: ImageInfo(digest="sha256:1", annotations=said)
    assert there.answer(there.ask("a", annotations=True)).annotations == {CERTIFICATE_ANNOTATION: "f" * 64}


# ── What is in layers ─────────────────────────────────────────────────────────────────────────────────────────

FILES = {"files": ("/etc/release",)}
SLOW = {"files_deadline_s": 0.01, "files_deadline_most_s": 0.04, "files_rest_s": 0.01, "files_rest_most_s": 0.02}


def too_large(there, image="large"):
    """Let an image take longer to be read than there is time, whatever that is."""

    def answer(asked):
        if asked.endswith(image):
            time.sleep(there.registry.deadlines_s[-1])
            raise Unavailable("registry.example.com: did not answer in time")
        return ImageInfo(digest="sha256:1")

    return answer


def test_what_takes_too_long_gets_more_time_each_time_and_that_is_told(operator):
    there = operator(**SLOW)
    there.registry.answer = too_large(there)
    question = there.ask("large", **FILES)
    eventually(lambda: len(there.registry.deadlines_s) > 4)
    assert there.registry.deadlines_s[:5] == [0.01, 0.02, 0.04, 0.04, 0.04]
    assert "its layers are large, or come slowly; it is tried again" in there.answer(question).message


def test_what_takes_too_long_is_left_alone_for_a_while_whoever_wants_it(operator):
    there = operator(**{**SLOW, "files_rest_s": 3600, "files_rest_most_s": 3600})
    there.registry.answer = too_large(there)
    there.wanted = False
    question = there.ask("large", **FILES)
    assert isinstance(there.answer(question), Unknown)
    there.ask("large", "v", **FILES)
    other = there.ask("other", **FILES)
    assert there.answer(other) == Present(digest="sha256:1")
    assert there.registry.asked["registry.example.com/large"] == 1


def test_what_takes_too_long_is_no_sign_that_the_registry_is_away(operator):
    there = operator(**SLOW, failures=1)
    there.registry.answer = too_large(there)
    there.ask("large", **FILES)
    eventually(lambda: there.registry.asked["registry.example.com/large"] > 2)
    assert there.answer(there.ask("small")) == Present(digest="sha256:1")
    assert "unavailable" not in str(there.heard)


def test_layers_are_read_one_image_after_the_other_and_in_nobodys_way(operator):
    there = operator()
    release = threading.Event()

    def answer(image):
        if "large" in image:
            release.wait(90)
        return ImageInfo(digest="sha256:1")

    there.registry.answer = answer
    large = [there.ask(f"large{number}", **FILES) for number in range(3)]
    eventually(lambda: there.registry.at_once)
    assert there.answer(there.ask("small")) == Present(digest="sha256:1")
    assert there.registry.at_once == 1
    release.set()
    for each in large:
        assert there.answer(each) == Present(digest="sha256:1")
    assert there.registry.most_at_once == 2
