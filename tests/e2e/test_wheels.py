"""The wheels as a stranger uses them: pip only, a clean environment, nothing of this checkout on the path."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from document import block, blocks

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A clean virtual environment with `kmm-operator[standard]` from the wheels."""
    home = tmp_path_factory.mktemp("stranger")
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    pip = [home / "venv/bin/pip", "install", "--quiet", "--find-links", DIST]
    subprocess.run([*pip, "kmm-operator[standard]"], check=True, cwd=home)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KMM_", "PYTHON"))}

    def run(*command: object, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(home / "venv/bin" / str(command[0])), *map(str, command[1:])],
            cwd=home,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_wheels_hold_the_packages_and_nothing_else():
    wheels = {path.name.split("-")[0]: path for path in DIST.glob("*.whl")}
    assert {"kmm_operator", "kmm_daemonset"} <= wheels.keys()
    for name, path in wheels.items():
        tops = {entry.split("/")[0] for entry in zipfile.ZipFile(path).namelist()}
        package = "kmm" if name == "kmm_operator" else name
        assert {top for top in tops if not top.endswith(".dist-info")} == {package}
        assert f"{package}/py.typed" in zipfile.ZipFile(path).namelist()


def test_pip_alone_installs_a_working_command(stranger):
    ran = stranger("kmm", "plugins")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "device-plugin renderer daemonset" in ran.stdout
    assert "builder buildah" in ran.stdout


def test_the_examples_are_valid_there_and_the_definitions_are_printed(stranger):
    ran = stranger("kmm", "validate", *sorted((ROOT / "examples").glob("*.yaml")))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert stranger("kmm", "crds", "-o", "json").stdout.count('"CustomResourceDefinition"') == 4


def test_the_plugin_of_the_documentation_works_as_it_stands_there(stranger, tmp_path):
    for each in blocks(ROOT / "docs/plugins.md", "file"):
        (tmp_path / each.of).write_text(each.body)
    printed = block(ROOT / "docs/plugins.md", "prints", language="")
    assert stranger("pip", "install", "--quiet", "--find-links", DIST, tmp_path).returncode == 0
    refused = stranger("kmm", "plugins")
    assert refused.returncode == 1
    assert "refused: NotAllowed" in refused.stdout
    allowed = stranger("kmm", "plugins", KMM_PLUGINS_ALLOW="acme-kmm")
    assert allowed.returncode == 0, allowed.stdout
    assert printed in allowed.stdout
    module = tmp_path / "module.yaml"
    assert stranger("kmm", "validate", module, KMM_PLUGINS_ALLOW="acme-kmm").stdout.endswith(
        "Module drivers/nic: valid\n"
    )
    module.write_text(module.read_text().replace("{vendor: acme}", "{}"))
    wrong = stranger("kmm", "validate", module, KMM_PLUGINS_ALLOW="acme-kmm")
    assert wrong.returncode == 1
    assert "spec.selector: must have the label vendor" in wrong.stdout


def test_the_vendor_of_the_type_tests_is_a_working_plugin_too(stranger, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        (ROOT / "docs/plugins.md").read_text().split("```toml\n")[1].split("```")[0].replace("acme", "typed")
    )
    (tmp_path / "typed_kmm.py").write_text((ROOT / "tests/typing/vendor.py").read_text())
    assert stranger("pip", "install", "--quiet", "--find-links", DIST, tmp_path).returncode == 0
    allowed = stranger("kmm", "plugins", KMM_PLUGINS_ALLOW="*")
    assert "typed (typed-kmm 2.0)\n  registry acme for *.acme.example\n  builder acme (makes Job)" in allowed.stdout


@pytest.fixture
def acme(stranger, tmp_path):
    """The example for vendors, away from here: its wheel is built by pip, and installed beside the operator's."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    source = shutil.copytree(ROOT / "examples/acme-kmm", tmp_path / "acme-kmm", ignore=ignored)
    built = stranger("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    installed = stranger("pip", "install", "--quiet", "--find-links", DIST, f"{wheel}[test]")
    assert installed.returncode == 0, installed.stderr
    yield source
    stranger("pip", "uninstall", "--quiet", "--yes", "acme-kmm")


def test_the_example_for_vendors_holds_what_it_should_and_a_module_of_it_is_short(stranger, acme):
    (wheel,) = acme.parent.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"acme_kmm", wheel.name.replace("-py3-none-any.whl", ".dist-info")}
    assert {"acme_kmm/py.typed", "acme_kmm/device_plugin.py"} <= names
    ran = stranger("kmm", "validate", acme / "module.yaml", KMM_PLUGINS_ALLOW="acme-kmm")
    assert ran.stdout.endswith("Module drivers/acme: valid\n"), ran.stdout


def test_the_example_for_vendors_passes_its_own_tests_and_through_both_doors_of_the_suite(stranger, acme):
    own = stranger("pytest", "-p", "no:cacheprovider", acme)
    assert own.returncode == 0, own.stdout
    assert "holds    TestDevicePlugin, device-plugin renderer: " in own.stdout
    report = acme / "report.json"
    asked = stranger("kmm", "conformance", "acme", "--report", report)
    assert asked.returncode == 0, asked.stdout
    claims = json.loads(report.read_text())["claims"]
    nouns = {"plugin", "driver acme", "device-plugin renderer acme", "validation", "observation"}
    assert {each["of"] for each in claims} == nouns
    # What it renders does not end, and so does not fail.
    assert {each["rule"] for each in claims if each["result"] != "holds"} == {"a_failure_says_why"}
    assert {each["result"] for each in claims} == {"holds", "unjudged"}
    ask = ("pytest", "-p", "no:cacheprovider", "--pyargs", "kmm.conformance", "--kmm-plugin", "acme")
    door = stranger(*ask, "-kDriver")  # the rest is as through the other one
    assert door.returncode == 0, door.stdout
    assert "holds    acme, driver acme: " in door.stdout
