from __future__ import annotations

import pytest

from kmm.image_signing.record import Record, content, how

RECORD = Record(unsigned="sha256:1", certificate="c", how="h")
SAID = RECORD.annotations("sha256:2")


def test_what_was_recorded_is_known_again_among_other_annotations():
    assert RECORD.is_in({**SAID, "other": "1"}, "sha256:2", in_place=False)
    assert not RECORD.is_in({}, "sha256:2", in_place=False)
    assert not RECORD.is_in({}, "", in_place=True)


@pytest.mark.parametrize("in_place", [False, True])
def test_what_another_image_has_inherited_is_not_believed(in_place):
    assert not RECORD.is_in(SAID, "sha256:3", in_place=in_place)
    assert not RECORD.is_in(SAID, "", in_place=in_place)


@pytest.mark.parametrize("changed", SAID)
def test_anything_that_changed_is_a_reason_to_sign_again(changed):
    said = {**SAID, changed: "another"}
    assert not RECORD.is_in(said, "sha256:2", in_place=False)
    # What an image was before it was signed under its own name is gone.
    assert RECORD.is_in(said, "sha256:2", in_place=True) is (changed == "io.x-k8s.kmm.unsigned")


def test_what_was_made_is_the_topmost_layer_or_all_images():
    assert content(["a", "b"], index=False) == "b"
    assert content([], index=False) == ""
    assert len({content(each, index=True) for each in (["a", "b"], ["b", "a"], ["a"], [])}) == 4


def test_what_is_asked_for_is_the_same_in_any_order():
    assert how(["/a", "/b"], "sha256") == how(["/b", "/a", "/a"], "sha256")
    assert len({how(["/a"], "sha256"), how(["/a", "/b"], "sha256"), how(["/a"], "sha512"), how([], "sha256")}) == 4
