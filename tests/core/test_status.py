from __future__ import annotations

import dataclasses
import json

import pytest

from kmm.api.module import DevicePlugin, DevicePluginContainer, Module, ModuleSpec
from kmm.api.schema import load
from kmm.contract import Kind, ModuleRef
from kmm.core import names
from kmm.core.reasons import Reason
from kmm.core.status import KernelState, kernels_named, status, timestamp
from kmm.core.view import DaemonSet, KernelNodes, Subject, View

KIND = Kind(api_version="apps/v1", kind="DaemonSet", plural="daemonsets")
SPEC = ModuleSpec(selector={"a": "1"})
WITH_PLUGIN = dataclasses.replace(SPEC, device_plugin=DevicePlugin(container=DevicePluginContainer(image="p")))
SUBJECT = Subject(ref=ModuleRef(namespace="n", name="m"), uid="uid", generation=7, spec=SPEC)
PLUGGED = dataclasses.replace(SUBJECT, spec=WITH_PLUGIN)
CONDITIONS = ["Ready", "ImagesReady", "Loaded", "DevicePluginReady", "PluginsAvailable"]
THEN, NOW = 1_700_000_000.0, 1_700_000_060.9
THEN_TEXT, NOW_TEXT = "2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z"


def daemon_set(role: str, available: int, scheduled: int = 0, **fields) -> DaemonSet:
    return DaemonSet(
        kind=KIND, name="d", uid="d", role=role, selector={}, available=available, scheduled=scheduled, **fields
    )


def loaded(kernel: str = "6.1.0", nodes: int = 2, **fields) -> KernelState:
    known = {"image": "a:1", "image_ready": True, "settled": True, "message": "loaded"}
    return KernelState(**{"kernel": kernel, "nodes": nodes, "reason": Reason.LOADED, **known, **fields})


def building(kernel: str = "6.2.0", nodes: int = 1, **fields) -> KernelState:
    return KernelState(**{"kernel": kernel, "nodes": nodes, "reason": Reason.BUILDING, "image": "a:2", **fields})


def unmapped(kernel: str = "5.4.0", nodes: int = 1) -> KernelState:
    return KernelState(kernel=kernel, nodes=nodes, reason=Reason.NO_MAPPING, mapped=False, settled=True)


def made(*kernels: KernelState, of=SUBJECT, blocked=None, wrong=None, builder="", now_s=NOW, **view) -> dict:
    view.setdefault("targets", {each.kernel: KernelNodes(nodes=each.nodes) for each in kernels})
    return status(of, View(**view), kernels, blocked, wrong, builder, now_s)


def conditions(found: dict) -> dict[str, tuple[str, str, str]]:
    return {each["type"]: (each["status"], each["reason"], each["message"]) for each in found["conditions"]}


@pytest.mark.parametrize(
    ("kernels", "text"), [("a", "kernel a"), ("abc", "kernels a, b, c"), ("abcdefgh", "kernels a, b, c and 5 more")]
)
def test_of_many_kernels_the_first_are_named_and_the_rest_is_counted(kernels, text):
    assert kernels_named([*kernels], 3) == text


@pytest.mark.parametrize(("at_s", "text"), [(0.0, "1970-01-01T00:00:00Z"), (THEN, THEN_TEXT), (NOW, NOW_TEXT)])
def test_times_are_written_as_kubernetes_does_in_whole_seconds(at_s, text):
    assert timestamp(at_s) == text


def test_the_loaders_counts_are_nodes_targeted_mapped_and_available():
    owned = (
        daemon_set(names.LOADER, 2),
        daemon_set(names.LOADER, 1),
        daemon_set(names.DEVICE_PLUGIN, 9),
    )
    found = made(loaded(nodes=3), building(nodes=4), unmapped(nodes=5), daemon_sets=owned)
    assert found["moduleLoader"] == {
        "nodesMatchingSelectorNumber": 12,
        "desiredNumber": 7,
        "availableNumber": 3,
    }


def test_a_kernel_says_on_how_many_of_its_nodes_the_driver_is_loaded_where_that_is_known():
    found = made(loaded("6.1.0", available=2), loaded("6.2.0", available=0), building("6.3.0"))
    assert [each.get("available") for each in found["kernels"]] == [2, 0, None]


def test_the_device_plugins_counts_are_nodes_targeted_mapped_and_available():
    owned = (daemon_set(names.LOADER, 9, 9), daemon_set(names.DEVICE_PLUGIN, 2, 3))
    found = made(loaded(nodes=3), building(nodes=4), unmapped(nodes=5), of=PLUGGED, daemon_sets=owned)
    assert found["devicePlugin"]["nodesMatchingSelectorNumber"] == 12
    assert found["devicePlugin"]["availableNumber"] == 2
    assert found["devicePlugin"]["desiredNumber"] == 7


def test_a_module_without_a_device_plugin_has_no_counts_of_one():
    assert "devicePlugin" not in made(loaded())


def test_the_generation_that_was_observed_is_in_the_status_and_in_each_condition():
    found = made(loaded())
    assert found["observedGeneration"] == 7
    assert [each["observedGeneration"] for each in found["conditions"]] == [7] * 5


def test_there_are_five_conditions_each_with_a_reason():
    found = made(loaded())
    assert [each["type"] for each in found["conditions"]] == CONDITIONS
    assert all(each["status"] == "True" and each["reason"] and each["message"] for each in found["conditions"])


def test_a_module_that_targets_no_node_is_ready_with_that_reason():
    assert conditions(made())["Ready"][:2] == ("True", "NoNodes")
    assert conditions(made(of=PLUGGED))["Ready"][:2] == ("True", "NoNodes")


def test_a_module_whose_kernels_are_all_loaded_is_ready():
    found = conditions(made(loaded(nodes=2), loaded("6.2.0", nodes=3)))
    assert found["Ready"][0] == "True"
    assert found["Ready"][1] != "NoNodes"
    assert "5 nodes" in found["Ready"][2]


def test_a_kernel_without_a_mapping_is_a_normal_state():
    found = made(loaded(), unmapped())
    assert conditions(found)["Ready"][0] == conditions(found)["Loaded"][0] == "True"
    assert found["kernels"][1]["reason"] == "NoMapping"


def test_an_image_that_is_not_ready_makes_neither_ready_nor_loaded():
    found = conditions(made(loaded(), building(message="step 3")))
    assert found["ImagesReady"] == ("False", "Building", "kernel 6.2.0: step 3")
    assert found["Loaded"][0] == "False"
    assert found["Ready"] == ("False", "Building", "kernel 6.2.0: step 3")
    assert found["PluginsAvailable"][0] == "True"


def test_an_image_that_is_ready_but_not_loaded_makes_not_ready():
    found = conditions(made(loaded(settled=False, reason=Reason.LOADING, message="loaded on 1 of 2 nodes")))
    assert found["ImagesReady"][0] == "True"
    assert found["Loaded"] == found["Ready"] == ("False", "Loading", "kernel 6.1.0: loaded on 1 of 2 nodes")


def test_a_kernel_that_failed_speaks_for_those_that_only_wait():
    failed = building("6.3.0", failed=True, reason=Reason.BUILD_FAILED, message="no such package")
    found = conditions(made(building(), failed, building("6.4.0")))
    expected = ("False", "BuildFailed", "kernel 6.3.0: no such package (and 2 more kernels)")
    assert found["ImagesReady"] == found["Loaded"] == found["Ready"] == expected


def test_a_missing_plugin_is_a_condition_and_why_the_module_is_not_ready():
    found = conditions(made(building(), wrong=(Reason.PLUGIN_MISSING, 'no builder "kanico"; installed: kaniko')))
    assert found["PluginsAvailable"] == ("False", "PluginMissing", 'no builder "kanico"; installed: kaniko')
    assert found["Ready"] == found["PluginsAvailable"]


@pytest.mark.parametrize("reason", [Reason.VERSION_UNSUPPORTED, Reason.NAMESPACE_NOT_PRIVILEGED, Reason.INVALID_SPEC])
def test_a_module_for_which_nothing_is_done_says_why(reason):
    blocked = (reason, "because")
    for targets in ({}, {"6.1.0": KernelNodes(nodes=3)}):
        found = made(blocked=blocked, targets=targets)
        for type_ in ("Ready", "ImagesReady", "Loaded"):
            assert conditions(found)[type_] == ("False", str(reason), "because")
        assert found["moduleLoader"]["nodesMatchingSelectorNumber"] == (3 if targets else 0)


def test_a_module_that_cannot_be_read_has_a_status_too():
    found = made(
        of=dataclasses.replace(SUBJECT, spec=None), blocked=(Reason.INVALID_SPEC, "spec.selector: is required")
    )
    assert conditions(found)["Ready"] == ("False", "InvalidSpec", "spec.selector: is required")
    assert "devicePlugin" not in found


@pytest.mark.parametrize(
    ("owned", "expected"),
    [
        ((), "False"),
        ((daemon_set(names.DEVICE_PLUGIN, 1, 2),), "False"),
        ((daemon_set(names.DEVICE_PLUGIN, 2, 2),), "True"),
        ((daemon_set(names.DEVICE_PLUGIN, 2, 2, deleting=True),), "False"),
        ((daemon_set(names.LOADER, 2, 2),), "False"),
    ],
)
def test_the_device_plugin_is_ready_where_it_is_available_on_every_node(owned, expected):
    found = conditions(made(loaded(), of=PLUGGED, daemon_sets=owned))
    assert found["DevicePluginReady"][0] == expected
    assert found["Ready"][0] == expected


def test_a_device_plugin_that_is_scheduled_nowhere_yet_is_not_ready():
    owned = (daemon_set(names.LOADER, 2, 2), daemon_set(names.DEVICE_PLUGIN, 0, 0))
    assert conditions(made(loaded(), of=PLUGGED, daemon_sets=owned))["DevicePluginReady"][0] == "False"


def test_a_device_plugin_that_is_not_asked_for_is_nothing_to_wait_for():
    assert conditions(made(loaded()))["DevicePluginReady"][:2] == ("True", "NoDevicePlugin")


def test_a_condition_keeps_its_transition_time_while_its_status_stays():
    before = made(building(), now_s=THEN)
    assert {each["lastTransitionTime"] for each in before["conditions"]} == {THEN_TEXT}
    after = made(building(reason=Reason.SIGNING), status=before)
    assert conditions(after)["ImagesReady"][:2] == ("False", "Signing")
    assert {each["lastTransitionTime"] for each in after["conditions"]} == {THEN_TEXT}


def test_a_condition_whose_status_changes_gets_a_new_transition_time():
    before = made(building(), now_s=THEN)
    after = {each["type"]: each["lastTransitionTime"] for each in made(loaded("6.2.0"), status=before)["conditions"]}
    assert after == {
        "Ready": NOW_TEXT,
        "ImagesReady": NOW_TEXT,
        "Loaded": NOW_TEXT,
        "DevicePluginReady": THEN_TEXT,
        "PluginsAvailable": THEN_TEXT,
    }


def test_conditions_of_others_are_kept_as_they_are():
    foreign = {"type": "example.com/Audited", "status": "Unknown", "reason": "x", "lastTransitionTime": THEN_TEXT}
    stale = {"type": "Ready", "status": "Unknown", "reason": "x", "message": "", "lastTransitionTime": THEN_TEXT}
    found = made(loaded(), status={"conditions": [foreign, stale]})["conditions"]
    assert [each["type"] for each in found].count("Ready") == 1
    assert [each for each in found if each["type"] not in CONDITIONS] == [foreign]
    assert len(found) == 6


def test_a_status_in_which_nothing_changed_is_the_same_later():
    foreign = {"type": "example.com/Audited", "status": "True", "reason": "x", "lastTransitionTime": THEN_TEXT}
    kernels = (loaded(digest="sha256:1"), building(failed=True, attempts=2, last_failure_s=THEN), unmapped())
    owned = (daemon_set(names.DEVICE_PLUGIN, 1, 2),)
    first = made(*kernels, of=PLUGGED, now_s=THEN, daemon_sets=owned, status={"conditions": [foreign]})
    assert made(*kernels, of=PLUGGED, daemon_sets=owned, status=json.loads(json.dumps(first))) == first


def test_a_kernel_says_all_that_is_known_of_it():
    state = building(
        failed=True,
        reason=Reason.BUILD_FAILED,
        message="no such package",
        digest="sha256:1",
        attempts=2,
        last_failure_s=THEN,
        inputs="abc",
    )
    (found,) = made(state)["kernels"]
    assert found.pop("state")
    assert found == {
        "kernelVersion": "6.2.0",
        "nodes": 1,
        "image": "a:2",
        "digest": "sha256:1",
        "reason": "BuildFailed",
        "message": "no such package",
        "attempts": 2,
        "lastFailureTime": THEN_TEXT,
        "inputsHash": "abc",
    }


def test_states_of_kernels_can_be_told_apart():
    found = made(loaded("1"), building("2"), building("3", failed=True))["kernels"]
    assert len({each["state"] for each in found}) == 3


def test_a_digest_is_kept_while_the_image_stays_the_same():
    before = made(loaded(digest="sha256:1"))
    assert made(loaded(), status=before)["kernels"][0]["digest"] == "sha256:1"
    assert made(loaded(digest="sha256:2"), status=before)["kernels"][0]["digest"] == "sha256:2"
    assert "digest" not in made(loaded(image="a:other"), status=before)["kernels"][0]
    assert "digest" not in made(loaded("6.2.0"), status=before)["kernels"][0]


def test_kernels_that_are_gone_leave_the_status():
    before = made(loaded("6.1.0"), loaded("6.2.0"))
    assert [each["kernelVersion"] for each in made(loaded("6.2.0"), status=before)["kernels"]] == ["6.2.0"]


@pytest.mark.parametrize(("count", "shown", "rest"), [(0, 0, None), (100, 100, None), (101, 100, 1), (250, 100, 150)])
def test_at_most_100_kernels_are_listed_and_the_rest_is_counted(count, shown, rest):
    found = made(*(loaded(f"6.1.{number}", nodes=1) for number in range(count)))
    assert len(found["kernels"]) == shown
    assert found.get("kernelsNotShown") == rest
    assert found["moduleLoader"]["desiredNumber"] == count


def test_a_kernel_beyond_the_listed_ones_counts_in_conditions():
    states = [loaded(f"6.1.{number}") for number in range(100)]
    found = conditions(made(*states, building(failed=True, reason=Reason.BUILD_FAILED)))
    assert found["Ready"][:2] == ("False", "BuildFailed")


def test_long_messages_are_cut_but_not_the_count_behind_them():
    failed = [building(f"6.1.{number}", failed=True, message="x" * 100_000) for number in range(3)]
    found = made(*failed)
    assert all(len(each["message"]) <= 1024 for each in (*found["conditions"], *found["kernels"]))
    assert conditions(found)["Ready"][2].endswith("(and 2 more kernels)")
    assert len(conditions(made(wrong=(Reason.PLUGIN_MISSING, "x" * 100_000)))["PluginsAvailable"][2]) <= 1024


def test_the_status_is_one_that_the_api_takes():
    kernels = [building(f"6.1.{n}", failed=True, attempts=1, last_failure_s=THEN, inputs="x") for n in range(120)]
    found = made(*kernels, unmapped(), of=PLUGGED, daemon_sets=(daemon_set(names.DEVICE_PLUGIN, 1, 2),))
    manifest = {
        "metadata": {"name": "m", "namespace": "n"},
        "spec": {"selector": {}, "driver": "acme"},
        "status": found,
    }
    module, findings = load(Module, manifest)
    assert findings == []
    assert module.status.kernels_not_shown == 21
    assert module.status.device_plugin.available_number == 1


def test_what_comes_to_nothing_is_a_condition_of_its_own_as_long_as_it_does():
    first = made(loaded(warning="x has no means for y"), loaded("6.2.0", warning="x has no means for y"))
    assert conditions(first)["FieldsIgnored"] == (
        "True",
        "FieldsIgnored",
        "kernels 6.1.0, 6.2.0: x has no means for y",
    )
    assert conditions(first)["Ready"][0] == "True"
    assert "FieldsIgnored" not in conditions(made(loaded(), status=first))
    blocked = (Reason.INVALID_SPEC, "why")
    assert "FieldsIgnored" in conditions(made(blocked=blocked, status=first))
