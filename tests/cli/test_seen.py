"""What is read of a cluster's Modules, and of its operator."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, modules
from cli.samples import LEASE, LEASES, condition, lease, written
from runtime.conftest import NAMESPACE

from kmm.cli import seen
from kmm.runtime.transport import connect


@pytest.fixture
def look():
    """Look at all Modules of a world, and at its operators."""

    def run(world):
        return seen.look(connect(world.cluster.kubeconfig()), None, None, None)

    return run


def test_what_nobody_has_looked_at_yet_is_not_ready(world, look):
    found = world(nodes=0)
    found.api.post(modules(NAMESPACE), a_module("new"))
    written(found, "changed", generation=0, conditions=[condition("AllReady", holds=True)])
    assert [(each.name, each.ready, each.reason) for each in look(found).modules] == [
        ("changed", False, "NotSeenYet"),
        ("new", False, "NotSeenYet"),
    ]


def test_a_module_on_its_way_out_is_said_to_be(world, look):
    found = world(nodes=0)
    written(found, conditions=[condition("AllReady", holds=True)])
    found.api.patch(f"{modules(NAMESPACE)}/m", {"metadata": {"finalizers": ["example.com/wait"]}})
    found.api.delete(f"{modules(NAMESPACE)}/m")
    assert [(each.ready, each.reason) for each in look(found).modules] == [(False, "Deleting")]


def test_many_modules_are_read_page_by_page(world, look, monkeypatch):
    found = world(nodes=0)
    for number in range(5):
        written(found, f"m{number}")
    monkeypatch.setattr(seen, "_PAGE", 2)
    before = found.mark()
    assert len(look(found).modules) == 5
    assert [each.resource for each in found.entries(before)].count("modules") == 3


@pytest.mark.parametrize("ago_s", [3600, -3600])
def test_a_clock_that_is_wrong_makes_nobody_silent(world, look, ago_s):
    found = world(nodes=0)
    lease(found, ago_s=ago_s, duration_s=2)
    over = threading.Event()

    def renew():
        number = 0
        while not over.wait(0.05):
            number += 1
            at = (datetime.now(UTC) - timedelta(seconds=ago_s - number / 1000)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            found.api.patch(f"{LEASES.format(NAMESPACE)}/{LEASE}", {"spec": {"renewTime": at}})

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        assert [each.state for each in look(found).operators] == ["Leading"]
    finally:
        over.set()
        thread.join()


def test_another_kind_of_operator_is_not_given_our_version(world, look):
    found = world(nodes=0)
    app = found.operator()
    eventually(app.elector.is_leader)
    app.stop()
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "go", "renewTime": at, "acquireTime": at, "leaseDurationSeconds": 3600}
    found.api.patch(f"{LEASES.format(NAMESPACE)}/{LEASE}", {"spec": spec})
    (operator,) = look(found).operators
    assert (operator.state, operator.leader.holder, operator.leader.version) == ("Leading", "go", "")


def test_what_comes_to_nothing_is_shown_of_a_module_that_is_ready(world, look):
    found = world(nodes=0)
    warning = condition("FieldsIgnored", holds=True, kind="FieldsIgnored", message="it builds without")
    written(found, conditions=[condition("AllReady", holds=True), warning])
    (module,) = look(found).modules
    assert module.ready
    assert module.others == (("FieldsIgnored", "it builds without"),)
