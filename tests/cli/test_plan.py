"""`kmm plan` as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"


def kmm(*arguments, stdin: bytes = b""):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KMM_")}
    run = subprocess.run(
        [sys.executable, "-c", "from kmm.cli import main; main()", "plan", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env=environment,
        check=False,
        timeout=120,
    )
    assert b"Traceback" not in run.stderr, run.stderr.decode()
    return run.returncode, run.stdout.decode(), run.stderr.decode()


def node(name, kernel, labels=None, taints=()):
    labels = {"node-role.kubernetes.io/worker": ""} if labels is None else labels
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": list(taints)},
        "status": {"nodeInfo": {"kernelVersion": kernel, "architecture": "amd64"}},
    }


@pytest.fixture
def nodes(tmp_path):
    path = tmp_path / "nodes.json"
    taint = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
    listed = [
        node("a", "6.1.0-18-amd64"),
        node("b", "6.1.0-20-amd64"),
        node("c", "6.1.0-20-amd64"),
        node("d", "5.10"),
        node("e", "6.1.0-18-amd64", labels={}),
        node("f", "6.1.0-18-amd64", taints=[taint]),
    ]
    path.write_text(json.dumps({"apiVersion": "v1", "items": listed, "kind": "List"}, indent=4))
    return path


def test_the_table_says_what_is_created_where_and_why_not_elsewhere(nodes):
    code, out, err = kmm("-f", EXAMPLES / "prebuilt.yaml", "--nodes", nodes)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "Module drivers/kmm-ci-a"
    assert lines[2] == (
        "5.10 1 nothing NoMapping: no kernel mapping fits the kernel 5.10, which 1 targeted node runs"
    )
    assert lines[3].startswith("6.1.0-18-amd64 1 DaemonSet kmm-ci-a-")
    assert lines[3].endswith("loads registry.example.com/drivers/kmm-ci-a:debian-6.1.0-18")
    assert lines[4].startswith("6.1.0-20-amd64 2 DaemonSet kmm-ci-a-")
    assert 'not for 1 node without the label "node-role.kubernetes.io/worker"' in lines
    assert 'not for 1 node with the taint "dedicated=x:NoSchedule", which is not tolerated' in lines
    assert any("the Namespace drivers is not in the files: privileged pods are assumed" in line for line in lines)


def test_json_is_one_list_and_yaml_the_same_objects(nodes):
    from_json = json.loads(kmm("-f", EXAMPLES / "prebuilt.yaml", "--nodes", nodes, "-o", "json")[1])
    assert (from_json["apiVersion"], from_json["kind"]) == ("v1", "List")
    assert [each["kind"] for each in from_json["items"]] == ["DaemonSet", "DaemonSet"]
    code, out, err = kmm("-f", EXAMPLES / "prebuilt.yaml", "--nodes", nodes, "-o", "yaml")
    assert list(yaml.safe_load_all(out)) == from_json["items"]
    assert code == 0
    assert "privileged pods are assumed" in err, "what was assumed is said where the output is for programs"


def test_nodes_may_be_yaml_too_and_come_from_standard_input(nodes):
    listed = yaml.safe_dump(json.loads(nodes.read_text())).encode()
    assert kmm("-f", EXAMPLES / "prebuilt.yaml", "--nodes", "-", stdin=listed) == kmm(
        "-f", EXAMPLES / "prebuilt.yaml", "--nodes", nodes
    )


def test_without_nodes_literal_kernels_are_imagined():
    _, out, _ = kmm("-f", EXAMPLES / "prebuilt.yaml")
    assert "6.1.0-18-amd64" in out
    assert "no --nodes: planned for one imagined node" in out


def test_a_namespace_that_is_not_privileged_stops_the_plan_and_says_what_to_do(nodes, tmp_path):
    namespace = tmp_path / "namespace.yaml"
    namespace.write_text("{apiVersion: v1, kind: Namespace, metadata: {name: drivers}}")
    _, out, _ = kmm("-f", EXAMPLES / "prebuilt.yaml", "-f", namespace, "--nodes", nodes)
    assert "nothing is done: NamespaceNotPrivileged: privileged pods are not allowed in drivers: label it" in out
    namespace.write_text(
        "{apiVersion: v1, kind: Namespace, metadata: {name: drivers, labels: "
        "{pod-security.kubernetes.io/enforce: privileged}}}"
    )
    _, out, _ = kmm("-f", EXAMPLES / "prebuilt.yaml", "-f", namespace, "--nodes", nodes)
    assert "DaemonSet kmm-ci-a-" in out
    assert "assumed" not in out


def test_images_that_exist_need_no_build_and_those_that_do_not_are_built(nodes, tmp_path):
    secrets = tmp_path / "secrets.yaml"
    secrets.write_text(
        "\n---\n".join(
            f"{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: drivers}}, data: {{a: Yg==}}}}"
            for name in ("source-credentials", "registry-credentials")
        )
    )
    images = tmp_path / "images.txt"
    images.write_text("registry.example.com/drivers/kmm-ci-a:6.1.0-18-amd64\n")
    arguments = ("-f", EXAMPLES / "build.yaml", "-f", secrets, "--nodes", nodes, "--images", images)
    lines = [" ".join(line.split()) for line in kmm(*arguments)[1].splitlines()]
    assert lines[3].startswith("6.1.0-18-amd64 1 DaemonSet")
    assert re.fullmatch(r"6\.1\.0-20-amd64 2 Job kmm-ci-a-build-\w{10} Building", lines[4])
    assert re.search(r"note: nobody names a builder: \w+ builds, but openshift-build in clusters", "\n".join(lines))
    without = kmm("-f", EXAMPLES / "build.yaml", "--nodes", nodes)[1]
    assert 'InputMissing: the Secret "source-credentials" does not exist' in without
    assert "what a Module refers to is looked for in the files of -f alone" in without


def test_a_wrong_module_is_told_and_the_others_are_planned(nodes, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        (EXAMPLES / "prebuilt.yaml")
        .read_text()
        .replace("moduleName: kmm_ci_a", "moduleName: -x")
        .replace("kmm-ci-a\n", "wrong\n")
    )
    code, out, err = kmm("-f", wrong, "-f", EXAMPLES / "firmware.yaml", "--nodes", nodes)
    assert code == 1
    assert f"{wrong}: Module drivers/wrong: spec.moduleLoader.container.modprobe.moduleName" in err
    assert "DaemonSet" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ('{"items": [{"kind": "Pod"}]}', "item 1 is no Node"),
        ('{"items": [{"kind": "Node"}]}', "item 1 has no metadata.name or no status.nodeInfo.kernelVersion"),
        ('{"items": [{"kind": "Node", ', "breaks off"),
        ('{"items": [' + "[" * 100_000, "nested"),
        ('{"items": [\x00]}', "no JSON"),
        ("a: [", "is not YAML"),
    ],
)
def test_nodes_that_cannot_be_read_are_one_line_and_exit_code_2(tmp_path, text, said):
    path = tmp_path / "nodes.json"
    path.write_text(text)
    code, out, err = kmm("-f", EXAMPLES / "prebuilt.yaml", "--nodes", path)
    assert (code, out) == (2, "")
    assert err.startswith(f"kmm: {path}: ")
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-f", "none.yaml"), "none.yaml: cannot be read: No such file or directory"),
        (("-f", EXAMPLES / "prebuilt.yaml", "-o", "xml"), 'output "xml" is unknown'),
        (("-f", EXAMPLES / "prebuilt.yaml", "--nodes", "none"), "none: cannot be read"),
        (
            ("-f", EXAMPLES / "prebuilt.yaml", "-f", EXAMPLES / "build.yaml"),
            "Module drivers/kmm-ci-a is there a second",
        ),
        (("-f", "-", "--nodes", "-"), "standard input (-) can be read only once"),
        (("-f", EXAMPLES / "prebuilt.yaml", "--images", "/"), "/: cannot be read: Is a directory"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, said):
    code, _, err = kmm(*arguments)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_several_files_may_follow_one_option():
    apart = kmm("-f", EXAMPLES / "prebuilt.yaml", "-f", EXAMPLES / "preflight.yaml")
    assert kmm("-f", EXAMPLES / "prebuilt.yaml", EXAMPLES / "preflight.yaml") == apart


def test_a_hub_module_is_not_planned():
    code, _, err = kmm("-f", EXAMPLES / "hub.yaml")
    assert code == 0
    assert "ManagedClusterModule kmm-ci-a: only Modules are planned" in err


def test_five_thousand_nodes_of_realistic_size_are_streamed(tmp_path):
    """The issue's bound is 300 MB; each node is of 11 kB, as kubectl prints it."""
    path = tmp_path / "nodes.json"
    with path.open("w") as stream:
        stream.write('{\n    "apiVersion": "v1",\n    "items": [\n')
        for index in range(5000):
            item = node(f"node-{index}", f"6.1.0-{index % 6}-amd64")
            item["metadata"]["annotations"] = {"padding": "x" * 3000}
            item["status"]["images"] = [{"names": ["y" * 200], "sizeBytes": 1}] * 30
            stream.write(json.dumps(item, indent=4) + (",\n" if index < 4999 else "\n"))
        stream.write('    ],\n    "kind": "List"\n}\n')
    assert path.stat().st_size > 5000 * 11_000
    script = (
        "import sys; from kmm.cli import main\n"
        "try: main()\n"
        "finally: print(*[l.split()[1] for l in open('/proc/self/status') if 'VmHWM' in l], file=sys.stderr)"
    )
    arguments = ["plan", "-f", str(EXAMPLES / "prebuilt.yaml"), "--nodes", str(path)]
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True, timeout=300
    )
    assert run.stdout.count("DaemonSet kmm-ci-a-") == 6
    assert int(run.stderr) < 300 * 1024


DTK = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: d, namespace: drivers}
data: {dockerfile: "ARG DTK_AUTO\\nFROM ${DTK_AUTO}"}
---
apiVersion: kmm.sigs.x-k8s.io/v1beta1
kind: Module
metadata: {name: m, namespace: drivers}
spec:
  selector: {}
  moduleLoader:
    container:
      modprobe: {moduleName: m}
      kernelMappings:
        - regexp: .
          containerImage: registry.example.com/m:${KERNEL_FULL_VERSION}
          build: {builder: openshift-build, dockerfileConfigMap: {name: d}}
"""
STREAM = """\
---
apiVersion: image.openshift.io/v1
kind: ImageStream
metadata: {name: driver-toolkit, namespace: openshift}
spec:
  tags:
    - name: 416.94.1-0
      from: {kind: DockerImage, name: "quay.io/toolkit:416"}
"""


@pytest.mark.parametrize(
    ("os_image", "stream", "said"),
    [
        ("Red Hat Enterprise Linux CoreOS 416.94.1-0", STREAM, "value: quay.io/toolkit:416"),
        ("Red Hat Enterprise Linux CoreOS 417.94.2-0", STREAM, "no image for 417.94.2-0"),
        ("Red Hat Enterprise Linux 9.4 (Plow)", STREAM, "no image for the kernel 5.14.0"),
        ("Red Hat Enterprise Linux CoreOS 416.94.1-0", "", "openshift/driver-toolkit is not in the files"),
    ],
)
def test_base_images_are_those_of_the_list_in_the_files(tmp_path, os_image, stream, said):
    (tmp_path / "m.yaml").write_text(DTK + stream)
    found = node("a", "5.14.0")
    found["status"]["nodeInfo"]["osImage"] = os_image
    (tmp_path / "nodes.json").write_text(json.dumps(found))
    code, out, _ = kmm("-f", tmp_path / "m.yaml", "--nodes", tmp_path / "nodes.json", "--output", "yaml")
    table = kmm("-f", tmp_path / "m.yaml", "--nodes", tmp_path / "nodes.json")[1]
    assert code == 0
    assert said in out + " ".join(table.split())
