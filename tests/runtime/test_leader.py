"""What a Lease tells of its holder, whoever wrote it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from kmm import __version__
from kmm.catalog import Refusal
from kmm.runtime.leader import ANNOTATION, leader_of, written


def a_lease(annotations, holder="me", **spec):
    return {
        "metadata": {"namespace": "ns", "annotations": annotations},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.5Z", **spec},
    }


def test_what_is_written_is_read():
    refusal = Refusal(name="p" * 1000, distribution="d", version="1", reason="ImportFailed", message="why")
    told = leader_of(a_lease(written("me", [refusal] * 30)))
    assert (told.namespace, told.holder, told.version) == ("ns", "me", __version__)
    assert (len(told.refused), told.refused_not_shown) == (20, 10)
    assert (told.refused[0].name, told.refused[0].reason) == ("p" * 100, "ImportFailed")
    assert told.silent_s(datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)) == 1.5


def test_it_stays_small():
    refusal = Refusal(name="\x1b" * 1000, distribution="d", version="1", reason="\x1b" * 1000, message="m" * 5000)
    assert sum(len(each) for each in written("me", [refusal] * 1000).values()) < 32_768


def test_why_a_plugin_is_refused_is_not_told():
    refusal = Refusal(name="p", distribution="d", version="1", reason="BadSettings", message="password=hunter2")
    assert "hunter2" not in json.dumps(written("me", [refusal]))


@pytest.mark.parametrize(
    "lease",
    [
        {},
        {"spec": None, "metadata": []},
        a_lease({ANNOTATION: "{"}),
        a_lease({ANNOTATION: "[" * 100_000}),
        a_lease({ANNOTATION: "[" * 60_000}),
        a_lease({ANNOTATION: "[5]"}),
        a_lease({ANNOTATION: 5}),
        a_lease({ANNOTATION: '{"holder": "me", "version": 5, "refusedPlugins": 5, "refusedPluginsNotShown": "x"}'}),
        a_lease({ANNOTATION: '{"holder": "me", "refusedPlugins": [5, {"name": 5}]}'}),
        a_lease(None, holder=5, renewTime=5, leaseDurationSeconds="x", acquireTime=[]),
        a_lease(None, renewTime="yesterday"),
        a_lease(None, renewTime="2026-01-01"),
    ],
)
def test_what_cannot_be_read_counts_as_absent(lease):
    told = leader_of(lease)
    assert told.version == ""
    assert told.refused_not_shown == 0
    assert told.silent_s(datetime.now(UTC)) > 0
