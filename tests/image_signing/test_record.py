from __future__ import annotations

import pytest

from kmm.image_signing.record import Record, how

RECORD = Record(unsigned="sha256:1", certificate="c", how="h")


def test_what_was_recorded_is_known_again_among_other_annotations():
    assert RECORD.is_in({**RECORD.annotations, "other": "1"}, in_place=False)
    assert not RECORD.is_in({}, in_place=False)


@pytest.mark.parametrize("changed", RECORD.annotations)
def test_anything_that_changed_is_a_reason_to_sign_again(changed):
    said = {**RECORD.annotations, changed: "another"}
    assert not RECORD.is_in(said, in_place=False)
    # What an image was before it was signed under its own name is gone.
    assert RECORD.is_in(said, in_place=True) is (changed == "io.x-k8s.kmm.unsigned")


def test_what_is_asked_for_is_the_same_in_any_order():
    assert how(["/a", "/b"], "sha256") == how(["/b", "/a", "/a"], "sha256")
    assert len({how(["/a"], "sha256"), how(["/a", "/b"], "sha256"), how(["/a"], "sha512"), how([], "sha256")}) == 4
