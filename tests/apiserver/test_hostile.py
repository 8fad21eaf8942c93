"""What nobody should send is refused, and nothing worse."""

from __future__ import annotations

import pytest
from apiserver.samples import DEFINITIONS, a_daemon_set, a_definition, a_job, core, jobs, sets

DEEP = b'{"metadata":{"name":"a"},"data":' + b'{"a":' * 5000 + b"1" + b"}" * 5001


def pod(**spec):
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "c:1"}], **spec}}


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"5",
        DEEP,
        {"metadata": []},
        {"metadata": 5},
        {"metadata": {"name": 5}},
        {"metadata": {"name": {}}},
        {"metadata": {"generateName": 5}},
        {"metadata": {"name": "a", "labels": []}},
        {"metadata": {"name": "a", "labels": {"a": {}}}},
        {"metadata": {"name": "a", "finalizers": "x"}},
        {"metadata": {"name": "a", "ownerReferences": [5]}},
        {"metadata": {"name": "a", "ownerReferences": [{"uid": "x"}]}},
        {"metadata": {"name": "a"}, "data": "x"},
        {"metadata": {"name": "a"}, "binaryData": {"k": "%%%"}},
        {"metadata": {"name": "../a"}},
    ],
    ids=str,
)
def test_a_configmap_that_is_none(api, maps, body):
    assert api.post(maps, body).code in (400, 413, 422)


@pytest.mark.parametrize(
    ("plural", "body"),
    [
        ("pods", {"metadata": {"name": "p"}, "spec": "x"}),
        ("pods", {"metadata": {"name": "p"}, "spec": {"containers": "x"}}),
        ("pods", {"metadata": {"name": "p"}, "spec": {"containers": [5]}}),
        ("pods", {"metadata": {"name": "p"}, "spec": {"containers": []}}),
        ("pods", pod(volumes=[{"name": "v", "secret": 5}])),
        ("pods", pod(nodeName="../x")),
        ("secrets", {"metadata": {"name": "s"}, "data": {"k": "%%%"}}),
        ("serviceaccounts", {"metadata": {"name": "s"}, "secrets": 5}),
        ("events", {"metadata": {"name": "e"}, "involvedObject": 5}),
    ],
    ids=str,
)
def test_other_objects_that_are_none(api, namespace, plural, body):
    assert api.post(core(namespace, plural), body).code in (400, 422)


@pytest.mark.parametrize(
    "spec",
    [
        {"selector": None},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["x"]}]}},
        {"selector": {"matchExpressions": [{"key": "a", "operator": "Foo"}]}},
        {"template": None},
        {"template": {"spec": 5}},
        {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "abc"}}},
        {"updateStrategy": 5},
        {"minReadySeconds": "soon"},
    ],
    ids=str,
)
def test_a_daemonset_that_is_none(api, namespace, spec):
    body = a_daemon_set()
    body["spec"] |= spec
    assert api.post(sets(namespace), body).code in (400, 422)


@pytest.mark.parametrize(
    "spec",
    [
        {"backoffLimit": -1},
        {"parallelism": "x"},
        {"template": {"spec": {"restartPolicy": "Never", "containers": []}}},
    ],
    ids=str,
)
def test_a_job_that_is_none(api, namespace, spec):
    body = a_job()
    body["spec"] |= spec
    assert api.post(jobs(namespace), body).code in (400, 422)


@pytest.mark.parametrize(
    "query",
    [
        {"limit": "abc"},
        {"timeoutSeconds": "x", "watch": "true"},
        {"labelSelector": "(("},
        {"fieldSelector": "a"},
        {"continue_": "x.y"},
    ],
    ids=str,
)
def test_a_query_that_is_none(api, maps, query):
    assert api.get(maps, **query).code in (400, 410)


@pytest.mark.parametrize(
    "options", [{"gracePeriodSeconds": "x"}, {"gracePeriodSeconds": []}, {"preconditions": "x"}, [], 5]
)
def test_deletions_that_are_none(api, maps, options):
    api.post(maps, {"metadata": {"name": "a"}})
    assert api.delete(f"{maps}/a", options).code in (400, 422)
    assert api.get(f"{maps}/a").code == 200


def test_methods_that_are_not_for_a_path(api, maps, node):
    api.post(maps, {"metadata": {"name": "a"}})
    assert api.post(f"{maps}/a", {"metadata": {"name": "b"}}).code == 405
    assert api.put(maps, {"metadata": {"name": "a"}}).code == 405
    assert api.patch(maps, {}).code == 405
    name = node()["metadata"]["name"]
    assert api.delete(f"/api/v1/nodes/{name}/status").code == 405
    assert api.get(f"/api/v1/nodes/{name}").code == 200
    assert api.get(f"{maps}/a/status").code == 404


@pytest.mark.parametrize(
    "schema", [{"type": "foo"}, {"type": "object", "x-kubernetes-validations": [{}]}, {"type": 5}], ids=str
)
def test_definitions_that_are_none(api, schema):
    assert api.post(DEFINITIONS, a_definition("Wrong", schema)).code in (400, 422)


def test_a_kind_of_kubernetes_own_is_not_defined_anew(api):
    body = a_definition("DaemonSet", {"type": "object"})
    body["spec"]["group"] = "apps"
    body["metadata"]["name"] = "daemonsets.apps"
    answer = api.post(DEFINITIONS, body)
    assert answer.code in (201, 422)
    if answer.code == 201:
        api.delete(f"{DEFINITIONS}/daemonsets.apps")
    assert api.get("/apis/apps/v1/daemonsets").code == 200
