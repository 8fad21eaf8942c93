"""Finalizers, owners, namespaces: how things end."""

from __future__ import annotations

import pytest
from apiserver.client import eventually
from apiserver.samples import a_daemon_set, a_job, a_module, core, jobs, owner, sets


def gone(api, path):
    return lambda: api.get(path).code == 404


def test_an_object_with_a_finalizer_waits_for_it(api, maps):
    api.post(maps, {"metadata": {"name": "a", "finalizers": ["example.com/wait"]}})
    answer = api.delete(f"{maps}/a")
    assert (answer.code, answer.body["kind"]) == (200, "ConfigMap")
    meta = api.get(f"{maps}/a").body["metadata"]
    assert meta["deletionTimestamp"]
    assert meta["deletionGracePeriodSeconds"] == 0
    assert api.delete(f"{maps}/a").body["metadata"]["deletionTimestamp"] == meta["deletionTimestamp"]
    assert api.post(maps, {"metadata": {"name": "a"}}).code == 409
    assert api.patch(f"{maps}/a", {"metadata": {"finalizers": None}}).code == 200
    assert api.get(f"{maps}/a").code == 404


def test_one_of_two_finalizers_is_not_enough(api, maps):
    api.post(maps, {"metadata": {"name": "a", "finalizers": ["example.com/1", "example.com/2"]}})
    api.delete(f"{maps}/a")
    api.patch(f"{maps}/a", {"metadata": {"finalizers": ["example.com/2"]}})
    assert api.get(f"{maps}/a").code == 200
    api.patch(f"{maps}/a", [{"op": "remove", "path": "/metadata/finalizers"}], "json")
    assert api.get(f"{maps}/a").code == 404


def test_no_finalizer_comes_to_what_is_being_deleted(api, maps):
    api.post(maps, {"metadata": {"name": "a", "finalizers": ["example.com/1"]}})
    api.delete(f"{maps}/a")
    answer = api.patch(f"{maps}/a", {"metadata": {"finalizers": ["example.com/1", "example.com/2"]}})
    assert answer.code == 422
    assert "no new finalizers can be added if the object is being deleted" in answer.message
    api.patch(f"{maps}/a", {"metadata": {"finalizers": None}})


def test_the_generation_moves_when_a_deletion_is_asked_for(api, modules):
    body = a_module()
    body["metadata"]["finalizers"] = ["example.com/1"]
    api.post(modules, body)
    assert api.delete(f"{modules}/m").body["metadata"]["generation"] == 2
    api.patch(f"{modules}/m", {"metadata": {"finalizers": None}})


def test_dependents_go_with_their_last_owner(api, maps):
    first = api.post(maps, {"metadata": {"name": "first"}}).body
    second = api.post(maps, {"metadata": {"name": "second"}}).body
    api.post(maps, {"metadata": {"name": "one", "ownerReferences": [owner(first)]}})
    api.post(maps, {"metadata": {"name": "both", "ownerReferences": [owner(first), owner(second)]}})
    api.delete(f"{maps}/first")
    eventually(gone(api, f"{maps}/one"))
    eventually(
        lambda: [each["name"] for each in api.get(f"{maps}/both").body["metadata"]["ownerReferences"]] == ["second"]
    )
    api.delete(f"{maps}/second")
    eventually(gone(api, f"{maps}/both"))


def test_dependents_of_dependents_go_too(api, maps):
    top = api.post(maps, {"metadata": {"name": "top"}}).body
    middle = api.post(maps, {"metadata": {"name": "middle", "ownerReferences": [owner(top)]}}).body
    api.post(maps, {"metadata": {"name": "bottom", "ownerReferences": [owner(middle)]}})
    api.delete(f"{maps}/top", {"propagationPolicy": "Background"})
    eventually(gone(api, f"{maps}/bottom"))


def test_what_names_an_owner_that_is_not_there_goes(api, maps):
    first = api.post(maps, {"metadata": {"name": "first"}}).body
    api.delete(f"{maps}/first")
    api.post(maps, {"metadata": {"name": "late", "ownerReferences": [owner(first)]}})
    eventually(gone(api, f"{maps}/late"))


def test_an_owner_of_the_same_name_but_another_uid_is_another_owner(api, maps):
    first = api.post(maps, {"metadata": {"name": "o"}}).body
    api.post(maps, {"metadata": {"name": "d", "ownerReferences": [owner(first)]}})
    api.delete(f"{maps}/o")
    api.post(maps, {"metadata": {"name": "o"}})
    eventually(gone(api, f"{maps}/d"))
    assert api.get(f"{maps}/o").code == 200


def test_orphans_stay(api, maps):
    first = api.post(maps, {"metadata": {"name": "first"}}).body
    api.post(maps, {"metadata": {"name": "one", "ownerReferences": [owner(first)]}})
    api.delete(f"{maps}/first", {"propagationPolicy": "Orphan"})
    eventually(gone(api, f"{maps}/first"))
    assert "ownerReferences" not in api.get(f"{maps}/one").body["metadata"]


def test_in_the_foreground_the_owner_goes_last(api, maps):
    first = api.post(maps, {"metadata": {"name": "first"}}).body
    held = {
        "name": "one",
        "finalizers": ["example.com/1"],
        "ownerReferences": [owner(first, blockOwnerDeletion=True)],
    }
    api.post(maps, {"metadata": held})
    answer = api.delete(f"{maps}/first", {"propagationPolicy": "Foreground"})
    assert answer.body["metadata"]["finalizers"] == ["foregroundDeletion"]
    eventually(lambda: "deletionTimestamp" in api.get(f"{maps}/one").body["metadata"])
    assert api.get(f"{maps}/first").code == 200
    api.patch(f"{maps}/one", {"metadata": {"finalizers": None}})
    eventually(gone(api, f"{maps}/first"))


def test_a_propagation_policy_that_is_none_is_refused(api, maps):
    api.post(maps, {"metadata": {"name": "a"}})
    assert api.delete(f"{maps}/a", {"propagationPolicy": "Sideways"}).code in (400, 422)


def test_a_jobs_pods_stay_unless_they_are_to_go(api, namespace, node):
    node()
    pods = core(namespace, "pods")
    for name, how, left in (("bare", None, 1), ("all", {"propagationPolicy": "Background"}, 0)):
        body = a_job(name, {"lab": node.lab})
        assert api.post(jobs(namespace), body).code == 201
        eventually(lambda name=name: api.get(pods, labelSelector=f"job-name={name}").body["items"], "a pod")
        answer = api.delete(f"{jobs(namespace)}/{name}", how)
        assert answer.code == 200
        eventually(gone(api, f"{jobs(namespace)}/{name}"))
        eventually(
            lambda name=name, left=left: (
                len(
                    [
                        each
                        for each in api.get(pods, labelSelector=f"job-name={name}").body["items"]
                        if "ownerReferences" not in each["metadata"]
                    ]
                    if left
                    else api.get(pods, labelSelector=f"job-name={name}").body["items"]
                )
                == left
            ),
            f"{name}: {left} pods left",
        )


def test_a_daemonsets_pods_go_with_it(api, namespace, node):
    node()
    api.post(sets(namespace), a_daemon_set(nodes={"lab": node.lab}))
    pods = core(namespace, "pods")
    eventually(lambda: api.get(pods).body["items"])
    api.delete(f"{sets(namespace)}/d")
    eventually(lambda: not api.get(pods).body["items"], "no pods")


def test_a_pod_on_a_node_is_given_its_grace_period(api, namespace, node):
    name = node()["metadata"]["name"]
    pods = core(namespace, "pods")
    spec = {"nodeName": name, "terminationGracePeriodSeconds": 7, "containers": [{"name": "c", "image": "c:1"}]}
    api.post(pods, {"metadata": {"name": "p", "finalizers": ["example.com/1"]}, "spec": spec})
    eventually(lambda: api.get(f"{pods}/p").body["status"]["phase"] == "Running")
    answer = api.delete(f"{pods}/p")
    assert (answer.code, answer.body["kind"]) == (200, "Pod")
    assert answer.body["metadata"]["deletionGracePeriodSeconds"] == 7
    api.patch(f"{pods}/p", {"metadata": {"finalizers": None}})
    eventually(gone(api, f"{pods}/p"))


def test_a_pod_on_no_node_goes_at_once(api, namespace):
    pods = core(namespace, "pods")
    spec = {"nodeSelector": {"lab": "none"}, "containers": [{"name": "c", "image": "c:1"}]}
    api.post(pods, {"metadata": {"name": "p"}, "spec": spec})
    assert api.delete(f"{pods}/p").body["kind"] == "Pod"
    assert api.get(f"{pods}/p").code == 404


@pytest.fixture
def ending(api, namespace, maps):
    """A namespace that ends, but not before somebody lets it."""
    api.post(maps, {"metadata": {"name": "held", "finalizers": ["example.com/1"]}})
    api.post(maps, {"metadata": {"name": "free"}})
    answer = api.delete(f"/api/v1/namespaces/{namespace}")
    assert (answer.code, answer.body["kind"]) == (200, "Namespace")
    return namespace


def test_a_namespace_takes_all_that_is_in_it_along(api, ending, maps):
    eventually(gone(api, f"{maps}/free"))
    body = api.get(f"/api/v1/namespaces/{ending}").body
    assert body["status"]["phase"] == "Terminating"
    assert body["spec"]["finalizers"] == ["kubernetes"]
    eventually(
        lambda: any(
            each["type"] == "NamespaceContentRemaining"
            and each["status"] == "True"
            and "configmaps." in each["message"]
            for each in api.get(f"/api/v1/namespaces/{ending}").body["status"]["conditions"]
        ),
        "it says what remains",
    )
    api.patch(f"{maps}/held", {"metadata": {"finalizers": None}})
    eventually(gone(api, f"/api/v1/namespaces/{ending}"), "the namespace is gone", within_s=90)


def test_nothing_new_comes_to_a_namespace_that_ends(api, ending, maps):
    answer = api.post(maps, {"metadata": {"name": "late"}})
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert answer.message == (
        f'configmaps "late" is forbidden: unable to create new content in namespace {ending} because it is being '
        "terminated"
    )
    assert answer.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    api.patch(f"{maps}/held", {"metadata": {"finalizers": None}})


def test_a_namespace_waits_for_its_own_finalizers(api):
    made = api.post("/api/v1/namespaces", {"metadata": {"generateName": "t-", "finalizers": ["example.com/1"]}}).body
    path = f"/api/v1/namespaces/{made['metadata']['name']}"
    api.delete(path)
    eventually(lambda: not api.get(path).body["spec"].get("finalizers"), "emptied")
    version = api.get(path).version
    assert api.get(path).body["status"]["phase"] == "Terminating"
    api.patch(path, {"metadata": {"finalizers": None}})
    eventually(gone(api, path))
    assert version


def test_the_default_namespace_stays(api):
    answer = api.delete("/api/v1/namespaces/default")
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert answer.message == 'namespaces "default" is forbidden: this namespace may not be deleted'


def test_a_namespace_is_furnished(api, namespace):
    eventually(lambda: api.get(f"{core(namespace, 'serviceaccounts')}/default").code == 200)
    eventually(lambda: api.get(f"{core(namespace, 'configmaps')}/kube-root-ca.crt").code == 200)
    body = api.get(f"/api/v1/namespaces/{namespace}").body
    assert body["metadata"]["labels"]["kubernetes.io/metadata.name"] == namespace
    assert body["status"] == {"phase": "Active"}
    api.delete(f"{core(namespace, 'serviceaccounts')}/default")
    eventually(lambda: api.get(f"{core(namespace, 'serviceaccounts')}/default").code == 200, "it is made again")
