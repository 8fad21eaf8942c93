"""Wanted against owned: one object, made once; what others did to it is brought back; taking over unloads nothing."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from kmm.contract import Kind, ModuleRef
from kmm.core.actions import Announce, Create, Delete, Replace
from kmm.core.diff import NameTakenError, Wanted, bring, keep_order
from kmm.core.reasons import Reason
from kmm.core.view import DaemonSet, Subject, View
from kmm.errors import SpecError

PREFIX = "kmm.node.kubernetes.io/"
KIND = Kind(api_version="apps/v1", kind="DaemonSet", plural="daemonsets")
KERNEL = "6.1.0-18-amd64+"
SUBJECT = Subject(ref=ModuleRef(namespace="n", name="m"), uid="module-uid")
LABELS = {
    f"{PREFIX}module.name": "m",
    f"{PREFIX}role": "module-loader",
    f"{PREFIX}kernel-version.full": "6.1.0-18-amd64",
}


def wanted(image: str = "registry.example.com/a:1", **annotations: str) -> Wanted:
    pod = {
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "module-loader",
                "image": image,
                "command": ["sleep", "infinity"],
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"add": ["SYS_MODULE"]}},
            }
        ],
        "nodeSelector": {"a": "b", f"{PREFIX}kernel-version.full": "6.1.0-18-amd64"},
        "volumes": [{"name": "modules", "hostPath": {"path": "/lib/modules/x", "type": "Directory"}}],
    }
    spec = {
        "selector": {"matchLabels": LABELS},
        "template": {"metadata": {"labels": LABELS}, "spec": pod},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
    }
    manifest = {"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": spec}
    more = {f"{PREFIX}{key}": value for key, value in annotations.items()}
    return Wanted(role="module-loader", kernel=KERNEL, name="m-0123456789", manifest=manifest, annotations=more)


def actions(want: Wanted, *owned: DaemonSet, **view: Any) -> list[Any]:
    return list(bring(want, owned, SUBJECT, View(**view)))


def live(want: Wanted, **changes: Any) -> DaemonSet:
    """Return the object that the cluster holds after `want` was created, and then `changes` to it."""
    (create,) = actions(want)
    metadata = create.manifest["metadata"]
    made = DaemonSet(
        kind=KIND,
        name=metadata["name"],
        uid="uid",
        generation=1,
        created="2024-01-01T00:00:00Z",
        labels=metadata["labels"],
        annotations=metadata["annotations"],
        role=want.role,
        selector=LABELS,
    )
    return dataclasses.replace(made, **changes)


def replaced(owned: DaemonSet, action: Replace) -> DaemonSet:
    """Return the object after `action`: its generation grows only where its spec is written."""
    assert (action.uid, action.generation) == (owned.uid, owned.generation)
    return dataclasses.replace(
        owned,
        generation=owned.generation + bool(action.spec),
        annotations={**owned.annotations, **action.annotations},
        labels={**owned.labels, **action.labels},
        spec=None,
    )


def with_defaults(want: Wanted) -> dict[str, Any]:
    """Return the spec as an API server gives it back: with its defaults."""
    spec = copy.deepcopy(dict(want.manifest["spec"]))
    spec["revisionHistoryLimit"] = 10
    spec["template"]["metadata"]["creationTimestamp"] = None
    pod = spec["template"]["spec"]
    pod |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
    pod |= {"securityContext": {}, "terminationGracePeriodSeconds": 30}
    pod["containers"][0] |= {
        "imagePullPolicy": "IfNotPresent",
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    return spec


def go_operators(want: Wanted, **changes: Any) -> DaemonSet:
    """Return an object of our Module that the Go operator has made."""
    made = DaemonSet(
        kind=KIND,
        name="m-x7k2p",
        uid="go-uid",
        generation=5,
        labels=LABELS,
        annotations={},
        role=want.role,
        selector=LABELS,
        spec=with_defaults(want),
    )
    return dataclasses.replace(made, **changes)


def reasons(found: list[Any]) -> list[str]:
    return [action.reason for action in found if isinstance(action, Announce)]


# ── Created once ──────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_there_is_created_with_its_labels_annotations_and_owner():
    want = wanted(certificate="abc")
    (create,) = actions(want)
    assert isinstance(create, Create)
    assert create.kind == KIND
    metadata = create.manifest["metadata"]
    assert (metadata["name"], metadata["namespace"], metadata["labels"]) == ("m-0123456789", "n", LABELS)
    assert metadata["annotations"] == {
        f"{PREFIX}last-hash": want.hash,
        f"{PREFIX}applied-generation": "1",
        f"{PREFIX}kernel": KERNEL,
        f"{PREFIX}certificate": "abc",
    }
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Module", "module-uid", True)
    assert create.manifest["spec"] == want.manifest["spec"]


def test_what_is_there_as_wanted_costs_nothing():
    want = wanted(certificate="abc")
    owned = live(want)
    assert actions(want, owned) == []


def test_the_hash_changes_with_what_is_rendered_and_with_nothing_else():
    assert wanted().hash == wanted(certificate="abc").hash
    assert wanted().hash != wanted("registry.example.com/a:2").hash


def test_a_terminating_predecessor_of_the_same_name_is_waited_for():
    want = wanted()
    going = live(want, deleting=True)
    assert actions(want, going) == []


def test_a_terminating_one_beside_a_live_one_is_left_alone():
    want = wanted()
    assert actions(want, live(want), live(want, name="m-other", uid="other", deleting=True)) == []


def test_a_name_that_a_stranger_has_touches_nothing():
    with pytest.raises(NameTakenError, match='"m-0123456789" exists that is not of this Module') as caught:
        actions(wanted(), taken=frozenset({"m-0123456789"}))
    assert isinstance(caught.value, SpecError)


def test_a_name_that_is_taken_does_not_matter_where_an_object_of_ours_serves():
    want = wanted()
    assert actions(want, live(want, name="m-x7k2p"), taken=frozenset({"m-0123456789"})) == []


# ── Surplus ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_two_for_the_same_nodes_the_one_with_most_ready_pods_stays():
    want = wanted()
    few = live(want, name="m-a", uid="few", ready=1, created="2020-01-01T00:00:00Z")
    many = live(want, name="m-b", uid="many", ready=2)
    for owned in ((few, many), (many, few)):
        (delete,) = actions(want, *owned)
        assert isinstance(delete, Delete)
        assert (delete.kind, delete.name, delete.uid) == (KIND, "m-a", "few")


def test_of_two_with_as_many_ready_pods_the_oldest_stays():
    want = wanted()
    new = live(want, name="m-a", uid="new", created="2024-01-02T00:00:00Z")
    old = live(want, name="m-b", uid="old", created="2024-01-01T00:00:00Z")
    assert [each.uid for each in keep_order([new, old])] == ["old", "new"]
    assert [each.uid for each in actions(want, new, old)] == ["new"]


def test_a_terminating_one_is_neither_kept_nor_deleted_again():
    want = wanted()
    going = live(want, name="m-a", uid="going", ready=9, deleting=True)
    assert actions(want, going, live(want)) == []


def test_the_one_that_is_kept_is_brought_up_to_date_in_the_same_step():
    want = wanted("registry.example.com/a:2")
    kept, other = live(wanted(), ready=1), live(wanted(), name="m-a", uid="other")
    delete, replace = actions(want, kept, other)
    assert (type(delete), delete.uid, type(replace), replace.uid) == (Delete, "other", Replace, "uid")


# ── What changed ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_change_is_one_replace_of_all_that_we_render_but_the_selector():
    want = wanted("registry.example.com/a:2", certificate="abc")
    owned = live(
        wanted(), generation=7, annotations={**live(wanted()).annotations, f"{PREFIX}applied-generation": "7"}
    )
    (replace,) = actions(want, owned)
    assert isinstance(replace, Replace)
    assert (replace.name, replace.uid, replace.generation) == (owned.name, "uid", 7)
    spec = want.manifest["spec"]
    assert replace.spec == {"template": spec["template"], "updateStrategy": spec["updateStrategy"]}
    assert replace.annotations == {
        f"{PREFIX}last-hash": want.hash,
        f"{PREFIX}applied-generation": "8",
        f"{PREFIX}kernel": KERNEL,
        f"{PREFIX}certificate": "abc",
    }
    assert actions(want, replaced(owned, replace)) == []
    assert replaced(owned, replace).applied


def test_what_somebody_edited_is_brought_back_and_said():
    want = wanted()
    edited = live(want, generation=2)
    assert not edited.applied
    replace, said = actions(want, edited)
    assert (replace.generation, replace.spec["template"]) == (2, want.manifest["spec"]["template"])
    assert replace.annotations[f"{PREFIX}applied-generation"] == "3"
    assert (said.reason, said.warning) == (Reason.DRIFT_REVERTED, True)
    assert actions(want, replaced(edited, replace)) == []


@pytest.mark.parametrize("generation", [3, 4, 50])
def test_every_later_edit_is_seen(generation):
    want = wanted()
    owned = live(want, annotations={**live(want).annotations, f"{PREFIX}applied-generation": "2"})
    edited = dataclasses.replace(owned, generation=generation)
    assert reasons(actions(want, edited)) == [Reason.DRIFT_REVERTED]


def test_a_replace_that_changed_no_generation_is_not_taken_for_an_edit():
    want = wanted()
    annotations = {**live(want).annotations, f"{PREFIX}applied-generation": "5"}
    owned = live(want, generation=4, annotations=annotations)
    (replace,) = actions(want, owned)
    assert (replace.spec, replace.annotations[f"{PREFIX}applied-generation"]) == ({}, "4")
    assert actions(want, replaced(owned, replace)) == []


@pytest.mark.parametrize("said", ["", "x", "-1", "1.0"])
def test_an_applied_generation_that_somebody_has_made_unreadable_is_an_edit(said):
    want = wanted()
    owned = live(want, annotations={**live(want).annotations, f"{PREFIX}applied-generation": said})
    found = actions(want, owned)
    assert found[0].spec["template"] == want.manifest["spec"]["template"]
    assert reasons(found) == [Reason.DRIFT_REVERTED]
    assert actions(want, replaced(owned, found[0])) == []


def test_annotations_alone_are_written_without_touching_the_template():
    owned = live(wanted(certificate="old"))
    (replace,) = actions(wanted(certificate="new"), owned)
    assert (replace.spec, replace.generation) == ({}, 1)
    assert replace.annotations[f"{PREFIX}certificate"] == "new"
    assert replace.annotations[f"{PREFIX}applied-generation"] == "1"
    assert actions(wanted(certificate="new"), replaced(owned, replace)) == []


def test_annotations_of_others_cost_nothing():
    want = wanted()
    assert actions(want, live(want, annotations={**live(want).annotations, "others": "x"})) == []


def test_labels_that_somebody_edited_are_brought_back_without_touching_the_pods():
    want = wanted()
    for labels in ({}, {**LABELS, f"{PREFIX}role": "device-plugin"}, {**LABELS, "mine": "kept"}):
        found = live(want, labels=labels)
        said = actions(want, found)
        if labels.items() >= LABELS.items():
            assert said == []
            continue
        (replace,) = said
        assert replace.spec == {}
        after = replaced(found, replace)
        assert after.labels.items() >= LABELS.items()
        assert actions(want, after) == []


# ── Taking over from the Go operator ──────────────────────────────────────────────────────────────────────────


def test_an_equal_object_of_the_go_operator_is_only_annotated_so_that_no_driver_is_unloaded():
    want = wanted()
    found = go_operators(want)
    replace, said = actions(want, found)
    assert isinstance(replace, Replace)
    assert (replace.name, replace.uid, replace.generation, replace.spec) == ("m-x7k2p", "go-uid", 5, {})
    assert replace.annotations == {
        f"{PREFIX}last-hash": want.hash,
        f"{PREFIX}applied-generation": "5",
        f"{PREFIX}kernel": KERNEL,
    }
    assert (said.reason, said.warning) == (Reason.TAKEN_OVER, False)
    after = replaced(found, replace)
    assert actions(want, after) == []
    assert after.applied


def test_the_go_operators_finalizer_on_pods_reloads_no_driver():
    want = wanted()
    spec = with_defaults(want)
    spec["template"]["metadata"]["finalizers"] = [f"{PREFIX}node-labeler"]
    replace, _ = actions(want, go_operators(want, spec=spec))
    assert replace.spec == {}
    spec["template"]["metadata"]["finalizers"].append("example.com/another")
    replace, _ = actions(want, go_operators(want, spec=spec))
    assert replace.spec


def change(path: str, value: Any):
    def make(spec: dict[str, Any]) -> None:
        *way, last = [int(part) if part.isdigit() else part for part in path.split(">")]
        branch: Any = spec
        for part in way:
            branch = branch.setdefault(part, {}) if isinstance(branch, dict) else branch[part]
        branch[last] = value

    return make


POD = "template>spec>"
CONTAINER = f"{POD}containers>0>"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(change(f"{CONTAINER}image", "registry.example.com/a:0"), id="another image"),
        pytest.param(change(f"{CONTAINER}command", ["sleep", "infinity", "x"]), id="another word"),
        pytest.param(change(f"{POD}volumes", []), id="a volume is lacking"),
        pytest.param(change(f"{POD}automountServiceAccountToken", True), id="another boolean"),
        pytest.param(change("updateStrategy", {"type": "OnDelete"}), id="another strategy"),
        # Beyond what we say, and no default of the API server's either.
        pytest.param(change(f"{POD}nodeSelector>more", "x"), id="fewer nodes"),
        pytest.param(change(f"{CONTAINER}securityContext>privileged", True), id="privileged"),
        pytest.param(change(f"{CONTAINER}securityContext>capabilities>drop", ["ALL"]), id="capabilities"),
        pytest.param(change(f"{POD}hostNetwork", True), id="the host's network"),
        pytest.param(change(f"{POD}tolerations", [{"operator": "Exists"}]), id="tolerations"),
        pytest.param(change(f"{POD}imagePullSecrets", [{"name": "old"}]), id="a pull secret"),
        pytest.param(change(f"{POD}serviceAccountName", "old"), id="a service account"),
        pytest.param(change(f"{CONTAINER}env", [{"name": "A"}]), id="environment"),
        pytest.param(change(f"{POD}initContainers", [{"name": "x"}]), id="an init container"),
    ],
)
def test_another_template_of_the_go_operator_is_brought_up_to_date(make):
    want = wanted()
    spec = with_defaults(want)
    make(spec)
    found = go_operators(want, spec=spec)
    replace, said = actions(want, found)
    assert replace.spec.get("template") == want.manifest["spec"]["template"]
    assert replace.annotations[f"{PREFIX}applied-generation"] == "6"
    assert said.reason == Reason.TAKEN_OVER
    assert actions(want, replaced(found, replace)) == []


def test_an_object_whose_spec_is_not_known_is_not_taken_for_an_equal_one():
    want = wanted()
    replace, _ = actions(want, go_operators(want, spec=None))
    assert replace.spec["template"] == want.manifest["spec"]["template"]


def test_an_object_with_another_selector_is_deleted_then_made_again_and_that_is_said():
    want = wanted()
    found = go_operators(want, selector={f"{PREFIX}module.name": "m"})
    delete, said = actions(want, found)
    assert isinstance(delete, Delete)
    assert (delete.name, delete.uid) == ("m-x7k2p", "go-uid")
    assert (said.reason, said.warning) == (Reason.SELECTOR_CHANGED, True)
    assert "reloaded" in said.message
    (create,) = actions(want)
    assert isinstance(create, Create)


def test_no_selector_is_ever_written():
    want = wanted()
    for owned in (live(wanted("registry.example.com/a:2")), live(want, generation=9), go_operators(want, spec=None)):
        assert "selector" not in actions(want, owned)[0].spec
