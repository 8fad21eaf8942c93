"""kubectl, as built with the control plane, against both servers."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import yaml
from apiserver.client import eventually
from apiserver.samples import a_daemon_set, a_module, core

pytestmark = pytest.mark.e2e


@pytest.fixture
def kubectl(programs, server, definitions, namespace, tmp_path):
    # kubectl remembers discovery by host and port, and ports come again.
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "HOME": str(tmp_path)}

    def run(*arguments, fails=False, stdin=None):
        done = subprocess.run(
            [programs / "kubectl", "-n", namespace, *arguments],
            env=environment, input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    return run


def test_apply_creates_changes_and_leaves_alone(kubectl):
    module = a_module()
    said = kubectl("apply", "-f", "-", stdin=yaml.safe_dump(module))
    assert said == "module.kmm.sigs.x-k8s.io/m created\n"
    assert kubectl("apply", "-f", "-", stdin=yaml.safe_dump(module)) == "module.kmm.sigs.x-k8s.io/m unchanged\n"
    module["spec"]["selector"] = {"c": "d"}
    assert kubectl("apply", "-f", "-", stdin=yaml.safe_dump(module)) == "module.kmm.sigs.x-k8s.io/m configured\n"
    found = json.loads(kubectl("get", "module", "m", "-o", "json"))
    assert found["spec"]["selector"] == {"c": "d"}
    assert found["metadata"]["generation"] == 2


def test_apply_refuses_a_mistake_with_its_path(kubectl):
    module = a_module(selektor={})
    said = kubectl("apply", "-f", "-", stdin=yaml.safe_dump(module), fails=True)
    assert 'unknown field "spec.selektor"' in said
    module = a_module(selector=None)
    said = kubectl("apply", "-f", "-", stdin=yaml.safe_dump(module), fails=True)
    assert "spec.selector: Required value" in said


def test_apply_takes_kubernetes_own_kinds(kubectl):
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "dg=="}},
        a_daemon_set(),
    ]
    said = kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
    assert said == "configmap/c created\nsecret/s created\ndaemonset.apps/d created\n"
    assert kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents)).count("unchanged") == 3


def test_apply_changes_kubernetes_own_kinds_on_the_real_server_alone(kubectl, server):
    """docs/embedded.md: kubectl sends a strategic merge for those."""
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v"}}
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(document))
    document["data"]["k"] = "w"
    said = kubectl("apply", "-f", "-", stdin=yaml.safe_dump(document), fails=server.embedded)
    if server.embedded:
        assert "the embedded API server has no application/strategic-merge-patch+json" in said
    else:
        assert said == "configmap/c configured\n"


def test_apply_of_an_unknown_kind_says_so(kubectl):
    document = {"apiVersion": "nowhere.example.com/v1", "kind": "Thing", "metadata": {"name": "x"}}
    said = kubectl("apply", "-f", "-", stdin=yaml.safe_dump(document), fails=True)
    assert 'no matches for kind "Thing" in version "nowhere.example.com/v1"' in said
    assert "ensure CRDs are installed first" in said


def test_create_sends_what_the_embedded_server_does_not_read(kubectl, server):
    """docs/embedded.md: no protobuf."""
    said = kubectl("create", "configmap", "c", "--from-literal=k=v", fails=server.embedded)
    if server.embedded:
        assert "kubectl create … --dry-run=client -o yaml | kubectl apply -f - does without" in said


def test_get_shows_our_columns(kubectl, api, namespace):
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_module()))
    lines = kubectl("get", "modules").splitlines()
    assert lines[0].split() == ["NAME", "READY", "REASON", "NODES", "DESIRED", "LOADED", "AGE"]
    assert lines[1].split()[0] == "m"
    wide = kubectl("get", "modules", "-o", "wide").splitlines()[0].split()
    assert wide == ["NAME", "READY", "REASON", "NODES", "DESIRED", "LOADED", "DEVICE-PLUGINS", "VERSION", "AGE"]
    assert kubectl("get", "modules", "-A").splitlines()[0].split()[0] == "NAMESPACE"
    assert "No resources found" in kubectl("get", "pfv")
    assert kubectl("get", "modules", "-l", "a=b").startswith("No resources found")
    assert kubectl("get", "module", "nope", fails=True) == (
        'Error from server (NotFound): modules.kmm.sigs.x-k8s.io "nope" not found\n'
    )


def test_get_shows_kubernetes_own_kinds(kubectl, node):
    name = node()["metadata"]["name"]
    assert kubectl("get", "node", name).splitlines()[0].split() == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_daemon_set(nodes={"lab": node.lab})))
    eventually(lambda: "1" in kubectl("get", "ds", "d").splitlines()[1].split()[5])
    lines = kubectl("get", "pods").splitlines()
    assert lines[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert lines[1].split()[1:4] == ["1/1", "Running", "0"]
    for kind in ("events", "cm", "secrets", "sa", "leases", "ns", "crds", "jobs", "all"):
        kubectl("get", kind)


def test_explain_knows_the_deepest_field(kubectl):
    said = kubectl("explain", "module.spec.devicePlugin.container.env.valueFrom")
    assert "KIND:       Module" in said
    assert "FIELD: valueFrom <Object>" in said
    for field in ("configMapKeyRef", "fieldRef", "secretKeyRef"):
        assert field in said
    assert "DESCRIPTION:\n    <empty>" not in kubectl("explain", "module.spec.moduleLoader")
    assert "FIELD: tolerations" in kubectl("explain", "ds.spec.template.spec.tolerations")


def test_describe_shows_events(kubectl, api, namespace):
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_module()))
    module = api.get(f"/apis/kmm.sigs.x-k8s.io/v1beta1/namespaces/{namespace}/modules/m").body
    meta = {key: module["metadata"][key] for key in ("name", "namespace", "uid")}
    event = {
        "metadata": {"name": "m.1"},
        "involvedObject": {"apiVersion": module["apiVersion"], "kind": "Module", **meta},
        "type": "Warning",
        "reason": "BuildFailed",
        "message": "exit code 1",
        "source": {"component": "kmm"},
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
    }
    assert api.post(core(namespace, "events"), event).code == 201
    said = kubectl("describe", "module", "m")
    assert "Name:         m" in said
    line = next(line for line in said.splitlines() if "BuildFailed" in line)
    assert line.split()[:2] == ["Warning", "BuildFailed"]
    assert line.rstrip().endswith("exit code 1")


def test_describe_knows_kubernetes_own_kinds(kubectl, node):
    name = node()["metadata"]["name"]
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_daemon_set(nodes={"lab": node.lab})))
    eventually(lambda: "Running" in kubectl("get", "pods"))
    assert "Kernel Version:" in kubectl("describe", "node", name)
    assert "SuccessfulCreate" in kubectl("describe", "ds", "d")
    assert "Containers:" in kubectl("describe", "pods")


def test_wait_sees_the_condition_come(kubectl, api, namespace):
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_module()))
    said = kubectl("wait", "--for=condition=Ready", "module/m", "--timeout=1s", fails=True)
    assert "timed out waiting for the condition" in said
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Loaded",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    path = f"/apis/kmm.sigs.x-k8s.io/v1beta1/namespaces/{namespace}/modules/m/status"
    assert api.patch(path, {"status": {"conditions": [condition]}}).code == 200
    assert "condition met" in kubectl("wait", "--for=condition=Ready", "module/m", "--timeout=30s")
    assert "deleted" in kubectl("delete", "module", "m")
    kubectl("wait", "--for=delete", "module/m", "--timeout=30s")


def test_delete_waits_for_the_end(kubectl, api, namespace):
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_module()))
    assert kubectl("delete", "module", "m").startswith('module.kmm.sigs.x-k8s.io "m" deleted')
    assert "NotFound" in kubectl("delete", "module", "m", fails=True)
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_module()))
    assert "deleted" in kubectl("delete", "modules", "--all")


def test_label_annotate_and_patch_work(kubectl, node):
    name = node()["metadata"]["name"]
    kubectl("label", "node", name, "x=y")
    kubectl("annotate", "node", name, "x=y")
    assert name in kubectl("get", "nodes", "-l", "x=y")
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump(a_module()))
    kubectl("patch", "module", "m", "--type=merge", "-p", '{"spec":{"selector":{"c":"d"}}}')
    patch = '[{"op":"test","path":"/spec/selector/c","value":"e"}]'
    assert "rejected" in kubectl("patch", "module", "m", "--type=json", "-p", patch, fails=True)


def test_api_resources_lists_our_kinds(kubectl):
    said = kubectl("api-resources", "--api-group=kmm.sigs.x-k8s.io")
    assert "modules" in said
    assert "pfvo" in said


def test_auth_whoami_tells_who_asks(kubectl, server):
    assert server.user in kubectl("auth", "whoami")


def test_the_server_has_a_version(kubectl):
    assert "Server Version: v1.36.3" in kubectl("version")
