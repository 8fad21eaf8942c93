"""Labels that share where their keys are kept."""

from __future__ import annotations

import json

from kmm.core.placement import Node
from kmm.runtime.kinds import read_node, read_pod, trim_node, trim_pod
from kmm.runtime.labels import Labels


def test_they_are_as_the_dictionary_that_they_are_made_of():
    said = {"a": "1", "b": "2"}
    labels = Labels(said)
    assert dict(labels) == said
    assert labels == said
    assert said == labels
    assert labels == Labels(said)
    assert labels == Labels({"b": "2", "a": "1"})
    assert labels != Labels({"a": "1", "b": "3"})
    assert labels != Labels({"a": "1"})
    assert labels["b"] == "2"
    assert labels.get("b") == "2"
    assert labels.get("c") is None
    assert labels.get("c", "d") == "d"
    assert "a" in labels
    assert "c" not in labels
    assert len(labels) == 2
    assert repr(labels) == repr(said)


def test_of_a_node_only_what_is_used_is_read():
    body = {
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}, "managedFields": [{}]},
        "spec": {"podCIDR": "x", "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {
            "images": [{"names": ["large"]}],
            "conditions": [{"type": "Ready", "status": "True", "message": "m"}],
            "nodeInfo": {"kernelVersion": "6.1", "architecture": "amd64", "osImage": "Debian", "bootID": "b"},
        },
    }
    read = read_node(json.dumps(body).encode())
    assert read["status"].keys() == {"conditions", "nodeInfo"}
    assert "managedFields" not in read["metadata"]
    node = trim_node(read)
    assert node == trim_node(body)
    assert isinstance(node, Node)
    assert (node.kernel, node.architecture, node.os_image, node.ready) == ("6.1", "amd64", "Debian", True)


def test_what_is_null_of_a_node_is_not_there():
    body = {"metadata": {"name": "n", "labels": None}, "spec": {"taints": None}, "status": {"conditions": None}}
    assert trim_node(read_node(json.dumps(body).encode())).labels == {}


def test_of_a_pod_nothing_is_lost_that_is_used():
    body = {
        "metadata": {
            "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "finalizers": ["f"],
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kmm.node.kubernetes.io/role": "module-loader", "kmm.node.kubernetes.io/module.name": "m"},
            "ownerReferences": [{"uid": "o", "controller": True}],
        },
        "spec": {"nodeName": "n1", "volumes": [{"name": "v"}], "readinessGates": [{"conditionType": "t"}]},
        "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "why"}}}]},
    }  # fmt: skip
    read = read_pod(json.dumps(body).encode())
    assert read["spec"].keys() == {"nodeName", "readinessGates"}
    assert trim_pod(read) == trim_pod(body)
    assert trim_pod(read).waiting_reason == "ErrImagePull"
