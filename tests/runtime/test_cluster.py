"""What is known of the cluster, and the views of it."""

from __future__ import annotations

import time

import pytest
from apiserver.samples import a_module

from kmm.catalog import Plugin, build_catalog
from kmm.contract import Kind, Progress, State
from kmm.core import names
from kmm.core.view import Operator
from kmm.runtime import cluster as cluster_module
from kmm.runtime.cluster import Cluster
from kmm.runtime.kinds import trim_module, trim_task
from kmm.runtime.references import Referred
from kmm.runtime.watch import item_of

JOB = Kind(api_version="batch/v1", kind="Job", plural="jobs")


class Builder:
    owns, requires = (JOB,), ()

    def __init__(self, name="tests", message=""):
        self.name, self.message = name, message

    def render(self, request):
        return []

    def observe(self, objects, pods):
        return Progress(state=State.FAILED, message=self.message)


def a_cluster(*builders, **operator):
    catalog = build_catalog([Plugin(name="tests", distribution="tests", version="1", builders=builders)])
    return Cluster(catalog, Operator(namespace="kmm-system", **operator))


@pytest.fixture
def known():
    return a_cluster(Builder())


def meta(name, uid, **more):
    return {"name": name, "namespace": "kmm-system", "uid": uid, "resourceVersion": "1", **more}


def failed_job(ended, **annotations):
    owner = {"apiVersion": "v1", "kind": "Module", "name": "m", "uid": "u", "controller": True}
    labels = {names.MODULE_NAME: "m", names.JOB_TYPE: "build"}
    condition = {"type": "Failed", "status": "True", "lastTransitionTime": ended}
    return {
        "metadata": meta("m-build-1", "job", labels=labels, ownerReferences=[owner], annotations=annotations),
        "status": {"conditions": [condition]},
    }


def finished_at_s(known):
    subject = known.subject("kmm-system", "m")
    (task,) = known.view(subject, Referred()).tasks
    return task.finished_at_s


def test_with_what_registries_are_asked_is_in_the_view(known):
    known.modules.put(item_of({**a_module(), "metadata": meta("m", "u")}, trim_module))
    view = known.view(known.subject("kmm-system", "m"), Referred(pull_secrets=("push", "other"), access="x"))
    assert (view.pull_secrets, view.access) == (("push", "other"), "x")


@pytest.mark.parametrize(("ended", "year"), [("2020-01-01T00:00:00Z", 2020), ("2200-01-01T00:00:00Z", None)])
def test_a_task_ended_when_it_says_so_but_never_after_it_was_seen(known, monkeypatch, ended, year):
    module = a_module()
    known.modules.put(item_of({**module, "metadata": meta("m", "u")}, trim_module))
    known.tasks[JOB].put(item_of(failed_job(ended), trim_task))
    began_s = time.time()
    first_s = finished_at_s(known)
    assert time.gmtime(first_s).tm_year == (year or time.gmtime(began_s).tm_year)
    # A clock that jumps back must not make a back-off longer: an hour that has passed has passed.
    boot_s = cluster_module.boot_time_s()
    monkeypatch.setattr(cluster_module, "boot_time_s", lambda: boot_s + 3600)
    monkeypatch.setattr(cluster_module.time, "time", lambda: began_s - 86_400)
    assert finished_at_s(known) <= began_s - 86_400 - 3590
    known.tasks[JOB].drop("kmm-system", "m-build-1", "job")
    assert not known._over_since


def progress(known, **annotations):
    module = a_module()
    known.modules.put(item_of({**module, "metadata": meta("m", "u")}, trim_module))
    known.tasks[JOB].put(item_of(failed_job("2020-01-01T00:00:00Z", **annotations), trim_task))
    (task,) = known.view(known.subject("kmm-system", "m"), Referred()).tasks
    return task.progress


@pytest.mark.parametrize("made_by", ["one", "two"])
@pytest.mark.parametrize("chosen_now", ["one", "two", None])
def test_a_task_is_read_by_what_made_it_whatever_is_chosen_now(made_by, chosen_now):
    both = a_cluster(Builder("one", "one says"), Builder("two", "two says"), builder=chosen_now)
    assert progress(both, **{names.PROVIDER: made_by}).message == f"{made_by} says"


def test_a_task_whose_maker_is_gone_is_read_by_nobody_else():
    found = progress(a_cluster(Builder("one")), **{names.PROVIDER: "two"})
    assert found == Progress(state=State.RUNNING, message='"two", which made it, is not installed any more')


def test_a_task_that_does_not_say_what_made_it_is_read_by_the_only_one_that_can_have():
    assert progress(a_cluster(Builder("one", "one says"))).message == "one says"
    found = progress(a_cluster(Builder("one"), Builder("two")))
    assert found == Progress(state=State.RUNNING, message="nobody knows what made it")


def test_what_a_task_says_is_masked_whole_and_then_cut():
    class Talks(Builder):
        def observe(self, objects, pods):
            return Progress(state=State.FAILED, reason="secret" * 1_000, message="x" * 4_093 + "secret" * 1_000)

    known = a_cluster(Talks())
    known.modules.put(item_of({**a_module(), "metadata": meta("m", "u")}, trim_module))
    known.tasks[JOB].put(item_of(failed_job("2020-01-01T00:00:00Z"), trim_task))
    subject = known.subject("kmm-system", "m")
    (task,) = known.view(subject, Referred(), lambda text: text.replace("secret", "***")).tasks
    assert set(task.progress.reason) == {"*"}
    assert task.progress.message == "x" * 4_093 + "***"
    assert len(task.progress.reason) <= 4_096
