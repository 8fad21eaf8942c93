from __future__ import annotations

import pytest

from kmm.api.module import ModuleSpec
from kmm.core.placement import Node, Taint, by_kernel, is_targeted, node_of, targeted, tolerated, why_not
from kmm.core.view import KernelNodes

GPU = Taint(key="gpu", value="yes", effect="NoSchedule")


def node(name: str = "a", **fields) -> Node:
    return Node(**{"name": name, "kernel": "6.1.0", "labels": {"a": "1"}, **fields})


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({"a": "1"}, {"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "2"}, {"a": "1"}, False),
        ({"a": "1"}, {"a": "2"}, False),
        ({"a": ""}, {}, False),
        ({"a": ""}, {"a": ""}, True),
        ({}, {}, True),
    ],
)
def test_a_targeted_node_has_all_labels_of_the_selector(selector, labels, expected):
    assert is_targeted(ModuleSpec(selector=selector), node(labels=labels)) is expected


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "operator": "", "value": "yes", "effect": ""}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "gpu"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "gpu", "value": "yes", "effect": "NoExecute"}, False),
        ({"value": "yes"}, False),
        ({}, False),
    ],
)
def test_a_toleration_covers_a_taint_as_kubernetes_has_it(toleration, expected):
    assert tolerated([toleration], GPU) is expected
    assert tolerated([{"key": "unrelated", "operator": "Exists"}, toleration], GPU) is expected


def test_a_taint_without_a_value_equals_a_toleration_without_one():
    assert tolerated([{"key": "gpu"}], Taint(key="gpu", effect="NoSchedule"))


@pytest.mark.parametrize(
    ("effect", "kept_away"), [("NoSchedule", True), ("NoExecute", True), ("PreferNoSchedule", False)]
)
def test_only_taints_that_keep_pods_away_need_a_toleration(effect, kept_away):
    tainted = node(taints=(Taint(key="gpu", effect=effect),))
    assert is_targeted(ModuleSpec(selector={}), tainted) is not kept_away
    assert is_targeted(ModuleSpec(selector={}, tolerations=({"key": "gpu", "operator": "Exists"},)), tainted)


def test_every_taint_must_be_covered():
    tainted = node(taints=(GPU, Taint(key="b", effect="NoExecute")))
    one, other = {"key": "gpu", "operator": "Exists"}, {"key": "b", "operator": "Exists"}
    assert not is_targeted(ModuleSpec(selector={}, tolerations=(one,)), tainted)
    assert not is_targeted(ModuleSpec(selector={}, tolerations=(other,)), tainted)
    assert is_targeted(ModuleSpec(selector={}, tolerations=(one, other)), tainted)


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/not-ready", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ],
)
def test_the_daemon_set_controllers_own_tolerations_keep_a_cordoned_or_sick_node_targeted(key, effect):
    assert is_targeted(ModuleSpec(selector={"a": "1"}), node(taints=(Taint(key=key, effect=effect),)))


@pytest.mark.parametrize(
    "key",
    [
        "node.kubernetes.io/network-unavailable",
        "node.kubernetes.io/out-of-service",
        "node.cloudprovider.kubernetes.io/uninitialized",
        "not-ready",
        "node-role.kubernetes.io/control-plane",
    ],
)
def test_no_other_taint_is_tolerated_of_itself(key):
    assert not is_targeted(ModuleSpec(selector={}), node(taints=(Taint(key=key, effect="NoSchedule"),)))


def test_a_node_that_is_not_ready_is_still_targeted():
    assert is_targeted(ModuleSpec(selector={"a": "1"}), node(ready=False))


def test_targeted_nodes_are_grouped_by_their_verbatim_kernel():
    nodes = [
        node("a", kernel="6.1.0"),
        node("b", kernel="6.1.0+"),
        node("c", kernel="6.1.0"),
        node("d", labels={}),
        node("e", taints=(GPU,)),
    ]
    found = targeted(ModuleSpec(selector={"a": "1"}), nodes)
    assert {kernel: [each.name for each in group] for kernel, group in found.items()} == {
        "6.1.0": ["a", "c"],
        "6.1.0+": ["b"],
    }


def test_a_view_learns_the_count_and_the_architectures_of_each_kernel():
    targets = {
        "6.1.0": [node("a", architecture="amd64"), node("b", architecture="arm64"), node("c", architecture="amd64")],
        "6.2.0": [node("d")],
    }
    assert by_kernel(targets) == {
        "6.1.0": KernelNodes(nodes=3, architectures=frozenset({"amd64", "arm64"})),
        "6.2.0": KernelNodes(nodes=1),
    }
    assert by_kernel({}) == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ""),
        ({"labels": {}}, 'without the label "a"'),
        ({"labels": {"a": "2"}}, 'whose label "a" is not "1"'),
        ({"taints": (GPU,)}, 'with the taint "gpu=yes:NoSchedule", which is not tolerated'),
        ({"taints": (Taint(key="b", effect="NoExecute"),)}, 'with the taint "b:NoExecute", which is not tolerated'),
        ({"taints": (Taint(key="b", effect="PreferNoSchedule"),)}, ""),
        ({"taints": (Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule"),)}, ""),
    ],
)
def test_why_a_node_is_not_targeted_is_said_where_it_is_not(fields, said):
    spec = ModuleSpec(selector={"a": "1"})
    assert why_not(spec, node(**fields)) == said
    assert is_targeted(spec, node(**fields)) is (said == "")


def test_an_empty_label_that_is_asked_for_must_be_there():
    spec = ModuleSpec(selector={"b": ""})
    assert why_not(spec, node()) == 'without the label "b"'
    assert not is_targeted(spec, node())


def test_a_node_is_read_from_its_manifest():
    manifest = {
        "metadata": {"name": "w", "labels": {"a": "1"}},
        "spec": {
            "taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}]
        },
        "status": {
            "nodeInfo": {"kernelVersion": "6.1.0+", "architecture": "arm64", "osImage": "Debian"},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
        },
    }
    assert node_of(manifest) == Node(
        name="w",
        kernel="6.1.0+",
        labels={"a": "1"},
        taints=(GPU, Taint(key="b", effect="NoExecute")),
        architecture="arm64",
        os_image="Debian",
        ready=True,
    )


@pytest.mark.parametrize(("said", "ready"), [("True", True), ("False", False), ("Unknown", False)])
def test_a_node_is_ready_only_where_its_condition_says_so(said, ready):
    assert node_of({"status": {"conditions": [{"type": "Ready", "status": said}]}}).ready is ready


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"metadata": None, "spec": None, "status": None},
        {"spec": {"taints": None}, "status": {"conditions": None, "nodeInfo": None}},
        {"metadata": {"labels": []}, "spec": {"taints": ["x"]}, "status": {"conditions": ["x"], "nodeInfo": "x"}},
    ],
)
def test_what_is_missing_in_a_nodes_manifest_counts_as_absent(manifest):
    found = node_of(manifest)
    assert (found.name, found.kernel, found.labels, found.taints) == ("", "", {}, ())
