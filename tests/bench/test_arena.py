"""How an operator is measured."""

from __future__ import annotations

import shlex
import sys

import pytest
from apiserver.client import eventually
from arena import USER, Operator, Request, answered, at_once, group

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


def a_request(at_s=0.0, ended_s=1.0, code=200, resource="daemonsets"):
    return Request(
        user=USER, verb="create", resource=resource, subresource="", name="", code=code, at_s=at_s, ended_s=ended_s
    )


def test_requests_are_at_once_where_one_begins_before_another_ends():
    assert at_once([]) == 0
    assert at_once([a_request(0, 1), a_request(1, 2)]) == 1
    assert at_once([a_request(0, 3), a_request(1, 2), a_request(2.5, 4)]) == 2


def test_what_is_refused_and_what_is_told_to_people_is_not_counted_where_counts_are_exact():
    right = a_request(code=201)
    assert answered([right, a_request(code=409), a_request(code=429), a_request(resource="events")]) == [right]


@LINUX
def test_all_that_a_command_starts_is_measured_and_ended(tmp_path):
    words = ["sh", "-c", "sleep 600 & sh -c 'trap \"\" HUP; sleep 600; true'; true"]
    running = Operator(words, tmp_path / "kubeconfig", tmp_path / "log", {})
    leader = running._process.pid
    try:
        eventually(lambda: len(group(leader)) == 4, "all four run")
        assert running.used().rss_mib > 0
    finally:
        running.stop()
    assert group(leader) == []


@LINUX
def test_what_a_child_has_used_counts_when_it_has_ended(tmp_path):
    burn = f"{shlex.quote(sys.executable)} -c 'sum(range(20_000_000))'; touch {tmp_path}/burnt; sleep 600"
    running = Operator(["sh", "-c", burn], tmp_path / "kubeconfig", tmp_path / "log", {})
    try:
        eventually((tmp_path / "burnt").exists, "it has burnt")
        assert running.used().cpu_s > 0.02
    finally:
        running.stop()


def test_an_operator_that_has_ended_is_told_with_what_it_said(tmp_path):
    running = Operator(["sh", "-c", "echo no lease"], tmp_path / "kubeconfig", tmp_path / "log", {})
    running._process.wait(60)
    with pytest.raises(SystemExit, match="no lease"):
        running.check()
    running.stop()
