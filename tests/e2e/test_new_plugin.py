"""What `kmm new-plugin` of the wheels writes, as its own CI judges it: pip, a clean environment, no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kmm.cli.new_plugin import KINDS, package

DIST = Path(__file__).parents[2] / "dist"
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    """Run commands as a vendor does, in an environment that has the operator from the wheels."""
    home = tmp_path_factory.mktemp("vendor")
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("KMM_", "PYTHON", "RUFF_"))
    }
    environment |= {
        "PATH": os.pathsep.join([str(home / "venv/bin"), os.environ["PATH"]]),
        "PIP_FIND_LINKS": f"{DIST} {os.environ.get('PIP_FIND_LINKS', '')}",
        "MYPY_CACHE_DIR": str(home / "mypy"),  # of all kinds
    }

    def run(command, folder=home):
        ran = subprocess.run(
            ["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    run("pip install --quiet 'kmm-operator[conformance]'")
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_its_ci_has_nothing_to_say(kind, vendor, tmp_path):
    vendor(f"kmm new-plugin a-{kind} --kind {kind}", tmp_path)
    folder = tmp_path / f"a-{kind}-kmm"
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == set(package(f"a-{kind}", kind))  # the wheel has all that the checkout has
    steps = yaml.safe_load((folder / ".github/workflows/ci.yml").read_text())["jobs"]["check"]["steps"]
    said = {step["run"]: vendor(step["run"], folder) for step in steps if "run" in step}
    assert "ruff check" in said
    (asked,) = (text for command, text in said.items() if command.startswith("kmm conformance"))
    assert f"holds    a-{kind}, plugin: The operator takes it" in asked
    assert [path.name for path in (folder / "dist").iterdir()] == [
        f"a_{kind.replace('-', '_')}_kmm-0.1.0-py3-none-any.whl"
    ]
