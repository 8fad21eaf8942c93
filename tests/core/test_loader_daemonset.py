"""The loader's template is frozen: KMM_WRITE_GOLDEN=1 writes tests/core/golden anew, and that restarts loaders."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kmm.api.module import Module
from kmm.api.schema import load
from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.loader_daemonset import render_loader
from kmm.core.mapping import resolve
from kmm.core.view import Operator, Subject
from kmm.errors import SpecError

GOLDEN = Path(__file__).parent / "golden"
HEAD = """\
# A change of this template restarts loaders: it reloads the driver on every node of a fleet.
# Write it anew with KMM_WRITE_GOLDEN=1, and say "restarts loaders" in CHANGELOG.md.
"""
KERNEL = "6.1.0-18-amd64+"
SPECS: dict[str, dict[str, Any]] = {
    "loader-plain": {},
    "loader-everything": {
        "moduleLoader": {
            "container": {
                "imagePullPolicy": "Always",
                "inTreeModulesToRemove": ["old_a", "old_b"],
                "modprobe": {
                    "moduleName": "acme",
                    "dirName": "/drivers",
                    "firmwarePath": "/firmware",
                    "parameters": ["a=1 b='2 3'", "$(reboot)"],
                    "modulesLoadingOrder": ["acme", "acme_core", "acme_base"],
                },
            }
        }
    },
    "loader-raw-args": {
        "moduleLoader": {
            "container": {
                "modprobe": {"rawArgs": {"load": ["-v -S $(x)", "acme"], "unload": ["-rv", "acme"]}},
            }
        }
    },
    "loader-service-account": {"moduleLoader": {"serviceAccountName": "acme-loader"}},
    "loader-in-operator-namespace": {},
    "loader-tolerations-and-pull-secret": {
        "imageRepoSecret": {"name": "pull"},
        "tolerations": [{"key": "acme", "operator": "Exists", "effect": "NoSchedule"}, {"operator": "Exists"}],
    },
}
NAMESPACES = {"loader-in-operator-namespace": "openshift-kmm"}


class Dumper(yaml.SafeDumper):
    """Scripts as blocks, and nothing by reference."""

    def ignore_aliases(self, data):
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _text)


def check(name: str, rendered: dict[str, Any]) -> None:
    """Compare an object with the frozen one of that name."""
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("KMM_WRITE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEAD + yaml.dump(rendered, Dumper=Dumper, sort_keys=False, width=118))
    assert yaml.safe_load(path.read_text()) == json.loads(json.dumps(rendered))
    assert "restarts loaders" in path.read_text().partition("\n")[0]


def render(spec: dict[str, Any] | None = None, *, namespace="n", kernel=KERNEL, **operator) -> dict[str, Any]:
    """Render the loader of a plain Module with `spec` merged in."""
    manifest: dict[str, Any] = {
        "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
        "kind": "Module",
        "metadata": {"name": "acme", "namespace": namespace},
        "spec": {"selector": {"acme.example.com/card": "yes"}, **copy.deepcopy(spec or {})},
    }
    loader = manifest["spec"].setdefault("moduleLoader", {})
    container = loader.setdefault("container", {})
    container.setdefault("modprobe", {"moduleName": "acme"})
    container.setdefault("kernelMappings", [{"regexp": ".", "containerImage": "r.example.com/acme:$KERNEL_VERSION"}])
    module, findings = load(Module, manifest)
    assert module is not None, findings
    subject = Subject(ref=ModuleRef(namespace=namespace, name="acme"), uid="module-uid", spec=module.spec)
    target = resolve(module.spec.module_loader.container, subject.ref, kernel)
    label = names.kernel_label_values({kernel})[kernel]
    return render_loader(subject, target, label, Operator(**operator))


def pod(*given, **more) -> dict[str, Any]:
    return render(*given, **more)["spec"]["template"]["spec"]


def container(**fields) -> dict[str, Any]:
    return {"moduleLoader": {"container": fields}}


@pytest.mark.parametrize("name", SPECS)
def test_the_template_is_the_frozen_one(name):
    check(name, render(SPECS[name], namespace=NAMESPACES.get(name, "n")))


def test_every_frozen_loader_is_one_that_is_tested():
    assert {path.stem for path in GOLDEN.glob("loader-*.yaml")} == set(SPECS)


def test_rendering_is_pure():
    assert render(SPECS["loader-everything"]) == render(SPECS["loader-everything"])


def test_pods_are_selected_by_module_role_and_kernel():
    made = render()
    labels = {
        "kmm.node.kubernetes.io/module.name": "acme",
        "kmm.node.kubernetes.io/role": "module-loader",
        "kmm.node.kubernetes.io/kernel-version.full": "6.1.0-18-amd64",
    }
    assert made["spec"]["selector"] == {"matchLabels": labels}
    assert made["spec"]["template"]["metadata"]["labels"] == labels


def test_nodes_are_selected_by_the_modules_selector_and_the_kernels_label():
    assert pod()["nodeSelector"] == {
        "acme.example.com/card": "yes",
        "kmm.node.kubernetes.io/kernel-version.full": "6.1.0-18-amd64",
    }


def test_the_container_may_load_modules_and_no_more():
    (made,) = pod()["containers"]
    assert made["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"add": ["SYS_MODULE"]},
        "runAsUser": 0,
        "seLinuxOptions": {"type": "spc_t"},
    }
    assert pod()["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod())


def test_the_container_sleeps_and_loads_and_unloads_in_its_hooks_without_a_shell():
    (made,) = pod()["containers"]
    assert (made["name"], made["command"]) == ("module-loader", ["sleep", "infinity"])
    assert made["lifecycle"] == {
        "postStart": {"exec": {"command": ["modprobe", "-v", "-d", "/opt", "acme"]}},
        "preStop": {"exec": {"command": ["modprobe", "-rv", "-d", "/opt", "acme"]}},
    }
    assert pod()["shareProcessNamespace"] is True
    assert isinstance(pod()["terminationGracePeriodSeconds"], int)
    assert pod()["priorityClassName"] == "system-node-critical"


def test_the_image_is_tag_safe_and_the_modules_folder_verbatim():
    made = pod()
    assert made["containers"][0]["image"] == "r.example.com/acme:6.1.0-18-amd64"
    assert made["volumes"] == [
        {"name": "node-lib-modules", "hostPath": {"path": f"/lib/modules/{KERNEL}", "type": "Directory"}}
    ]
    assert made["containers"][0]["volumeMounts"] == [
        {"name": "node-lib-modules", "mountPath": f"/lib/modules/{KERNEL}", "readOnly": True}
    ]


def test_firmware_is_copied_to_the_hosts_folder():
    made = pod(container(modprobe={"moduleName": "acme", "firmwarePath": "/firmware"}))
    host = {"path": "/var/lib/firmware", "type": "DirectoryOrCreate"}
    volume = next(each for each in made["volumes"] if each["hostPath"] == host)
    mounts = {each["name"]: each for each in made["containers"][0]["volumeMounts"]}
    assert mounts[volume["name"]] == {"name": volume["name"], "mountPath": "/var/lib/firmware"}


def test_the_mappings_in_tree_modules_win():
    mapping = {"regexp": ".", "containerImage": "a", "inTreeModulesToRemove": ["b"]}
    made = pod(container(inTreeModulesToRemove=["a"], kernelMappings=[mapping]))
    script = made["containers"][0]["lifecycle"]["postStart"]["exec"]["command"][-1]
    assert "modprobe -r b " in script
    assert "modprobe -r a " not in script


@pytest.mark.parametrize("most", [1, 5, "10%"])
def test_the_update_strategy_is_explicit_and_from_the_configuration(most):
    assert render(max_unavailable=most)["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": most, "maxSurge": 0},
    }


@pytest.mark.parametrize(
    ("explicit", "namespace", "account"),
    [
        (None, "n", None),
        (None, "openshift-kmm", "kmm-operator-module-loader"),
        ("mine", "n", "mine"),
        ("mine", "openshift-kmm", "mine"),
    ],
)
def test_the_service_account_is_the_explicit_one_else_ours_in_our_namespace_else_none(explicit, namespace, account):
    loader = {"serviceAccountName": explicit} if explicit else {}
    assert pod({"moduleLoader": loader}, namespace=namespace).get("serviceAccountName") == account


def test_the_pull_policy_is_there_only_where_it_is_set():
    assert "imagePullPolicy" not in pod()["containers"][0]
    assert pod(container(imagePullPolicy="Never"))["containers"][0]["imagePullPolicy"] == "Never"


def test_a_module_without_a_loader_is_an_error_of_it():
    subject = Subject(ref=ModuleRef(namespace="n", name="acme"), uid="module-uid")
    with pytest.raises(SpecError, match="moduleLoader"):
        render_loader(subject, None, "x", Operator())
