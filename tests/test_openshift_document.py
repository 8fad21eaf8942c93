"""What docs/openshift.md shows is accepted, and is as the text says; pods are what the constraints admit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import scc
import yaml
from apiserver.client import Api
from scc import PRIVILEGED, RESTRICTED_V2, refusals

from kmm.admission import judge
from kmm.config import Config, PluginsConfig, read_config
from kmm.contract import BuildRequest, ModuleRef, SignRequest
from kmm.core.base_images import uses
from kmm.embedded.cluster import Cluster
from kmm.loader import load_catalog
from kmm.runtime.rbac import ACCOUNTS, OPERATOR

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/openshift.md").read_text(), re.DOTALL)
PARTS = [each for block in BLOCKS for each in yaml.safe_load_all(block)]
MANIFESTS = [each for each in PARTS if "kind" in each]
CONSTRAINTS = {each["metadata"]["name"]: each for each in MANIFESTS if each["kind"] == "SecurityContextConstraints"}
OPTIONS = {name: {"image": "registry.example.com/kmm:1", "runAsUser": None} for name in ("sign-file", "hsm")}
CATALOG = load_catalog(settings_of=Config(plugins=PluginsConfig(options=OPTIONS)).settings_of)
PLAIN = {"ConfigMap": "configmaps", "Secret": "secrets", "ServiceAccount": "serviceaccounts"}
ROLES = {"system:openshift:scc:privileged", "system:image-puller"}


def manifests(*kinds: str) -> list[Any]:
    found = [each for each in MANIFESTS if each["kind"] in kinds]
    return [pytest.param(each, id=f"{each['kind']} {each['metadata']['name']}") for each in found]


def test_every_manifest_is_of_a_kind_that_is_checked_here():
    known = {"Module", "SecurityContextConstraints", "RoleBinding", "ClusterRoleBinding", *PLAIN}
    assert {each["kind"] for each in MANIFESTS} <= known


@pytest.mark.parametrize("manifest", manifests("Module"))
def test_modules_are_valid_with_what_is_installed(manifest):
    assert judge(manifest, CATALOG).findings == ()


def test_kubernetes_own_kinds_are_taken_by_an_api_server():
    with Cluster() as cluster:
        api = Api(cluster.url, cluster.ca_file, cluster.admin_token)
        assert api.post("/api/v1/namespaces", {"metadata": {"name": "drivers"}}).code == 201
        for (manifest,) in [each.values for each in manifests(*PLAIN)]:
            path = f"/api/v1/namespaces/drivers/{PLAIN[manifest['kind']]}"
            answer = api.post(path, manifest, fieldValidation="Strict")
            assert answer.code == 201, answer.body


@pytest.mark.parametrize("manifest", manifests("RoleBinding", "ClusterRoleBinding"))
def test_bindings_give_a_role_of_openshifts_to_an_account_that_is_there(manifest):
    assert manifest["apiVersion"] == "rbac.authorization.k8s.io/v1"
    role = manifest["roleRef"]
    assert (role["apiGroup"], role["kind"]) == ("rbac.authorization.k8s.io", "ClusterRole")
    assert role["name"] in ROLES
    made = {each["metadata"]["name"] for each in MANIFESTS if each["kind"] == "ServiceAccount"}
    assert manifest["subjects"]
    for subject in manifest["subjects"]:
        assert subject["kind"] == "ServiceAccount"
        assert subject["name"] in made | set(ACCOUNTS)
        assert subject["namespace"] == ("openshift-kmm" if subject["name"] in ACCOUNTS else "drivers")
        # A RoleBinding is of its own namespace.
        assert manifest["metadata"].get("namespace", subject["namespace"]) == subject["namespace"]


def test_the_accounts_that_load_drivers_by_default_are_admitted():
    (shown,) = [each for each in MANIFESTS if each["metadata"]["name"] == "kmm-operator-privileged"]
    assert {each["name"] for each in shown["subjects"]} == set(ACCOUNTS) - {OPERATOR}


def test_the_configuration_is_one(tmp_path):
    (shown,) = [each for each in PARTS if "kind" not in each]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(shown))
    config = read_config({}, path)
    (registry,) = config.registries
    (host,) = {host for each in CATALOG.plugins if each.name == "openshift" for host in each.registries[0].hosts[:1]}
    assert registry == f"{host}:5000"
    assert config.registries[registry].denied_means_missing


def test_what_is_named_in_the_modules_is_there():
    files = {each["metadata"]["name"]: each["data"] for each in MANIFESTS if each["kind"] == "ConfigMap"}
    assert uses(files["acme-dockerfile"]["dockerfile"], "DTK_AUTO")
    accounts = {each["metadata"]["name"] for each in MANIFESTS if each["kind"] == "ServiceAccount"}
    for (manifest,) in [each.values for each in manifests("Module")]:
        loader = manifest["spec"]["moduleLoader"]
        assert loader["serviceAccountName"] in accounts
        container = loader["container"]
        for part in (container, *container["kernelMappings"]):
            if "build" in part:
                assert part["build"]["dockerfileConfigMap"]["name"] in files


# ── Pods and constraints ──────────────────────────────────────────────────────────────────────────────────────


def frozen(folder: str) -> list[Any]:
    found = sorted((ROOT / folder).glob("*.yaml"))
    assert found
    return [pytest.param(yaml.safe_load(path.read_text()), id=path.stem) for path in found]


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["template"]["spec"]


@pytest.mark.parametrize("manifest", frozen("tests/core/golden"))
def test_loaders_and_device_plugins_are_admitted_as_privileged_and_not_as_less(manifest):
    assert refusals(pod_of(manifest), PRIVILEGED) == set()
    assert refusals(pod_of(manifest), RESTRICTED_V2) != set()


def request() -> BuildRequest:
    return BuildRequest(
        module=ModuleRef(namespace="n", name="m"),
        kernel="5.14.0",
        architecture="amd64",
        dockerfile="FROM scratch",
        dockerfile_config_map="d",
        dockerfile_key="dockerfile",
        image="registry.example.com/m:1",
        push_secret="push",
    )


def pods(manifests: Any) -> list[dict[str, Any]]:
    return [pod_of(each) for each in manifests if "template" in each["spec"]]


def test_what_builds_on_openshift_is_no_pod_of_ours():
    assert pods(CATALOG.builder("openshift-build").render(request())) == []


def test_buildah_is_admitted_by_the_constraint_that_the_document_shows_and_needs_all_of_it():
    (pod,) = pods(CATALOG.builder("buildah").render(request()))
    shown = CONSTRAINTS["kmm-buildah"]
    assert refusals(pod, shown) == set()
    assert refusals(pod, RESTRICTED_V2) == {
        "allowPrivilegeEscalation",
        "allowedCapabilities: SETGID",
        "allowedCapabilities: SETUID",
        "runAsUser: 1000",
        "seccompProfiles: Unconfined",
    }
    for looser in ({"allowPrivilegeEscalation": False}, {"allowedCapabilities": []}, {"seccompProfiles": []}):
        assert refusals(pod, shown | looser) != set()
    asked = {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}}
    assert set(shown["volumes"]) == asked
    assert shown.keys() - {"apiVersion", "kind", "users", "metadata"} >= RESTRICTED_V2.keys() - {"metadata"}


def test_kanikos_pod_asks_for_nothing_that_is_restricted():
    (pod,) = pods(CATALOG.builder("kaniko").render(request()))
    assert refusals(pod, RESTRICTED_V2) == set()


TOKEN = {"module": "/usr/lib/token.so", "token": "acme", "label": "modules", "pinSecret": "pin"}
"""What the signer of tokens has to be told."""


@pytest.mark.parametrize("name", sorted(CATALOG.signers))
def test_signers_are_admitted_as_restricted(name):
    asked = SignRequest(
        module=ModuleRef(namespace="n", name="m"),
        kernel="5.14.0",
        unsigned_image="registry.example.com/m:u",
        image="registry.example.com/m:1",
        dir_name="/opt",
        key_secret="key",
        cert_secret="cert",
        params=TOKEN if name == "hsm" else {},
    )
    for pod in pods(CATALOG.signer(name).render(asked)):
        assert refusals(pod, RESTRICTED_V2) == set()


@pytest.mark.parametrize(
    ("pod", "refused"),
    [
        ({"hostNetwork": True}, "allowHostNetwork"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volumes: hostPath"),
        ({"containers": [{"securityContext": {"privileged": True}}]}, "allowPrivilegedContainer"),
        ({"securityContext": {"runAsUser": 0}}, "runAsUser: 0"),
        ({"containers": [{"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}]}, "seLinuxContext"),
        (
            {"initContainers": [{"securityContext": {"capabilities": {"add": ["MKNOD"]}}}]},
            "allowedCapabilities: MKNOD",
        ),
    ],
)
def test_the_judgement_itself_sees_what_is_too_much(pod, refused):
    whole = {"containers": [{"name": "c"}], **pod}
    assert scc.refusals(whole, RESTRICTED_V2) == {refused}
    assert scc.refusals(whole, PRIVILEGED) == set()
