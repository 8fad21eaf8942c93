"""What plugins promise that know the images drivers are built in: all of it is pure, and total."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from kmm.api.metadata import is_namespace
from kmm.conformance.chance import examples
from kmm.conformance.child import in_two_worlds
from kmm.conformance.contract import Contract, broken, hold, told, unjudged
from kmm.conformance.rendered import is_name
from kmm.conformance.samples import LISTS, OS_IMAGES, RELEASES
from kmm.conformance.subject import Subject
from kmm.contract import BaseImages, Manifest

_EXAMPLES = 60
_GROUP_VERSION = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[0-9][a-z0-9]*")
_PLURAL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class BaseImagesContract(Contract):
    """Images that drivers are built in: what `kmm_base_images` offers."""

    field: ClassVar[str] = "base_images"
    noun: ClassVar[str] = "base images"

    @pytest.fixture
    def base_images(self, subject: Subject, offer: str) -> BaseImages:
        """What knows them, as the operator has it."""
        found: BaseImages = subject.offered(self.field, offer)
        return found

    @pytest.fixture
    def listing(self) -> Manifest | None:
        """The object that lists the images, as it is in a cluster: one that is guessed, where a subclass does not
        say.
        """
        return None

    @pytest.fixture
    def watched(self, subject: Subject, offer: str, listing: Manifest | None) -> Sequence[Mapping[str, Any]]:
        """What it says in two processes in which nothing but the question is the same, and what it asks for."""
        asked = {
            "value": subject.value,
            "field": self.field,
            "offer": offer,
            "options": subject.settings.options,
            "listing": listing,
        }
        return in_two_worlds(json.dumps(asked))

    def test_its_list_can_be_followed(self, base_images: BaseImages) -> None:
        """The object that lists the images is of a kind, and has a namespace and a name, that Kubernetes takes."""
        listing = base_images.listing
        if listing is None:
            unjudged("no object lists its images")
        kind = listing.kind
        wrong = {
            f'"{kind.api_version!s:.80}" is no group and version': not _GROUP_VERSION.fullmatch(kind.api_version),
            f'"{kind.plural!s:.80}" is no plural of a kind': not _PLURAL.fullmatch(kind.plural),
            f'"{listing.namespace!s:.80}" is no namespace': not is_namespace(listing.namespace),
            f'"{listing.name!s:.80}" is no name': not is_name(listing.name),
        }
        hold(each for each, found in wrong.items() if found)

    def test_images_answers_whatever_is_listed(self, base_images: BaseImages, listing: Manifest | None) -> None:
        """`images` never raises, whatever the object holds, and where there is none: it returns images by version,
        both of them texts, and none of them empty.
        """

        def wrong(asked: Any) -> str:
            found: Any = base_images.images(copy.deepcopy(asked))
            if not isinstance(found, Mapping):
                return f"a {type(found).__name__} is returned, not a mapping"
            odd = next((pair for pair in found.items() if not all(map(_is_word, pair))), None)
            return f"{odd!r:.200} is no image by its version" if odd else ""

        _ask(wrong, _LISTINGS, [None, *LISTS, listing])

    def test_os_version_answers_whatever_a_node_says(self, base_images: BaseImages) -> None:
        """`os_version` never raises, whatever a node says that it runs: it returns a text."""

        def wrong(asked: Any) -> str:
            found: Any = base_images.os_version(asked)
            return "" if isinstance(found, str) else f"a {type(found).__name__} is returned, not a text"

        _ask(wrong, _SYSTEMS, OS_IMAGES)

    def test_kernels_answers_whatever_an_image_holds(self, base_images: BaseImages) -> None:
        """`kernels` never raises, whatever a release file holds: it returns a list of texts."""

        def wrong(asked: Any) -> str:
            found: Any = base_images.kernels(asked)
            if isinstance(found, list | tuple) and all(isinstance(each, str) for each in found):
                return ""
            return f"{found!r:.200} is returned, not a list of texts"

        _ask(wrong, _FILES, RELEASES)

    def test_a_list_is_left_as_it_was(self, base_images: BaseImages, listing: Manifest | None) -> None:
        """The object that lists the images is not changed: it is the operator's."""

        def wrong(asked: Any) -> str:
            passed = copy.deepcopy(asked)
            try:
                base_images.images(passed)
            except Exception:  # which another rule is about
                return ""
            return "" if passed == asked else f"afterwards it is {json.dumps(passed, default=repr):.200}"

        _ask(wrong, _LISTINGS, [*LISTS, listing])

    def test_equal_questions_are_answered_equally(self, watched: Sequence[Mapping[str, Any]]) -> None:
        """Equal questions have equal answers everywhere: with another hash seed, clock, folder and environment."""
        first, second = (each["said"] for each in watched)
        for one, other in zip(first, second, strict=False):
            if one != other:
                broken(f"{one[0]}: {one[-1]:.200} in one process, {other[-1]:.200} in the other")

    def test_it_asks_for_nothing_but_what_it_is_told(self, watched: Sequence[Mapping[str, Any]]) -> None:
        """It is pure: it looks at no clock and no environment, draws nothing, starts no thread and no process, opens
        nothing but its own package's files. What is to be read, the operator reads.
        """
        hold(each for run in watched for each in run["asked"])


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _ask(wrong: Callable[[Any], str], strategy: st.SearchStrategy[Any], first: Iterable[Any]) -> None:
    """Fail where something is wrong with an answer, or there is none. `first`: what is asked before all else."""

    def judge(asked: Any) -> None:
        try:
            found = wrong(asked)
        except Exception as error:  # whatever it is, it is wrong
            found = told(error)
        if found:
            broken(f"{found}: for {asked!r:.300}")

    @examples(_EXAMPLES, HealthCheck.too_slow, HealthCheck.data_too_large)
    @given(strategy)
    def go_on(asked: Any) -> None:
        judge(asked)

    for each in first:
        judge(each)
    go_on()


# ── What may be there ─────────────────────────────────────────────────────────────────────────────────────────

_KEYS = st.sampled_from(
    ("metadata", "annotations", "labels", "name", "spec", "status", "data", "tags", "tag", "from", "kind", "items",
     "images", "image", "versions", "version", "dockerImageReference", "other")
)  # fmt: skip
_WORDS = st.sampled_from(("", "DockerImage", "latest", "1.2.3-0", "example.com/a:1", "example.com/a@"))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 300) | st.floats(allow_nan=False) | _WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)
_LISTINGS = st.dictionaries(_KEYS, _JSON, max_size=4)
_SYSTEMS = st.text(max_size=100) | st.lists(st.sampled_from((*OS_IMAGES, " ", "\n", "9.6.1", "(")), max_size=5).map(
    "".join
)
_FILES = st.binary(max_size=50) | _JSON.map(lambda each: json.dumps(each).encode())
