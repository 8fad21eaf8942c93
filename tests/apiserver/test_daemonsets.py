"""DaemonSets put a pod on every node that takes it."""

from __future__ import annotations

import pytest
from apiserver.client import eventually
from apiserver.samples import a_daemon_set, core, owner, sets


@pytest.fixture
def places(api, namespace):
    """Where the pods are that are not on their way out."""

    def look():
        return sorted(
            each["spec"].get("nodeName", "")
            for each in api.get(core(namespace, "pods"), labelSelector="app=d").body["items"]
            if "deletionTimestamp" not in each["metadata"]
        )

    return look


@pytest.fixture
def status(api, namespace):
    return lambda: api.get(f"{sets(namespace)}/d").body["status"]


def name_of(node):
    return node["metadata"]["name"]


def test_it_follows_the_nodes_labels(api, namespace, node, places, status):
    one, two, other = node(role="a"), node(role="a"), node(role="b")
    api.post(sets(namespace), a_daemon_set(nodes={"lab": node.lab, "role": "a"}))
    eventually(lambda: places() == sorted([name_of(one), name_of(two)]))
    eventually(lambda: status().get("numberAvailable") == 2)
    assert status() == {
        "currentNumberScheduled": 2,
        "desiredNumberScheduled": 2,
        "numberAvailable": 2,
        "numberMisscheduled": 0,
        "numberReady": 2,
        "observedGeneration": 1,
        "updatedNumberScheduled": 2,
    }
    api.patch(f"/api/v1/nodes/{name_of(other)}", {"metadata": {"labels": {"role": "a"}}})
    eventually(lambda: len(places()) == 3)
    api.patch(f"/api/v1/nodes/{name_of(one)}", {"metadata": {"labels": {"role": "b"}}})
    eventually(lambda: places() == sorted([name_of(two), name_of(other)]))
    eventually(lambda: (status()["desiredNumberScheduled"], status().get("numberAvailable")) == (2, 2))


def test_a_pod_of_it_says_whose_it_is(api, namespace, node, places):
    name = name_of(node())
    made = api.post(sets(namespace), a_daemon_set(nodes={"lab": node.lab})).body
    eventually(lambda: places() == [name])
    pod = api.get(core(namespace, "pods")).body["items"][0]
    assert pod["metadata"]["ownerReferences"] == [owner(made, controller=True, blockOwnerDeletion=True)]
    assert pod["metadata"]["generateName"] == "d-"
    labels = pod["metadata"]["labels"]
    assert labels["app"] == "d"
    assert labels["pod-template-generation"] == "1"
    assert labels["controller-revision-hash"]
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms["nodeSelectorTerms"] == [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
    ]
    assert [(each["key"], each["effect"]) for each in pod["spec"]["tolerations"]] == [
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ]
    eventually(
        lambda: api.get(f"{core(namespace, 'pods')}/{pod['metadata']['name']}").body["status"]["phase"] == "Running"
    )


def test_taints_keep_it_away_unless_it_tolerates_them(api, namespace, node, places):
    name = name_of(node())
    path = f"/api/v1/nodes/{name}"
    assert api.patch(path, {"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}).code == 200
    api.post(sets(namespace), a_daemon_set(nodes={"lab": node.lab}))
    eventually(lambda: api.get(f"{sets(namespace)}/d").body["status"].get("observedGeneration") == 1)
    assert places() == []
    tolerations = [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}]
    api.patch(f"{sets(namespace)}/d", {"spec": {"template": {"spec": {"tolerations": tolerations}}}})
    eventually(lambda: places() == [name])
    api.patch(path, {"spec": {"taints": [{"key": "other", "effect": "NoSchedule"}]}})
    assert places() == [name], "a taint against scheduling leaves what is there"
    api.patch(path, {"spec": {"taints": [{"key": "other", "effect": "NoExecute"}]}})
    eventually(lambda: places() == [])


def test_a_cordoned_node_keeps_its_pod_and_gets_new_ones(api, namespace, node, places):
    name = name_of(node())
    api.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
    eventually(
        lambda: any(
            each["key"] == "node.kubernetes.io/unschedulable"
            for each in api.get(f"/api/v1/nodes/{name}").body["spec"].get("taints", ())
        )
    )
    api.post(sets(namespace), a_daemon_set(nodes={"lab": node.lab}))
    eventually(lambda: places() == [name])
    api.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": None}})
    eventually(lambda: "taints" not in api.get(f"/api/v1/nodes/{name}").body["spec"])


def test_a_new_template_replaces_pods_one_by_one(api, namespace, node, places, status):
    for _ in range(3):
        node()
    api.post(sets(namespace), a_daemon_set(nodes={"lab": node.lab}))
    eventually(lambda: status().get("numberAvailable") == 3)
    before = {each["metadata"]["uid"] for each in api.get(core(namespace, "pods")).body["items"]}
    hash_before = api.get(core(namespace, "pods")).body["items"][0]["metadata"]["labels"]["controller-revision-hash"]
    start = api.get(core(namespace, "pods")).version
    change = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 5}}}}
    made = api.patch(f"{sets(namespace)}/d", change).body
    assert made["metadata"]["generation"] == 2
    assert made["metadata"]["annotations"]["deprecated.daemonset.template.generation"] == "2"
    eventually(
        lambda: (
            (status()["observedGeneration"], status().get("updatedNumberScheduled"), status().get("numberAvailable"))
            == (2, 3, 3)
        ),
        "all are new",
        within_s=90,
    )
    pods = [
        each for each in api.get(core(namespace, "pods")).body["items"] if "deletionTimestamp" not in each["metadata"]
    ]
    assert len(pods) == 3
    assert not before & {each["metadata"]["uid"] for each in pods}
    assert {each["spec"]["terminationGracePeriodSeconds"] for each in pods} == {5}
    assert hash_before not in {each["metadata"]["labels"]["controller-revision-hash"] for each in pods}
    assert {each["metadata"]["labels"]["pod-template-generation"] for each in pods} == {"2"}
    most = now = 0
    with api.watch(core(namespace, "pods"), resourceVersion=start, timeoutSeconds=1) as events:
        ending: set[str] = set()
        for event in events:
            meta = event["object"]["metadata"]
            if event["type"] != "DELETED" and "deletionTimestamp" in meta:
                ending.add(meta["uid"])
            elif event["type"] == "DELETED":
                ending.discard(meta["uid"])
            now = len(ending)
            most = max(most, now)
    assert most == 1, "maxUnavailable is 1"


def test_a_pod_that_goes_is_made_again(api, namespace, node, places):
    name = name_of(node())
    api.post(sets(namespace), a_daemon_set(nodes={"lab": node.lab}))
    eventually(lambda: places() == [name])
    pod = api.get(core(namespace, "pods")).body["items"][0]["metadata"]
    api.delete(f"{core(namespace, 'pods')}/{pod['name']}", {"gracePeriodSeconds": 0})
    eventually(
        lambda: (
            places() == [name]
            and pod["uid"] not in {each["metadata"]["uid"] for each in api.get(core(namespace, "pods")).body["items"]}
        )
    )


def test_it_says_why_it_cannot_make_pods_and_goes_on_when_it_can(api, namespace, node, places):
    name = name_of(node())
    body = a_daemon_set(nodes={"lab": node.lab})
    body["spec"]["template"]["spec"]["serviceAccountName"] = "late"
    api.post(sets(namespace), body)

    def complaint():
        events = api.get(core(namespace, "events"), fieldSelector="involvedObject.name=d,reason=FailedCreate")
        return [each["message"] for each in events.body["items"]]

    assert 'serviceaccount "late" not found' in eventually(complaint)[0]
    api.post(core(namespace, "serviceaccounts"), {"metadata": {"name": "late"}})
    eventually(lambda: places() == [name], within_s=90)


def test_it_tells_of_its_pods_in_events(api, namespace, node, places):
    node()
    made = api.post(sets(namespace), a_daemon_set(nodes={"lab": node.lab})).body
    selector = f"involvedObject.uid={made['metadata']['uid']},reason=SuccessfulCreate"
    event = eventually(lambda: api.get(core(namespace, "events"), fieldSelector=selector).body["items"])[0]
    pod = api.get(core(namespace, "pods")).body["items"][0]["metadata"]["name"]
    assert (event["type"], event["message"]) == ("Normal", f"Created pod: {pod}")
    assert event["source"]["component"] == "daemonset-controller"
    assert event["involvedObject"]["kind"] == "DaemonSet"


def test_a_node_that_leaves_takes_its_pod_along(api, namespace, node, places, status):
    name = name_of(node())
    api.post(sets(namespace), a_daemon_set(nodes={"lab": node.lab}))
    eventually(lambda: places() == [name])
    api.delete(f"/api/v1/nodes/{name}")
    # The real one collects it after more than a minute: docs/embedded.md.
    eventually(lambda: not api.get(core(namespace, "pods")).body["items"], within_s=180)
    eventually(lambda: status()["desiredNumberScheduled"] == 0)
