"""What plugins that observe are told."""

from __future__ import annotations

import threading
from dataclasses import replace

import prometheus_client
import pytest
from apiserver.client import eventually
from apiserver.samples import a_module, modules
from prometheus_client.metrics_core import Metric
from runtime.conftest import NAMESPACE

from kmm.catalog import Plugin, build_catalog
from kmm.contract import Driver, ModuleRef
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


@pytest.mark.embedded_only("what is told is the same anywhere")
def test_a_vendor_is_told_which_modules_are_its_drivers(world):
    told = []
    module = a_module()
    spec = {"moduleLoader": module["spec"].pop("moduleLoader")}
    vendor = replace(watching(told.append), drivers=(Driver(name="acme", spec=spec),))
    found = world(nodes=1, kernels=1, catalog=build_catalog([*load_catalog().plugins, vendor]))
    found.operator()
    module["spec"]["driver"] = "acme"
    found.api.post(modules(NAMESPACE), module)
    eventually(found.ready)
    found.quiet()
    assert {each.driver for each in told if each.module} == {"acme"}
    assert {each.driver for each in told if each.action == "LabelNode"} == {""}


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


@pytest.fixture
def registered():
    """Registers collectors as a plugin does, for one test."""
    collectors = []

    def register(collector):
        prometheus_client.REGISTRY.register(collector)
        collectors.append(collector)
        return collector

    yield register
    for each in collectors:
        prometheus_client.REGISTRY.unregister(each)


def test_a_plugins_own_metrics_are_served_with_ours(registered):
    counter = registered(prometheus_client.Counter("acme_actions", "Actions", ["action"], registry=None))
    counter.labels("Create").inc()
    text = Metrics().text().decode()
    assert 'acme_actions_total{action="Create"} 1.0' in text
    assert "# TYPE kmm_seconds histogram" in text


def test_a_plugin_cannot_tell_metrics_under_our_names(registered):
    registered(prometheus_client.Gauge("kmm_module_num", "What only the operator says", registry=None)).set(7)
    assert "kmm_module_num" not in Metrics().text().decode()


class Raises:
    def collect(self):
        raise ValueError("a plugin may raise anything")


class Unwritable:
    def collect(self):
        family = Metric("acme_unwritable", "What is no number", "gauge")
        family.add_sample("acme_unwritable", {}, "a text")
        return [family]


class Strange:
    def collect(self):
        return [None]


@pytest.mark.parametrize("collector", [Raises, Unwritable, Strange], ids=lambda each: each.__name__)
def test_metrics_that_cannot_be_read_are_left_out_and_counted(registered, collector):
    class Quiet(collector):  # at first, as registering it reads it
        def describe(self):
            return []

    registered(Quiet())
    metrics = Metrics()
    metrics.text()
    text = metrics.text().decode()
    assert 'kmm_observe_failures_total{why="unreadable"}' in text
    assert "acme_unwritable" not in text
    assert "# TYPE kmm_seconds histogram" in text
