"""What a server says of itself, and to whom."""

from __future__ import annotations

import copy

import pytest


def test_every_kind_is_discovered_with_its_names(api):
    core = {each["name"]: each for each in api.get("/api/v1").body["resources"]}
    for name, kind, short in (
        ("nodes", "Node", ["no"]),
        ("pods", "Pod", ["po"]),
        ("configmaps", "ConfigMap", ["cm"]),
    ):
        assert core[name]["kind"] == kind
        assert core[name]["shortNames"] == short
        assert {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"} <= set(
            core[name]["verbs"]
        )
    assert core["nodes"]["namespaced"] is False
    assert core["pods"]["namespaced"] is True
    assert core["pods/status"]["kind"] == "Pod"
    groups = {each["name"]: each for each in api.get("/apis").body["groups"]}
    assert {"apps", "batch", "coordination.k8s.io", "apiextensions.k8s.io"} <= set(groups)
    assert api.get("/apis/apps").body["preferredVersion"]["groupVersion"] == "apps/v1"
    assert "daemonsets/status" in {each["name"] for each in api.get("/apis/apps/v1").body["resources"]}


@pytest.mark.usefixtures("definitions")
def test_our_kinds_are_discovered(api):
    found = {each["name"]: each for each in api.get("/apis/kmm.sigs.x-k8s.io/v1beta1").body["resources"]}
    assert found["modules"]["kind"] == "Module"
    assert found["modules"]["namespaced"] is True
    assert found["modules/status"]["verbs"] == ["get", "patch", "update"]
    assert found["preflightvalidations"]["shortNames"] == ["pfv"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
def test_health_is_told(api, path):
    assert api.get(path).body == "ok"


def test_the_version_is_told(api):
    said = api.get("/version").body
    assert (said["major"], said["minor"]) == ("1", "36")


@pytest.mark.parametrize(
    "path", ["/apis/nowhere.example.com/v1/things", "/api/v1/nothings", "/apis/apps/v2/daemonsets"]
)
def test_an_unknown_path_is_not_found(api, path):
    assert api.get(path).code == 404


def test_an_unknown_token_is_refused(server):
    answer = server.stranger.get("/api/v1/nodes")
    assert (answer.code, answer.body["reason"]) == (401, "Unauthorized")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])  # Kubernetes' client for pods writes it small
def test_a_token_is_known_however_its_scheme_is_written(server, scheme):
    token = server.api._headers["Authorization"].partition(" ")[2]
    client = copy.copy(server.api)
    client._headers = {"Authorization": f"{scheme} {token}"}
    assert client.get("/api/v1/nodes").code == 200


def test_nobody_in_particular_is_refused(server):
    answer = server.anonymous.get("/api/v1/nodes")
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")


def test_it_knows_who_asks(server):
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = server.api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    assert answer.code == 201
    info = answer.body["status"]["userInfo"]
    assert info["username"].endswith(server.user)
    assert set(info["groups"]) == {"system:masters", "system:authenticated"}


@pytest.mark.usefixtures("definitions")
def test_openapi_describes_our_kind_to_the_last_field(api):
    index = api.get("/openapi/v3").body["paths"]
    document = api.get(index["apis/kmm.sigs.x-k8s.io/v1beta1"]["serverRelativeURL"]).body
    module = next(
        each
        for each in document["components"]["schemas"].values()
        if {"group": "kmm.sigs.x-k8s.io", "version": "v1beta1", "kind": "Module"}
        in each.get("x-kubernetes-group-version-kind", ())
    )
    field = module["properties"]["spec"]["properties"]["devicePlugin"]["properties"]["container"]["properties"]["env"]
    assert "valueFrom" in field["items"]["properties"]
    assert "/apis/kmm.sigs.x-k8s.io/v1beta1/namespaces/{namespace}/modules/{name}" in document["paths"]
