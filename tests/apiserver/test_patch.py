"""Objects are changed by patches."""

from __future__ import annotations

import pytest
from apiserver.samples import a_daemon_set, a_module, sets


@pytest.fixture
def path(api, maps):
    made = api.post(maps, {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v", "l": "w"}})
    assert made.code == 201
    return f"{maps}/a"


def test_a_merge_patch_merges_and_removes(api, path):
    answer = api.patch(path, {"data": {"k": None, "m": "n"}})
    assert (answer.code, answer.body["data"]) == (200, {"l": "w", "m": "n"})


def test_a_merge_patch_replaces_lists(api, modules):
    api.post(modules, a_module(tolerations=[{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]))
    change = {"spec": {"tolerations": [{"key": "c", "operator": "Exists"}]}}
    assert api.patch(f"{modules}/m", change).body["spec"]["tolerations"] == [{"key": "c", "operator": "Exists"}]


def test_a_json_patch_is_carried_out_in_order(api, path):
    patch = [
        {"op": "test", "path": "/data/k", "value": "v"},
        {"op": "replace", "path": "/data/k", "value": "1"},
        {"op": "copy", "from": "/data/k", "path": "/data/m"},
        {"op": "move", "from": "/data/l", "path": "/data/n"},
        {"op": "add", "path": "/metadata/labels/a.b~1c", "value": "d"},
        {"op": "remove", "path": "/metadata/labels/x"},
    ]
    answer = api.patch(path, patch, "json")
    assert answer.code == 200, answer.body
    assert answer.body["data"] == {"k": "1", "m": "1", "n": "w"}
    assert answer.body["metadata"]["labels"] == {"a.b/c": "d"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "test", "path": "/data/k", "value": "other"},
        {"op": "test", "path": "/data/nothing", "value": "v"},
        {"op": "remove", "path": "/data/nothing"},
        {"op": "replace", "path": "/binaryData/x", "value": "v"},
        {"op": "add", "path": "/binaryData/x", "value": "v"},
        {"op": "move", "from": "/data/nothing", "path": "/data/x"},
    ],
)
def test_a_json_patch_that_does_not_apply_changes_nothing(api, path, wrong):
    answer = api.patch(path, [{"op": "replace", "path": "/data/l", "value": "1"}, wrong], "json")
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    assert api.get(path).body["data"] == {"k": "v", "l": "w"}


def test_a_replacement_of_what_is_not_there_adds_it(api, path):
    answer = api.patch(path, [{"op": "replace", "path": "/data/m", "value": "n"}], "json")
    assert (answer.code, answer.body["data"]) == (200, {"k": "v", "l": "w", "m": "n"})


def test_a_copy_of_what_is_not_there_is_nothing_or_refused(server, api, path):
    """docs/embedded.md: Kubernetes copies a null, the embedded server refuses."""
    answer = api.patch(path, [{"op": "copy", "from": "/data/nothing", "path": "/data/x"}], "json")
    assert answer.code == (422 if server.embedded else 200)


@pytest.mark.parametrize(
    ("form", "body"), [("json", {}), ("json", b"["), ("merge", b"{"), ("merge", b"[]"), ("json", "a")]
)
def test_a_patch_that_is_none_is_a_bad_request(api, path, form, body):
    assert api.patch(path, body, form).code == 400


def test_a_custom_object_takes_no_strategic_merge(api, modules):
    api.post(modules, a_module())
    answer = api.patch(f"{modules}/m", {}, "strategic")
    assert (answer.code, answer.body["reason"]) == (415, "UnsupportedMediaType")
    assert "application/json-patch+json, application/merge-patch+json" in answer.message


@pytest.mark.parametrize("form", ["strategic", "apply"])
def test_the_embedded_server_says_which_patches_it_lacks(server, api, path, form):
    """docs/embedded.md: no strategic merge, no server-side apply."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
    answer = (
        api.patch(path, body, form, fieldManager="test", force="true")
        if form == "apply"
        else api.patch(path, body, form)
    )
    if server.embedded:
        assert (answer.code, answer.body["reason"]) == (415, "UnsupportedMediaType")
        assert "the embedded API server has no application/" in answer.message
    else:
        assert answer.code == 200


def test_a_patch_can_ask_for_a_version(api, path):
    old = api.get(path).version
    assert api.patch(path, {"metadata": {"resourceVersion": old}, "data": {"k": "1"}}).code == 200
    answer = api.patch(path, {"metadata": {"resourceVersion": old}, "data": {"k": "2"}})
    assert (answer.code, answer.body["reason"]) == (409, "Conflict")


def test_a_patch_cannot_change_what_identifies_an_object(api, path):
    for change in ({"uid": "11111111-1111-1111-1111-111111111111"}, {"name": "b"}, {"namespace": "default"}):
        assert api.patch(path, {"metadata": change}).code in (400, 409, 422), change
    made = api.get(path).body["metadata"]
    answer = api.patch(path, {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z", "generation": 9}})
    assert answer.body["metadata"]["creationTimestamp"] == made["creationTimestamp"]


def test_the_operators_replacement_is_safe_against_others(api, namespace):
    """The form of all our writes: test uid and generation, replace the template."""
    api.post(sets(namespace), a_daemon_set())
    path = f"{sets(namespace)}/d"
    made = api.get(path).body
    template = made["spec"]["template"]
    template["spec"]["terminationGracePeriodSeconds"] = 60
    patch = [
        {"op": "test", "path": "/metadata/uid", "value": made["metadata"]["uid"]},
        {"op": "test", "path": "/metadata/generation", "value": 1},
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "add", "path": "/metadata/annotations/kmm.node.kubernetes.io~1applied-generation", "value": "2"},
    ]
    answer = api.patch(path, patch, "json")
    assert answer.code == 200, answer.body
    assert answer.body["metadata"]["generation"] == 2
    assert answer.body["metadata"]["annotations"]["kmm.node.kubernetes.io/applied-generation"] == "2"
    again = api.patch(path, patch, "json")
    assert again.code == 422, "somebody else was first"
    assert api.get(path).body["metadata"]["generation"] == 2


def test_a_status_patch_changes_the_status_alone(api, modules):
    api.post(modules, a_module())
    patch = [
        {"op": "add", "path": "/status", "value": {"observedGeneration": 1}},
        {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
    ]
    answer = api.patch(f"{modules}/m/status", patch, "json")
    assert answer.body["status"] == {"observedGeneration": 1}
    assert "labels" not in answer.body["metadata"]


def test_a_patch_is_judged_like_any_object(api, modules):
    api.post(modules, a_module())
    answer = api.patch(f"{modules}/m", {"spec": {"moduleLoader": {"container": {"kernelMappings": []}}}})
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["field"] == "spec.moduleLoader.container.kernelMappings"
    answer = api.patch(f"{modules}/m", {"spec": {"unknown": 1}}, fieldValidation="Strict")
    assert answer.code in (400, 422)
    assert 'unknown field "spec.unknown"' in answer.message
