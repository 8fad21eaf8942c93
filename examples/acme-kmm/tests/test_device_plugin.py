from __future__ import annotations

from typing import Any

import pytest
from kmm.contract import DevicePluginRequest, ModuleRef, State

from acme_kmm.device_plugin import AcmeDevicePlugin

IMAGE = "registry.acme.example/drivers/acme-device-plugin:2.4.1"
MODULE = ModuleRef(namespace="drivers", name="acme")


def pod(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 -- the request's fields
    (made,) = AcmeDevicePlugin().render(DevicePluginRequest(module=MODULE, image=IMAGE, **fields))
    found: dict[str, Any] = made["spec"]["template"]["spec"]
    return found


def container(**fields: Any) -> dict[str, Any]:  # noqa: ANN401 -- likewise
    (found,) = pod(**fields)["containers"]
    return dict(found)


def test_it_has_the_kubelets_sockets_and_folders_of_its_own() -> None:
    volumes = {each["name"]: each for each in pod()["volumes"]}
    mounts = {each["name"]: each["mountPath"] for each in container()["volumeMounts"]}
    assert volumes.keys() == mounts.keys() == {"acme-sockets", "acme-state", "acme-run"}
    assert volumes["acme-sockets"]["hostPath"]["path"] == mounts["acme-sockets"] == "/var/lib/kubelet/device-plugins"


def test_it_is_asked_how_it_is_where_it_answers() -> None:
    made = container(params={"healthPort": 9000})
    assert made["ports"] == [{"name": "health", "containerPort": 9000}]
    assert {"name": "ACME_HEALTH_PORT", "value": "9000"} in made["env"]
    asked = {name: made[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {
        "startupProbe": {"path": "/healthz", "port": "health"},
        "livenessProbe": {"path": "/healthz", "port": "health"},
        "readinessProbe": {"path": "/readyz", "port": "health"},
    }


def test_what_a_user_gives_of_the_same_name_replaces_ours() -> None:
    claim = {"name": "acme-state", "persistentVolumeClaim": {"claimName": "acme"}}
    made = pod(volumes=(claim,))
    assert [each["name"] for each in made["volumes"]] == ["acme-sockets", "acme-run", "acme-state"]
    assert made["volumes"][-1] == claim
    own = {"name": "ACME_HEALTH_PORT", "value": "1"}
    assert [each for each in container(env=(own,))["env"] if each["name"] == own["name"]] == [own]
    mount = {"name": "acme-state", "mountPath": "/run/acme"}
    assert container(volume_mounts=(mount,))["volumeMounts"][-1] == mount
    assert len(container(volume_mounts=(mount,))["volumeMounts"]) == 3


def test_everything_else_that_a_user_sets_is_in_the_pod() -> None:
    fields: dict[str, Any] = {"tolerations": ({"operator": "Exists"},), "node_selector": {"ready": ""}}
    made = pod(**fields, pull_secret="pull", service_account_name="acme", init_container={"image": "i"})  # noqa: S106
    assert made["tolerations"] == [{"operator": "Exists"}]
    assert made["nodeSelector"] == {"ready": ""}
    assert made["imagePullSecrets"] == [{"name": "pull"}]
    assert made["serviceAccountName"] == "acme"
    assert made["initContainers"] == [{"name": "init", "image": "i"}]
    limits = {"limits": {"memory": "64Mi"}}
    ran = container(command=("c",), args=("a",), resources=limits, image_pull_policy="Always")
    assert (ran["command"], ran["args"], ran["resources"], ran["imagePullPolicy"]) == (["c"], ["a"], limits, "Always")


def test_parameters_that_it_does_not_know_are_refused_by_name() -> None:
    told = 'devicePlugin.params.healthport: is unknown to the renderer acme; did you mean "healthPort"?'
    with pytest.raises(ValueError, match=told.replace("?", r"\?")):
        pod(params={"healthport": 9000})


def test_progress_says_on_how_many_nodes_it_runs() -> None:
    observe = AcmeDevicePlugin().observe
    assert observe([], []).state is State.PENDING
    assert (
        observe([{"status": {"desiredNumberScheduled": 3, "numberAvailable": 2}}], []).message == "2 of 3 available"
    )
