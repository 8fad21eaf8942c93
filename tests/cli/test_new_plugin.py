"""`kmm new-plugin`: what it writes works as it stands, and it harms nothing that is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conformance.running import conformance
from vendor import install, write

from kmm.api.manifest import documents
from kmm.cli.new_plugin import KINDS, package
from kmm.loader import OWN_DISTRIBUTIONS

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LONGEST = "a" * 63
_ENDLESS = ("a-device-plugin", "a_failure_says_why")


def run(folder, *command, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in ("RUFF_CACHE_DIR", "PYTHONPATH")}
    ran = subprocess.run(
        [str(BIN / command[0]), *map(str, command[1:])], cwd=folder, env=environment | variables, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder with a package of each kind, `a-<kind>`, and the folder `site`, into which they are installed."""
    folder = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        install(write(folder / kind, f"a-{kind}", kind), folder / "site")
    return folder


# ── What is written ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["a", "acme", LONGEST])
@pytest.mark.parametrize("kind", KINDS)
def test_ruff_has_nothing_to_say_however_long_the_name_is(kind, name, tmp_path):
    write(tmp_path, name, kind)
    run(tmp_path, "ruff", "check")
    run(tmp_path, "ruff", "format", "--check", "--diff")


def test_strict_mypy_has_nothing_to_say(packages):
    files = [path for kind in KINDS for path in (packages / kind).glob("*/*.py")]
    assert len(files) == 2 * len(KINDS)
    settings = tomllib.loads((packages / "driver/pyproject.toml").read_text())["tool"]["mypy"]
    assert settings.pop("strict")
    assert list(settings) == ["files"]
    run(packages, "mypy", "--strict", "--cache-dir", ROOT / ".cache/mypy-of-new-plugins", *files)


def test_each_keeps_the_contract(packages, tmp_path):
    names = [f"a-{kind}" for kind in KINDS]
    found = conformance(
        tmp_path, *names, "--config", packages / "registry/conformance.yaml", beside=[packages / "site"]
    )
    assert found.code == 0, found.out + found.err
    # No object lists the images of its own, the signer works where the Module is, and what a device plugin's renderer
    # makes does not end, and so does not fail.
    others = ("its_list_can_be_followed", "where_it_works_is_said_as_it_is_done")
    claims = [
        each
        for each in found.report["claims"]
        if each["rule"] not in others and (each["plugin"], each["rule"]) != _ENDLESS
    ]
    assert {(each["plugin"], each["result"]) for each in claims} == {(each, "holds") for each in names}
    nouns = {each["of"].partition(" a-")[0] for each in found.report["claims"]}
    of_offers = {"builder", "signer", "registry", "device-plugin renderer", "driver", "base images"}
    assert nouns == {"plugin", "validation", *of_offers}


@pytest.mark.parametrize("kind", ["driver"])  # of the others: `make e2e`
def test_its_own_tests_hold_it_to_the_contract_too(kind, packages):
    report = run(packages / kind, "pytest", "-q", "-p", "no:cacheprovider", PYTHONPATH=str(packages / "site"))
    assert "holds    TestPlugin, plugin: The operator takes it" in report
    assert f"holds    Test{kind.capitalize()}, {kind}: " in report


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_template_is_left(kind):
    for path, text in package("my-nic-2", kind).items():
        assert not re.search(r"acme|Acme|@\w+@", path + text), path


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_it_is_in_the_files_around_it(kind):
    made = package("my-nic-2", kind)
    project = tomllib.loads(made["pyproject.toml"])
    assert project["project"]["name"] == "my-nic-2-kmm"
    assert project["project"]["entry-points"] == {"kmm.v1": {"my-nic-2": "my_nic_2_kmm"}}
    assert made["my_nic_2_kmm/py.typed"] == ""
    steps = [each["run"] for each in yaml.safe_load(made[".github/workflows/ci.yml"])["jobs"]["check"]["steps"][2:]]
    for command in steps[:-1]:
        assert command in made["README.md"]
    assert any(each.startswith("kmm conformance my-nic-2") for each in steps)
    for block in re.findall(r"```yaml\n(.*?)```", made["README.md"], re.DOTALL):
        assert documents(block.encode())


@pytest.mark.parametrize("name", ["class", "json", "none", "a1", "x"])
def test_words_of_python_and_names_of_its_modules_do_no_harm(name, tmp_path):
    write(tmp_path, name, "builder")
    hook = f"import {name}_kmm as it; from kmm.contract import Settings; print(it.kmm_builders(Settings())[0].name)"
    assert run(tmp_path, "python", "-c", hook) == f"{name}\n"


# ── The command ───────────────────────────────────────────────────────────────────────────────────────────────


def test_it_says_what_it_wrote_and_what_to_do_next(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = here("new-plugin", "acme", "--kind", "driver")
    assert (code, err) == (0, "")
    assert out == (
        "acme-kmm: a driver\n"
        "  .github/workflows/ci.yml\n"
        "  .gitignore\n"
        "  README.md\n"
        "  acme_kmm/__init__.py  <- the plugin\n"
        "  acme_kmm/py.typed\n"
        "  pyproject.toml\n"
        "  tests/test_acme_kmm.py\n"
        "It keeps the contract as it stands. See that, and go on from there:\n"
        "  cd acme-kmm\n"
        "  pip install --editable '.[dev]'\n"
        "  pytest\n"
        "  kmm conformance acme\n"
    )
    written = {path.relative_to(tmp_path / "acme-kmm").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(package("acme", "driver"))


def test_another_folder_can_be_named_and_have_other_files(here, tmp_path):
    folder = tmp_path / "my plugins" / "nic"
    folder.mkdir(parents=True)
    (folder / "LICENSE").write_text("mine")
    code, out, _ = here("new-plugin", "acme", "--kind", "registry", "--directory", folder)
    assert code == 0
    assert f"  cd '{folder}'\n" in out
    assert out.endswith("  kmm conformance acme --config conformance.yaml\n")
    assert (folder / "LICENSE").read_text() == "mine"
    assert (folder / "acme_kmm/__init__.py").is_file()


@pytest.mark.parametrize("there", ["README.md", "acme_kmm/__init__.py", ".gitignore"])
def test_a_file_that_is_there_stays_and_nothing_is_written(there, here, tmp_path):
    path = tmp_path / there
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    code, out, err = here("new-plugin", "acme", "--kind", "builder", "--directory", tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        f"kmm: {path} is there already, and nothing was written: move it away, or name another folder with "
        "--directory\n"
    )
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]
    assert path.read_text() == "mine"


def test_a_link_that_leads_nowhere_is_not_followed(here, tmp_path):
    (tmp_path / "README.md").symlink_to(tmp_path / "elsewhere")
    code, _, err = here("new-plugin", "acme", "--kind", "builder", "--directory", tmp_path)
    assert code == 2
    assert "README.md is there already" in err
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("below", ["", "tests"])
def test_where_nothing_can_be_written_what_was_is_taken_back(below, here, tmp_path):
    folder = tmp_path / "new"
    if below:
        folder.mkdir()
    (folder / below).write_text("no folder")
    code, out, err = here("new-plugin", "acme", "--kind", "builder", "--directory", folder)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "cannot be written, and nothing was: " in err
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [folder / below]


@pytest.mark.parametrize(
    "name",
    ["", " ", "..", "../x", "/etc", "a/b", "a\\b", "Acme", "ACME", "a_b", "a.b", "a--b", "-", "a-", "3com", "ä",
     "a b", "a\nb", "a\n", "$(reboot)", "a" * 64, "x" * 100_000, "\x1b[31m", "\udcff"],
    ids=lambda name: ascii(name)[:20],
)  # fmt: skip
def test_what_can_be_no_name_is_refused_in_a_line_that_says_what_can(name, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = here("new-plugin", "--kind", "builder", "--", name)
    assert (code, out) == (2, "")
    assert "cannot be the name of a plugin: that is at most 63 lower-case letters, digits and single dashes" in err
    assert err.count("\n") == 1
    assert len(err) < 700
    assert "\x1b" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["kmm", "kmm-operator", *(each.removeprefix("kmm-") for each in sorted(OWN_DISTRIBUTIONS))]
)
def test_the_operators_own_names_are_refused(name, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = here("new-plugin", name, "--kind", "builder")
    assert code == 2
    assert f'"{name}" is the operator\'s own: a plugin of yours needs another name' in err


@pytest.mark.parametrize("name", ["acme-kmm", "kmm-acme"])
def test_a_name_needs_no_kmm_in_it(name, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = here("new-plugin", name, "--kind", "builder")
    assert code == 2
    assert f'"{name}" would become {name}-kmm: the distribution gets its kmm by itself; name it acme' in err


def test_a_kind_that_is_none_is_told_with_those_there_are(here):
    code, _, err = here("new-plugin", "acme", "--kind", "buidler")
    assert code == 2
    assert err == (
        'kmm: there is no kind of plugin "buidler"; did you mean "builder"? '
        "(kinds: builder, signer, registry, device-plugin, driver, base-images)\n"
    )
