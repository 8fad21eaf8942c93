from __future__ import annotations

import json

import pytest
from kmm_daemonset import DaemonSet, kmm_device_plugins

from kmm.contract import DevicePluginRequest, ModuleRef, Settings, SettingsError, State

MODULE = ModuleRef(namespace="n", name="m")


def pod(**fields) -> dict:
    request = DevicePluginRequest(module=MODULE, image="registry.example.com/a", **fields)
    (daemon_set,) = DaemonSet().render(request)
    json.dumps(daemon_set)
    assert (daemon_set["apiVersion"], daemon_set["kind"]) == ("apps/v1", "DaemonSet")
    return daemon_set["spec"]["template"]["spec"]


def test_a_bare_request_is_a_privileged_container_with_the_kubelets_sockets():
    assert pod() == {
        "containers": [
            {
                "name": "device-plugin",
                "image": "registry.example.com/a",
                "securityContext": {"privileged": True},
                "volumeMounts": [{"name": "kubelet-device-plugins", "mountPath": "/var/lib/kubelet/device-plugins"}],
            }
        ],
        "priorityClassName": "system-node-critical",
        "volumes": [
            {
                "name": "kubelet-device-plugins",
                "hostPath": {"path": "/var/lib/kubelet/device-plugins", "type": "Directory"},
            }
        ],
    }


def test_the_sockets_come_first_in_volumes_and_last_in_mounts():
    made = pod(volumes=({"name": "v"},), volume_mounts=({"name": "v", "mountPath": "/v"},))
    assert [volume["name"] for volume in made["volumes"]] == ["kubelet-device-plugins", "v"]
    mounts = made["containers"][0]["volumeMounts"]
    assert [mount["name"] for mount in mounts] == ["v", "kubelet-device-plugins"]


def test_everything_that_the_user_sets_is_in_the_pod():
    made = pod(
        command=("c",),
        args=("a",),
        env=({"name": "E"},),
        resources={"limits": {"cpu": 1}},
        image_pull_policy="Always",
        init_container={"image": "i"},
        service_account_name="s",
        pull_secret="p",
        node_selector={"ready": ""},
        tolerations=({"operator": "Exists"},),
    )
    container = made["containers"][0]
    assert (container["command"], container["args"], container["env"]) == (["c"], ["a"], [{"name": "E"}])
    assert (container["resources"], container["imagePullPolicy"]) == ({"limits": {"cpu": 1}}, "Always")
    assert made["initContainers"] == [{"name": "init", "image": "i"}]
    assert made["serviceAccountName"] == "s"
    assert made["imagePullSecrets"] == [{"name": "p"}]
    assert made["nodeSelector"] == {"ready": ""}
    assert made["tolerations"] == [{"operator": "Exists"}]


def test_unknown_params_are_refused_by_name():
    with pytest.raises(ValueError, match=r"takes none, not \['x'\]"):
        pod(params={"x": 1})


def test_it_takes_no_options():
    with pytest.raises(SettingsError, match="unknown option"):
        kmm_device_plugins(Settings(options={"x": 1}))


def test_progress_says_how_many_are_available():
    observe = DaemonSet().observe
    assert observe([], []).state is State.PENDING
    status = {"desiredNumberScheduled": 3, "numberAvailable": 2}
    assert observe([{"status": status}], []).message == "2 of 3 available"
    assert observe([{"status": None}], []).state is State.PENDING
