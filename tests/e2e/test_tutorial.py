"""The tutorials, their commands as they are written: the README's on a real control plane, a vendor's with pip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from apiserver.client import Api, eventually
from apiserver.samples import a_node
from controlplane.controlplane import ControlPlane
from document import block, blocks, follow

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
# What `make`, pytest and whoever runs them have set is nothing that a reader has.
NOT_THEIRS = (
    "KMM_",
    "PYTHON",
    "PYTEST_",
    "MAKE",
    "MFLAGS",
    "VIRTUAL_ENV",
    "UV_",
    "MYPY_",
    "RUFF_",
    "RELATED_IMAGES_",
)


def commands():
    """Return the commands of each block that is to be run."""
    blocks = re.findall(r"<!-- run -->\n((?:    .*\n)+)", README.read_text())
    return [[line.strip() for line in block.splitlines()] for block in blocks]


def test_your_first_module(tmp_path, programs):
    (tmp_path / "module.yaml").write_text(block(README, "module.yaml", language="yaml"))
    install, apply = commands()
    assert install[-1].endswith("kmm run")
    with ControlPlane(tmp_path / "plane") as plane:
        api = Api(plane.url, plane.ca_file, plane.admin_token)
        labels = {"node-role.kubernetes.io/worker": ""}
        assert api.post("/api/v1/nodes", a_node("n0", labels, "6.1.0-18-amd64")).code == 201
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), str(programs), os.environ["PATH"]]),
            "KUBECONFIG": str(plane.kubeconfig()),
            # Where the README has its own, another server may listen on this machine.
            "KMM_METRICS_ADDRESS": "127.0.0.1:0",
            "KMM_HEALTH_ADDRESS": "127.0.0.1:0",
        }
        environment.pop("OPERATOR_NAMESPACE", None)

        def run(command):
            ran = subprocess.run(
                ["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180,
                check=False,
            )  # fmt: skip
            assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
            return ran.stdout

        for command in install[:-1]:
            run(command)
        with (tmp_path / "operator.log").open("w") as log:
            operator = subprocess.Popen(
                ["sh", "-c", f"{install[-1].replace('kmm run', 'exec kmm run')}"], cwd=tmp_path, env=environment,
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            eventually(lambda: "successfully acquired lease" in (tmp_path / "operator.log").read_text(), within_s=60)
            said = [run(command) for command in apply]
            assert "drivers/my-driver" in said[-1]
            assert operator.poll() is None
        finally:
            operator.terminate()
            assert operator.wait(20) == 0, (tmp_path / "operator.log").read_text()[-2000:]


def test_a_plugin_from_nothing(tmp_path):
    own = str(Path(sys.executable).parent)
    path = [str(Path(sys.base_prefix) / "bin"), *(each for each in os.environ["PATH"].split(":") if each != own)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_THEIRS)}
    environment |= {"PATH": os.pathsep.join(path), "HOME": str(tmp_path)}
    follow([*blocks(ROOT / "docs/tutorial.md", "tested", "file")], ROOT, environment, timeout_s=1800)
