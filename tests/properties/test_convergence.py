"""From any view the plan converges to nothing left to do, whatever is lost on the way."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace

import pytest
from cluster import DAEMON_SET, Cluster, catalog, subject
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kmm.api.metadata import PREFIX
from kmm.api.module import ModuleSpec
from kmm.api.schema import load
from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.actions import Replace
from kmm.core.node import plan_node
from kmm.core.placement import Node
from kmm.core.spoke import plan_module
from kmm.core.view import DaemonSet, Pod

CATALOG = catalog()
KERNELS = ("6.1.0-18-amd64", "6.1.0-18-amd64+", "5.14.0-70.el9.x86_64", "6", "k_strange~kernel")
ROUNDS_MOST = 60
OCCURRED: Counter[str] = Counter()


def spec(*, build: bool, sign: bool, device_plugin: bool) -> ModuleSpec:
    mapping: dict = {"regexp": "^[65k]", "containerImage": "registry.example.com:5000/a:${KERNEL_FULL_VERSION}"}
    if build:
        mapping["build"] = {"dockerfileConfigMap": {"name": "dockerfile"}}
    if sign:
        mapping["sign"] = {"certSecret": {"name": "cert"}, "keySecret": {"name": "key"}}
        if not build:
            mapping["sign"]["unsignedImage"] = "registry.example.com:5000/unsigned:${KERNEL_FULL_VERSION}"
    made: dict = {
        "selector": {"a": "b"},
        "moduleLoader": {"container": {"modprobe": {"moduleName": "m"}, "kernelMappings": [mapping]}},
    }
    if device_plugin:
        made["devicePlugin"] = {"container": {"image": "registry.example.com/plugin"}}
    value, findings = load(ModuleSpec, made)
    assert value is not None, findings
    return value


clusters = st.builds(
    lambda build, sign, plugin, kernels, there, fails, unknown: Cluster(
        subject=subject(spec(build=build, sign=sign, device_plugin=plugin)),
        kernels=kernels,
        images={"registry.example.com:5000/a:6.1.0-18-amd64": {}} if there else {},
        fails=fails,
        unknown=unknown,
        builds=build,
        signs=sign,
    ),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.dictionaries(st.sampled_from(KERNELS), st.integers(1, 3), max_size=3),
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 2),
)
# How many actions of a plan are carried out before the operator dies, and which of them never arrive.
fates = st.lists(st.tuples(st.integers(0, 6), st.sets(st.integers(0, 6), max_size=2), st.integers(0, 2)), max_size=8)
COMMON = settings(max_examples=150, suppress_health_check=list(HealthCheck))


def settle(cluster: Cluster) -> None:
    """Let the operator work undisturbed until its plan is empty, and check that it stays so."""
    for _ in range(ROUNDS_MOST):
        plan = plan_module(cluster.subject, cluster.view(), CATALOG, cluster.now_s)
        if not plan.actions and plan.wake_at_s is None and not cluster.is_moving():
            break
        for action in plan.actions:
            cluster.carry_out(action)
        cluster.live()
    else:
        pytest.fail(f"still at work after {ROUNDS_MOST} rounds: {plan.actions}")
    cluster.live()
    assert plan_module(cluster.subject, cluster.view(), CATALOG, cluster.now_s).actions == ()


def end(cluster: Cluster) -> tuple:
    """What must be the same however one got there."""
    return (
        sorted((each.name, each.annotations[names.LAST_HASH]) for each in cluster.daemon_sets.values()),
        sorted(cluster.tasks),
        [(each["kernelVersion"], each["reason"]) for each in cluster.status.get("kernels", ())],
        [(each["type"], each["status"], each["reason"]) for each in cluster.status.get("conditions", ())],
    )


@COMMON
@given(clusters, fates)
def test_whatever_is_lost_or_late_the_end_is_the_same(cluster, disturbances):
    undisturbed = copy.deepcopy(cluster)
    undisturbed.unknown = 0
    settle(undisturbed)
    stale = cluster.view()
    for count, lost, lag in disturbances:
        # A view may be older than the last writes: here it is that of the round before.
        seen = stale if lag == 2 else cluster.view()
        stale = cluster.view()
        OCCURRED["a stale view"] += lag == 2
        plan = plan_module(cluster.subject, seen, CATALOG, cluster.now_s)
        if lag == 2:
            cluster.edit()
        for index, action in enumerate(plan.actions[:count]):
            if index in lost:
                OCCURRED["a lost request"] += 1
            else:
                cluster.carry_out(action)
        if count < len(plan.actions):
            OCCURRED["a crash between two actions"] += 1
            # The last write was done, and nobody learnt of it: the next plan is made from what is there.
            OCCURRED["a lost response"] += count > 0
        if lag != 1:
            cluster.live()
    settle(cluster)
    OCCURRED.update(cluster.happened)
    assert end(cluster)[0] == end(undisturbed)[0]
    assert end(cluster)[1:] == end(undisturbed)[1:]


@COMMON
@given(clusters, st.integers(0, 12))
def test_carrying_out_only_the_first_n_actions_each_time_reaches_the_same_end(cluster, count):
    whole = copy.deepcopy(cluster)
    settle(whole)
    for _ in range(ROUNDS_MOST):
        for action in plan_module(cluster.subject, cluster.view(), CATALOG, cluster.now_s).actions[: count + 1]:
            cluster.carry_out(action)
        cluster.live()
    settle(cluster)
    assert end(cluster) == end(whole)


@COMMON
@given(clusters)
def test_planning_twice_is_planning_once(cluster):
    for _ in range(6):
        view = cluster.view()
        first = plan_module(cluster.subject, view, CATALOG, cluster.now_s)
        assert plan_module(cluster.subject, view, CATALOG, cluster.now_s) == first
        for action in first.actions:
            cluster.carry_out(action)
        cluster.live()


@COMMON
@given(clusters, st.sampled_from(KERNELS), st.booleans())
def test_strangers_and_twins(cluster, kernel, stranger):
    cluster.kernels[kernel] = 1
    name = names.daemon_set_name("m", cluster.subject.uid, names.LOADER, kernel, None)
    if stranger:
        cluster.foreign[name] = "a stranger's uid"
        OCCURRED["a look-alike of another owner"] += 1
    else:
        labels = names.kernel_label_values({*cluster.kernels})
        for index in range(2):
            twin = f"m-twin-{index}"
            cluster.daemon_sets[twin] = DaemonSet(
                kind=DAEMON_SET,
                name=twin,
                uid=f"uid-{twin}",
                created=str(index),
                role=names.LOADER,
                selector={
                    names.MODULE_NAME: "m",
                    names.ROLE: names.LOADER,
                    names.KERNEL: labels[kernel],
                },
                labels={names.KERNEL: labels[kernel]},
                spec={},
                ready=index,
            )
        OCCURRED["a duplicate twin"] += 1
    settle(cluster)
    loaders = [each for each in cluster.daemon_sets.values() if each.role == names.LOADER and each.kernel == kernel]
    if stranger:
        assert loaders == []
        reasons = {each["kernelVersion"]: each["reason"] for each in cluster.status["kernels"]}
        assert reasons[kernel] == "NameTaken"
        assert cluster.foreign[name] == "a stranger's uid"
    else:
        (kept,) = loaders
        assert kept.name.startswith("m-twin-"), "one of them stays: a third one would reload the driver"


@COMMON
@given(clusters, st.integers(0, 6))
def test_a_module_that_is_being_deleted_gets_nothing_more(cluster, rounds):
    for _ in range(rounds):
        for action in plan_module(cluster.subject, cluster.view(), CATALOG, cluster.now_s).actions:
            cluster.carry_out(action)
        cluster.live()
    cluster.subject = replace(cluster.subject, deleting=True)
    OCCURRED["a Module being deleted"] += 1
    assert plan_module(cluster.subject, cluster.view(), CATALOG, cluster.now_s).actions == ()


@COMMON
@given(clusters)
def test_before_every_watch_has_synced_nothing_is_done(cluster):
    view = replace(cluster.view(), synced=False)
    assert plan_module(cluster.subject, view, CATALOG, cluster.now_s).actions == ()


@COMMON
@given(clusters, st.data())
def test_kernels_come_and_go_and_only_what_they_need_is_left(cluster, data):
    settle(cluster)
    cluster.kernels = data.draw(st.dictionaries(st.sampled_from(KERNELS), st.integers(1, 3), max_size=3))
    settle(cluster)
    cluster.kernels.setdefault(KERNELS[0], 1)  # one that may have been there before
    settle(cluster)
    loaders = {each.kernel for each in cluster.daemon_sets.values() if each.role == names.LOADER}
    assert loaders <= cluster.kernels.keys()
    assert cluster.tasks.keys() <= cluster.makes.keys()


@COMMON
@given(clusters, st.sampled_from(["edit", "annotations"]))
def test_an_edit_by_somebody_else_is_reverted_once(cluster, how):
    settle(cluster)
    for name, each in cluster.daemon_sets.items():
        if how == "edit":
            cluster.daemon_sets[name] = replace(each, generation=each.generation + 1)
        else:
            cluster.daemon_sets[name] = replace(each, annotations={names.APPLIED_GENERATION: str(each.generation)})
    plan = plan_module(cluster.subject, cluster.view(), CATALOG, cluster.now_s)
    if how == "edit":
        assert sum(isinstance(each, Replace) for each in plan.actions) == len(cluster.daemon_sets)
    before = cluster.happened["Create"]
    settle(cluster)
    assert cluster.happened["Create"] == before


MODULES = {
    ModuleRef(namespace=namespace, name=name): f"{namespace}-{name}" for namespace in "ab" for name in ("m", "x.y")
}
node_labels = st.dictionaries(
    st.sampled_from(
        [
            "foreign.example/label",
            names.KERNEL,
            *(names.ready_label(module.namespace, module.name) for module in MODULES),
            *(names.device_plugin_ready_label(module.namespace, module.name) for module in MODULES),
            f"{PREFIX}m.ready",
            f"{PREFIX}gone.module.ready",
            f"{PREFIX}a.m.version.ready",
        ]
    ),
    st.sampled_from(["", KERNELS[0]]),
)
pods = st.builds(
    Pod,
    name=st.just("p"),
    uid=st.just("u"),
    module=st.sampled_from(list(MODULES)),
    module_uid=st.sampled_from([*MODULES.values(), "of a Module that is gone"]),
    role=st.sampled_from([names.LOADER, names.DEVICE_PLUGIN]),
    node=st.just("n"),
    kernel=st.sampled_from(KERNELS),
    ready=st.booleans(),
    deleting=st.booleans(),
)


@COMMON
@given(node_labels, st.lists(pods, max_size=4), st.sampled_from(KERNELS), st.booleans())
def test_one_patch_makes_a_nodes_labels_right_and_touches_no_others(labels, on_it, kernel, ready):
    node = Node(name="n", kernel=kernel, labels=labels, ready=ready)
    OCCURRED["an unlabelled node"] += names.KERNEL not in labels
    OCCURRED["a node that is not Ready"] += not ready
    actions = plan_node(node, on_it, MODULES, KERNELS).actions
    assert len(actions) <= 1
    changes = dict(actions[0].labels) if actions else {}
    assert all(label.startswith(PREFIX) for label in changes)
    after = {key: value for key, value in {**labels, **changes}.items() if value is not None}
    assert after[names.KERNEL] == names.kernel_label_values(KERNELS)[kernel]
    assert plan_node(replace(node, labels=after), on_it, MODULES, KERNELS).actions == ()
    for module, uid in MODULES.items():
        label = names.ready_label(module.namespace, module.name)
        loaded = any(
            pod.ready
            and not pod.deleting
            and (pod.role, pod.module, pod.module_uid, pod.kernel) == (names.LOADER, module, uid, kernel)
            for pod in on_it
        )
        kept = not ready and label in labels
        assert (label in after) == (loaded or kept), "a partition must not remove device plugins, nor anything else"


def test_zz_each_thing_that_can_go_wrong_did_occur():
    """Last in this file: the counts of what the generated cases held."""
    print(dict(OCCURRED))
    for what in (
        "a stale view",
        "a lost request",
        "a lost response",
        "a crash between two actions",
        "a duplicate twin",
        "a look-alike of another owner",
        "a Module being deleted",
        "an unlabelled node",
        "a node that is not Ready",
        "unknown image",
        "failed task",
        "already exists",
        "conflict",
    ):
        assert OCCURRED[what] > 2, what
