"""What plugins that observe are told."""

from __future__ import annotations

import threading

import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, modules
from runtime.conftest import NAMESPACE

from kmm.catalog import Plugin, build_catalog
from kmm.contract import ModuleRef
from kmm.core.actions import LabelNode
from kmm.loader import load_catalog
from kmm.runtime.metrics import Metrics
from kmm.runtime.observers import Observers


def watching(hook, name="watching"):
    return Plugin(name=name, distribution=name, version="1", observe=hook)


def raising(record):
    raise ValueError("a plugin may raise anything")


@pytest.mark.embedded_only("what is told is the same anywhere")
def test_each_thing_that_is_done_is_told_whatever_another_plugin_does(world):
    told = []
    plugins = [*load_catalog().plugins, watching(raising, "raising"), watching(told.append)]
    found = world(nodes=1, kernels=1, catalog=build_catalog(plugins))
    app = found.operator()
    found.api.post(modules(NAMESPACE), a_module())
    eventually(found.ready)
    found.quiet()
    create = next(each for each in told if each.action == "Create")
    assert (create.kind, create.namespace, create.module) == (
        "DaemonSet", NAMESPACE, ModuleRef(namespace=NAMESPACE, name="m")
    )  # fmt: skip
    assert create.name in {each["metadata"]["name"] for each in found.sets()}
    assert create.duration_s > 0
    assert {("LabelNode", "Node", "n0"), ("SetStatus", "Module", "m")} <= {(e.action, e.kind, e.name) for e in told}
    assert 'kmm_observe_failures_total{why="raised"}' in app.metrics.text().decode()


def test_one_that_hangs_delays_nothing_and_what_it_misses_is_counted():
    wake, metrics = threading.Event(), Metrics()
    observers = Observers(build_catalog([watching(lambda record: wake.wait(600))]), metrics)
    observers.start()
    try:
        for number in range(1_100):
            observers.tell(LabelNode(node=f"n{number}", labels={}), None, 0.0)
        text = metrics.text().decode()
        assert 'kmm_observe_failures_total{why="dropped"}' in text
        observers.stop()
    finally:
        wake.set()


def test_nobody_is_told_where_nobody_observes():
    observers = Observers(build_catalog([]), Metrics())
    observers.tell(LabelNode(node="n", labels={}), None, 0.0)
    assert observers._waiting.empty()
