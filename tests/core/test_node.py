from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.api.metadata import PREFIX
from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.actions import LabelNode, Release
from kmm.core.node import plan_node
from kmm.core.placement import Node
from kmm.core.view import Pod

P = "kmm.node.kubernetes.io/"
KERNEL = "6.1.0-18-amd64"
MODULE, OTHER = ModuleRef(namespace="n", name="m"), ModuleRef(namespace="o", name="m")
DOTTED = ModuleRef(namespace="n", name="m.x")
MODULES = {MODULE: "uid-m", OTHER: "uid-o", DOTTED: "uid-x"}
RIGHT = {names.KERNEL: KERNEL}
LOADED = {f"{P}n.m.ready": "", f"{P}m.ready": ""}
PLUGGED = {f"{P}n.m.device-plugin-ready": "", f"{P}m.device-plugin-ready": ""}


def node(labels: dict[str, str] | None = None, **fields) -> Node:
    return Node(**{"name": "a", "kernel": KERNEL, "labels": RIGHT if labels is None else labels, **fields})


def pod(module: ModuleRef = MODULE, **fields) -> Pod:
    known = {"name": "p", "uid": "u", "module_uid": MODULES[module], "role": names.LOADER, "node": "a"}
    return Pod(**{**known, "module": module, "kernel": KERNEL, "ready": True, **fields})


def changes(of: Node, pods=(), modules=None, kernels=()) -> dict[str, str | None]:
    """What one patch changes; no patch changes nothing."""
    plan = plan_node(of, pods, MODULES if modules is None else modules, kernels)
    assert plan.wake_at_s is None
    if not plan.actions:
        return {}
    (action,) = plan.actions
    assert isinstance(action, LabelNode)
    assert action.node == of.name
    assert action.labels
    return dict(action.labels)


@pytest.mark.parametrize("labels", [{}, {names.KERNEL: "5.4.0"}])
def test_a_node_is_labelled_with_its_kernel(labels):
    assert changes(node(labels)) == RIGHT


def test_a_node_that_is_right_is_left_alone():
    assert changes(node()) == {}
    labels = {**RIGHT, **LOADED, **PLUGGED, "kubernetes.io/os": "linux"}
    assert changes(node(labels), [pod(), pod(role=names.DEVICE_PLUGIN)]) == {}


def test_the_kernel_label_differs_from_that_of_every_other_kernel_in_the_cluster():
    value = "6.1.0-" + hashlib.sha256(b"6.1.0+").hexdigest()[:8]
    assert changes(node(kernel="6.1.0+"), kernels=["6.1.0"]) == {names.KERNEL: value}
    assert changes(node(kernel="6.1.0+"), kernels=["6.1.0", "6.1.0+"]) == {names.KERNEL: value}
    assert changes(node(kernel="6.1.0+"), kernels=["6.1.0+"]) == {names.KERNEL: "6.1.0"}


def test_a_ready_loader_makes_the_node_ready_under_the_label_and_the_older_one():
    assert changes(node(), [pod()]) == LOADED


def test_a_ready_device_plugin_is_labelled_too():
    assert changes(node(), [pod(role=names.DEVICE_PLUGIN, kernel="")]) == PLUGGED


def test_a_module_with_a_dot_gets_no_older_label():
    assert changes(node(), [pod(DOTTED)]) == {f"{P}n.m.x.ready": ""}
    assert changes(node(), [pod(DOTTED, role=names.DEVICE_PLUGIN)]) == {f"{P}n.m.x.device-plugin-ready": ""}


NOT_READY = [
    {"ready": False},
    {"deleting": True},
    {"module_uid": "uid-of-its-predecessor"},
    {"kernel": "5.4.0"},
    {"kernel": KERNEL + "+"},
]


@pytest.mark.parametrize("wrong", NOT_READY)
def test_a_loader_counts_only_if_ready_not_terminating_of_that_modules_uid_and_of_the_present_kernel(wrong):
    assert changes(node(), [pod(**wrong)]) == {}
    assert changes(node({**RIGHT, **LOADED}), [pod(**wrong)]) == dict.fromkeys(LOADED)
    assert changes(node(), [pod(**wrong), pod()]) == LOADED


@pytest.mark.parametrize("wrong", NOT_READY[:3])
def test_a_device_plugin_counts_only_if_ready_not_terminating_and_of_that_modules_uid(wrong):
    wrong = {"role": names.DEVICE_PLUGIN, **wrong}
    assert changes(node(), [pod(**wrong)]) == {}
    assert changes(node({**RIGHT, **PLUGGED}), [pod(**wrong)]) == dict.fromkeys(PLUGGED)


def test_a_pod_of_a_module_that_does_not_exist_makes_nothing_ready():
    assert changes(node(), [pod()], modules={}) == {}


def test_a_pod_of_a_strange_role_makes_nothing_ready():
    assert changes(node(), [pod(role="build")]) == {}


def test_a_terminating_loader_takes_its_label_away_but_not_the_device_plugins():
    labels = {**RIGHT, **LOADED, **PLUGGED}
    plugin = pod(role=names.DEVICE_PLUGIN)
    assert changes(node(labels), [pod(deleting=True), plugin]) == dict.fromkeys(LOADED)


def test_an_older_label_goes_only_when_no_module_of_that_name_is_ready():
    both = {**RIGHT, **LOADED, f"{P}o.m.ready": ""}
    assert changes(node(both), [pod(), pod(OTHER)]) == {}
    assert changes(node(both), [pod(OTHER)]) == {f"{P}n.m.ready": None}
    assert changes(node(both), []) == {f"{P}n.m.ready": None, f"{P}o.m.ready": None, f"{P}m.ready": None}


def test_a_node_that_is_not_ready_keeps_what_was_ready():
    labels = {**RIGHT, **LOADED, **PLUGGED, f"{P}n.m.x.ready": ""}
    for pods in ([], [pod(ready=False)], [pod(deleting=True)]):
        assert changes(node(labels, ready=False), pods) == {}
    assert changes(node(labels, ready=True), []) == dict.fromkeys([*LOADED, *PLUGGED, f"{P}n.m.x.ready"])


def test_a_node_that_is_not_ready_still_gets_its_kernel_label():
    assert changes(node({**LOADED, names.KERNEL: "5.4.0"}, ready=False)) == RIGHT


@pytest.mark.parametrize("ready", [True, False])
def test_labels_of_modules_that_no_longer_exist_are_removed(ready):
    gone = {f"{P}n.gone.ready": "", f"{P}gone.ready": "", f"{P}n.gone.device-plugin-ready": ""}
    assert changes(node({**RIGHT, **gone}, ready=ready)) == dict.fromkeys(gone)
    assert changes(node({**RIGHT, **LOADED}, ready=ready), modules={OTHER: "uid-o"}) == (
        dict.fromkeys(LOADED) if ready else {f"{P}n.m.ready": None}
    )


@pytest.mark.parametrize(
    "label",
    [
        "example.com/n.m.ready",
        f"{P}version-module.n.m",
        f"beta.{P}version-module-loader.n.m",
        f"beta.{P}version-device-plugin.n.m",
        "node.kubernetes.io/ready",
        "ready",
    ],
)
def test_labels_of_others_are_not_touched(label):
    assert changes(node({**RIGHT, label: "x"}), modules={}) == {}


def test_a_ready_label_with_a_value_is_put_right():
    assert changes(node({**RIGHT, **LOADED, f"{P}n.m.ready": "true"}), [pod()]) == {f"{P}n.m.ready": ""}


def test_everything_that_changes_is_in_one_patch():
    labels = {names.KERNEL: "5.4.0", f"{P}n.gone.ready": "", f"{P}o.m.ready": ""}
    assert changes(node(labels), [pod(), pod(role=names.DEVICE_PLUGIN)]) == {
        **RIGHT,
        **LOADED,
        **PLUGGED,
        f"{P}n.gone.ready": None,
        f"{P}o.m.ready": None,
    }


def test_the_go_operators_finalizer_is_taken_off_terminating_pods_only():
    held = pod(name="old", uid="u-old", deleting=True, held=True, module_uid="uid-of-its-predecessor")
    pods = [held, pod(name="living", held=True), pod(name="free", deleting=True)]
    plan = plan_node(node({**RIGHT, **LOADED}), pods, MODULES, ())
    assert plan.actions == (Release(namespace="n", name="old", uid="u-old"),)


def test_a_finalizer_is_taken_off_beside_the_one_patch_of_the_node_and_also_where_that_is_not_ready():
    held = pod(deleting=True, held=True)
    plan = plan_node(node({**RIGHT, **LOADED}), [held], MODULES, ())
    assert [type(each) for each in plan.actions] == [LabelNode, Release]
    sick = plan_node(node({**RIGHT, **LOADED}, ready=False), [held], {}, ())
    assert Release(namespace="n", name="p", uid="u") in sick.actions


PODS = st.builds(
    pod,
    st.sampled_from([MODULE, OTHER, DOTTED]),
    role=st.sampled_from([names.LOADER, names.DEVICE_PLUGIN]),
    ready=st.booleans(),
    deleting=st.booleans(),
    kernel=st.sampled_from([KERNEL, "5.4.0"]),
)
LABELS = st.dictionaries(
    st.sampled_from([*LOADED, *PLUGGED, names.KERNEL, f"{P}o.m.ready", f"{P}x.y.ready", "a/ready"]),
    st.sampled_from(["", KERNEL]),
)


@given(LABELS, st.lists(PODS, max_size=4), st.booleans())
def test_one_patch_is_enough_whatever_the_order_of_pods(labels, pods, ready):
    patch = changes(node(labels, ready=ready), pods)
    assert changes(node(labels, ready=ready), pods[::-1]) == patch
    merged = {key: value for key, value in {**labels, **patch}.items() if value is not None}
    assert changes(node(merged, ready=ready), pods) == {}


def test_a_label_that_would_be_too_long_costs_the_others_nothing():
    long = ModuleRef(namespace="n" * 30, name="m" * 40)
    pod = Pod(name="p", uid="p", module=long, module_uid="u", role=names.LOADER, node="n", kernel="6.1", ready=True)
    (action,) = plan_node(Node(name="n", kernel="6.1", labels={}), [pod], {long: "u"}, {"6.1"}).actions
    assert set(action.labels) == {names.KERNEL, f"{PREFIX}{'m' * 40}.ready"}


def test_a_users_version_label_is_not_taken_for_one_of_ours():
    labels = {names.KERNEL: "6.1", f"{PREFIX}version-module.n.a.ready": "1"}
    assert plan_node(Node(name="n", kernel="6.1", labels=labels), [], {}, {"6.1"}).actions == ()


def test_a_node_without_a_kernel_gets_no_label_of_it():
    assert plan_node(Node(name="n", kernel="", labels={}), [], {}, {""}).actions == ()
