"""The device plugin runs where the driver is ready: a plugin renders it, and the core trusts it little."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kmm_daemonset import DaemonSet

from kmm.api.module import Module
from kmm.api.schema import load
from kmm.contract import Kind, ModuleRef, Progress, State
from kmm.core.device_plugin import render_device_plugin
from kmm.core.view import Operator, Subject
from kmm.errors import PluginError, SpecError

GOLDEN = Path(__file__).parent / "golden"
HEAD = """\
# A change of this template restarts device plugins (one of a loader-*.yaml restarts loaders) in a whole fleet.
# Write it anew with KMM_WRITE_GOLDEN=1, and say "restarts device plugins" in CHANGELOG.md.
"""
OWNED = Kind(api_version="apps/v1", kind="DaemonSet", plural="daemonsets")
DEPLOYMENT = Kind(api_version="apps/v1", kind="Deployment", plural="deployments")
LABELS = {"kmm.node.kubernetes.io/module.name": "acme", "kmm.node.kubernetes.io/role": "device-plugin"}
SOCKETS = "/var/lib/kubelet/device-plugins"
EVERYTHING = {
    "devicePlugin": {
        "container": {
            "image": "r.example.com/plugin:$MOD_NAME-${MOD_NAMESPACE}",
            "imagePullPolicy": "Always",
            "command": ["/plugin"],
            "args": ["-v"],
            "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "resources": {"limits": {"memory": "64Mi"}},
            "volumeMounts": [{"name": "config", "mountPath": "/config"}],
        },
        "initContainer": {"image": "r.example.com/init", "command": ["/init"]},
        "volumes": [{"name": "config", "configMap": {"name": "config"}}],
        "serviceAccountName": "acme-plugin",
    },
    "imageRepoSecret": {"name": "pull"},
    "tolerations": [{"key": "acme", "operator": "Exists"}],
}
SPECS = {"device-plugin-plain": {}, "device-plugin-everything": EVERYTHING}


class Dumper(yaml.SafeDumper):
    """Nothing by reference."""

    def ignore_aliases(self, data):
        return True


def daemon_set(**fields) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "c"}]}}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": {"template": template}, **fields}


@dataclass(frozen=True)
class Fake:
    """A renderer that makes what it is told to make."""

    makes: Any = None
    name: str = "fake"
    owns: tuple[Kind, ...] = (OWNED,)
    requires: tuple[str, ...] = ()

    def render(self, request):
        if isinstance(self.makes, Exception):
            raise self.makes
        return self.makes

    def observe(self, objects, pods):
        return Progress(state=State.PENDING)


def render(spec=None, *, renderer=None, namespace="n", **operator) -> dict[str, Any]:
    manifest = {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "kind": "Module",
        "metadata": {"name": "acme", "namespace": namespace},
        "spec": {
            "selector": {"acme.example.com/card": "yes"},
            "moduleLoader": {
                "container": {
                    "modprobe": {"moduleName": "acme"},
                    "kernelMappings": [{"regexp": ".", "containerImage": "r.example.com/acme"}],
                }
            },
            "devicePlugin": {"container": {"image": "r.example.com/plugin"}},
            **(spec or {}),
        },
    }
    module, findings = load(Module, manifest)
    assert module is not None, findings
    subject = Subject(ref=ModuleRef(namespace=namespace, name="acme"), uid="module-uid", spec=module.spec)
    return render_device_plugin(subject, renderer or DaemonSet(), Operator(**operator))


def pod(*given, **more) -> dict[str, Any]:
    return render(*given, **more)["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", SPECS)
def test_the_template_is_the_frozen_one(name):
    rendered, path = render(SPECS[name]), GOLDEN / f"{name}.yaml"
    if os.environ.get("KMM_WRITE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEAD + yaml.dump(rendered, Dumper=Dumper, sort_keys=False, width=118))
    assert yaml.safe_load(path.read_text()) == json.loads(json.dumps(rendered))
    assert "restarts loaders" in path.read_text().partition("\n")[0]


def test_every_frozen_device_plugin_is_one_that_is_tested():
    assert {path.stem for path in GOLDEN.glob("device-plugin-*.yaml")} == set(SPECS)


def test_it_runs_only_where_the_loader_is_ready():
    assert pod()["nodeSelector"] == {
        "acme.example.com/card": "yes",
        "kmm.node.kubernetes.io/n.acme.ready": "",
    }


def test_its_pods_are_selected_by_module_and_role():
    made = render()
    assert made["spec"]["selector"] == {"matchLabels": LABELS}
    assert made["spec"]["template"]["metadata"]["labels"] == LABELS
    assert (made["apiVersion"], made["kind"]) == ("apps/v1", "DaemonSet")


def test_it_is_privileged_with_the_kubelets_sockets_first_in_volumes_and_last_in_mounts():
    made = pod(EVERYTHING)
    (container,) = made["containers"]
    assert (container["name"], container["securityContext"]) == ("device-plugin", {"privileged": True})
    assert made["priorityClassName"] == "system-node-critical"
    assert made["volumes"][0]["name"] == "kubelet-device-plugins"
    assert made["volumes"][0]["hostPath"]["path"] == SOCKETS
    assert container["volumeMounts"][-1] == {"name": "kubelet-device-plugins", "mountPath": SOCKETS}
    assert [each["name"] for each in made["volumes"]] == ["kubelet-device-plugins", "config"]


def test_the_image_may_hold_the_modules_names():
    assert pod(EVERYTHING)["containers"][0]["image"] == "r.example.com/plugin:acme-n"


@pytest.mark.parametrize("variable", ["$KERNEL_VERSION", "$KERNEL_XYZ"])
def test_a_kernel_is_not_known_in_its_image(variable):
    assert pod({"devicePlugin": {"container": {"image": f"a{variable}"}}})["containers"][0]["image"] == "a"


@pytest.mark.parametrize(
    ("explicit", "namespace", "account"),
    [
        (None, "n", None),
        (None, "openshift-kmm", "kmm-operator-device-plugin"),
        ("mine", "n", "mine"),
        ("mine", "openshift-kmm", "mine"),
    ],
)
def test_the_service_account_is_the_explicit_one_else_ours_in_our_namespace_else_none(explicit, namespace, account):
    plugin: dict[str, Any] = {"container": {"image": "a"}}
    plugin |= {"serviceAccountName": explicit} if explicit else {}
    assert pod({"devicePlugin": plugin}, namespace=namespace).get("serviceAccountName") == account


@pytest.mark.parametrize("most", [1, "10%"])
def test_the_update_strategy_is_explicit_and_from_the_configuration(most):
    assert render(max_unavailable=most)["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": most, "maxSurge": 0},
    }


def test_what_a_renderer_says_of_labels_is_kept_but_ours_win():
    made = daemon_set()
    made["spec"] = {
        "selector": {"matchLabels": {"own": "selector"}},
        "template": {
            "metadata": {"labels": {"own": "x", **dict.fromkeys(LABELS, "other")}},
            "spec": {"containers": [{}]},
        },
    }
    rendered = render(renderer=Fake([made]))
    assert rendered["spec"]["selector"] == {"matchLabels": LABELS}
    assert rendered["spec"]["template"]["metadata"]["labels"] == {"own": "x", **LABELS}
    assert made["spec"]["selector"] == {"matchLabels": {"own": "selector"}}, "what it made is not changed in place"


@pytest.mark.parametrize(
    ("renderer", "error"),
    [
        (Fake(RuntimeError("boom")), "could not render: RuntimeError: boom"),
        (Fake(KeyError("x" * 9999)), "could not render: KeyError"),
        (Fake([]), "rendered nothing"),
        (Fake(), "rendered nothing"),
        (Fake("text"), "rendered nothing"),
        (Fake(daemon_set()), "rendered nothing"),
        (Fake([daemon_set(metadata={"namespace": "kube-system"})]), "another namespace"),
        (Fake([daemon_set(metadata=["n"])]), "metadata cannot be read"),
        (Fake([daemon_set(kind="Pod")]), "not among the kinds that it owns"),
        (Fake([daemon_set(apiVersion="acme.example.com/v1")]), "not among the kinds that it owns"),
        (Fake([{"kind": "Namespace", "apiVersion": "v1"}]), "not among the kinds that it owns"),
        (Fake([None]), "not among the kinds that it owns"),
        (Fake([daemon_set(kind=["DaemonSet"])]), "not among the kinds that it owns"),
        (Fake([daemon_set(), daemon_set()]), "exactly one DaemonSet"),
        (Fake([daemon_set(kind="Deployment")], owns=(DEPLOYMENT,)), "exactly one DaemonSet"),
        (Fake([daemon_set(spec=None)]), "pod template is none"),
        (Fake([daemon_set(spec={})]), "pod template is none"),
        (Fake([daemon_set(spec={"template": "x"})]), "pod template is none"),
        (Fake([{"apiVersion": "apps/v1", "kind": "DaemonSet"}]), "pod template is none"),
        (Fake([daemon_set(spec={"template": {"metadata": {"labels": "x"}}})]), "pod template is none"),
    ],
)
def test_a_renderer_that_does_what_it_may_not_is_a_plugin_error(renderer, error):
    with pytest.raises(PluginError, match=error) as caught:
        render(renderer=renderer)
    assert '"fake"' in str(caught.value)
    assert len(str(caught.value)) <= 500


def test_params_that_the_renderer_does_not_know_are_a_plugin_error_that_names_them():
    with pytest.raises(PluginError, match=r"takes none, not \['x'\]"):
        render({"devicePlugin": {"container": {"image": "a"}, "params": {"x": 1}}})


def test_the_same_namespace_may_be_named():
    assert render(renderer=Fake([daemon_set(metadata={"namespace": "n"})]))["kind"] == "DaemonSet"


def test_a_module_without_a_device_plugin_is_an_error_of_it():
    with pytest.raises(SpecError, match=r"devicePlugin\.container\.image is missing"):
        render({"devicePlugin": None})
