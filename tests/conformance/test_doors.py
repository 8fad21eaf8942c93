"""Both doors to the suite: who comes in, what is told at the end, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conformance.running import WRONG, conformance

from kmm.conformance import BuilderContract, DriverContract
from kmm.conformance.contract import rules
from kmm.contract import CONTRACT_VERSION
from kmm.embedded.cluster import Cluster

SUBCLASSES = """
import pytest
from kmm.conformance import DriverContract

class TestGood(DriverContract):
    @pytest.fixture
    def plugin(self):
        return "good"

class TestExcused(TestGood):
    @pytest.mark.xfail(reason="no mirror yet")
    def test_the_merged_module_is_valid(self):
        pass
"""


def ask_pytest(folder, *arguments, text=""):
    """Run pytest as a vendor does, in a folder with one file of tests."""
    (folder / "test_it.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={folder}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(WRONG)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_name_that_nobody_has_is_refused_with_those_there_are(tmp_path):
    found = conformance(tmp_path, "kaniiko")
    assert (found.code, found.out) == (2, "")
    assert 'no plugin "kaniiko" is installed; did you mean "kaniko"? (installed: ' in found.err
    for each in ("daemonset", "good", "kaniko"):
        assert f" {each}," in found.err
    assert found.report == {}


def test_another_api_server_judges_and_stores_nothing(tmp_path):
    with Cluster() as cluster:
        found = conformance(
            tmp_path, "good", "--cluster", str(cluster.kubeconfig()), "--pytest=-kserver", beside=(WRONG,)
        )
        assert found.code == 0, found.out + found.err
        made = {each.resource for each in cluster.log if each.verb == "create" and each.code == 201}
        assert made == {"jobs", "daemonsets"}
        for resource in ("Job", "DaemonSet"):
            assert not list(cluster.storage.records(cluster.objects.resource(resource)))
    assert {each["rule"] for each in found.report["claims"]} == {"an_api_server_takes_it"}


def test_without_a_name_pytest_says_what_it_needs(tmp_path):
    run = ask_pytest(tmp_path, "--pyargs", "kmm.conformance")
    assert run.returncode != 0
    assert "--kmm-plugin NAME says which plugin is asked" in run.stdout + run.stderr


def test_a_subclass_is_the_other_door_to_the_same_rules(tmp_path):
    # With a worker: what is told at the end is told by another process than the one that asks.
    run = ask_pytest(tmp_path, "-n1", "--kmm-report=r.json", "test_it.py", text=SUBCLASSES)
    assert run.returncode == 0, run.stdout
    assert f"plugin contract {CONTRACT_VERSION}" in run.stdout
    assert "holds    TestGood, driver: A Module that names the driver, and has a selector, is valid" in run.stdout
    assert "excused  TestExcused, driver: A Module that names the driver" in run.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["contract"] == CONTRACT_VERSION
    claims = {(each["plugin"], each["rule"]): each for each in report["claims"]}
    assert {of: each["result"] for of, each in claims.items()} == {
        ("TestGood", "the_merged_module_is_valid"): "holds",
        ("TestGood", "what_a_user_sets_stands"): "holds",
        ("TestExcused", "the_merged_module_is_valid"): "excused",
        ("TestExcused", "what_a_user_sets_stands"): "holds",
    }
    assert claims["TestExcused", "the_merged_module_is_valid"]["why"] == "no mirror yet"


@pytest.mark.parametrize(
    "instead",
    [
        lambda self: None,
        None,
        pytest.mark.xfail(lambda self: None),
        pytest.mark.skip(reason="later")(lambda self: None),
    ],
    ids=["passes", "none", "xfail without a reason", "skipped"],
)
def test_to_override_a_rule_without_saying_why_is_refused(instead):
    said = "TestGood.test_the_merged_module_is_valid overrides a rule of kmm.conformance"
    with pytest.raises(TypeError, match=said):
        type("TestGood", (DriverContract,), {"test_the_merged_module_is_valid": instead})
    beside = type("Beside", (), {"test_the_merged_module_is_valid": instead})
    with pytest.raises(TypeError, match=said):
        type("TestGood", (beside, DriverContract), {})


def test_a_run_that_asks_nothing_imports_nothing_of_it(tmp_path):
    text = """
import sys

def test_it():
    found = {name for name in sys.modules if name.partition(".")[0] in ("kmm", "hypothesis", "marshmallow")}
    assert found == {"kmm", "kmm.conformance", "kmm.conformance.pytest_plugin"}
"""
    run = ask_pytest(tmp_path, "-p", "no:hypothesispytest", "test_it.py", text=text)
    assert run.returncode == 0, run.stdout
    assert "plugin contract" not in run.stdout


def test_every_rule_says_itself():
    for name, rule in rules(BuilderContract).items():
        assert rule.__doc__, name
        assert rule.__doc__.strip().endswith((".", ".)")), name
