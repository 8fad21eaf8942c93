"""What the documents promise is so."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from document import Block, block, follow
from signing.golden import MODULE, golden
from signing.made import certificate_pem

from kmm.admission import judge
from kmm.embedded.registry import Registry
from kmm.loader import load_catalog

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/*/*.md"), *ROOT.glob("examples/*/*.md")]
)


def test_generated_documents_have_not_drifted():
    run = subprocess.run(
        [sys.executable, ROOT / "tools/docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_manifests_in_documents_are_valid(document):
    for text in re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL):
        for manifest in yaml.safe_load_all(text):
            if isinstance(manifest, dict) and str(manifest.get("apiVersion", "")).endswith("x-k8s.io/v1beta1"):
                findings = judge(manifest, load_catalog()).findings
                assert [each for each in findings if each.path != "spec.driver"] == []  # its vendor is not here


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_and_make_targets_that_documents_name_exist(document):
    text = document.read_text()
    for path in re.findall(r"`((?:kmm|tests|tools|plugins|docs|examples)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([a-z0-9-]+)", text):
        assert target in targets, target


def test_the_readmes_commands_do_what_it_says(tmp_path):
    readme = ROOT / "README.md"
    (tmp_path / "module.yaml").write_text(block(readme, "module.yaml", language="yaml"))
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    expect(block(readme, "tested"), tmp_path)


def expect(script: str, folder: Path, replaced: Mapping[str, str] | None = None) -> None:
    """Run the commands of a script in a folder; they print what it says, and nothing on standard error."""
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder)}
    assert follow([Block("tested", "", "console", script)], folder, environment, replaced, may_fail=True) == ""


def test_the_embedded_clusters_example_runs(tmp_path):
    script = block(ROOT / "docs/embedded.md", "tested", language="python")
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert run.stdout.splitlines()[1:] == [
        "6.1.0-13-amd64",
        "429",
        "[('admin', 'get', 200), ('admin', 'get', 429)]",
    ]


def test_the_embedded_registrys_example_runs(tmp_path):
    script = block(ROOT / "docs/embedded.md", "tested", "registry", language="python")
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    images, shown, *rest = run.stdout.splitlines()
    assert re.fullmatch(
        r"\{'team/acme:6\.1\.0-13-amd64': 'sha256:\w{64}', 'team/acme:all': 'sha256:\w{64}'\}", images
    )
    assert re.fullmatch(r'127\.0\.0\.1:\d+/team/acme:all \{"auths": .*\}', shown)
    assert rest == [
        "['6.1.0-13-amd64', 'all']",
        "503",
        "[('reader', 'tags', 'team/acme', 200), ('reader', 'tags', 'team/acme', 503)]",
    ]


def test_the_registry_toolkits_example_runs(tmp_path):
    script = block(ROOT / "docs/oci.md", "tested", language="python")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    assert run.stdout.splitlines() == [
        "('amd64', 'arm64') None",
        "{'/opt/lib/modules/6.1.0/acme.ko': b'a driver'}",
        "True",
    ]


@pytest.fixture
def acme(tmp_path):
    """A folder with what docs/signing.md signs, and signs it with."""
    (tmp_path / "key.pem").write_bytes(golden("self.key.pem"))
    (tmp_path / "cert.pem").write_bytes(certificate_pem(days=9000, name="Acme modules"))
    (tmp_path / "acme.ko").write_bytes(MODULE)
    (tmp_path / "acme-net.ko.xz").write_bytes(lzma.compress(MODULE))
    return tmp_path


def test_the_signing_commands_do_what_the_document_says(acme):
    expect(block(ROOT / "docs/signing.md", "tested"), acme)


def test_commands_that_no_test_runs_are_said_to_be_such():
    text = (ROOT / "docs/signing.md").read_text()
    for found in re.finditer(r"(?ms)^([^\n]*)\n\n?```console\n(.*?)```", text):
        assert found[1].startswith("<!-- tested") or "no test runs them" in found[1], found[2]


def test_the_image_signing_commands_do_what_the_document_says(acme):
    script = block(ROOT / "docs/signing.md", "tested", "image")
    with Registry() as registry:
        registry.push_image("acme:6.1.0-unsigned", {"/opt/lib/modules/6.1.0/acme.ko": MODULE})
        script = script.replace("sign-image", f"sign-image --ca {registry.ca_file}")
        expect(script.replace("registry.example.com", registry.host), acme, {r"sha256:[0-9a-f]{64}": "sha256:…"})


def test_the_signing_toolkits_example_runs(acme):
    script = block(ROOT / "docs/signing.md", "tested", language="python")
    run = subprocess.run([sys.executable, "-c", script], cwd=acme, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert run.stdout.splitlines() == ["48 sha384", "48 sha384", "0", "True sha384 rsa"]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", (ROOT / "docs/embedded.md").read_text()))))
def test_a_test_that_a_document_names_exists(name):
    assert any(f"def {name}(" in path.read_text() for path in ROOT.glob("tests/**/test_*.py"))


def test_every_commit_stays_clear_of_addresses_of_registries():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
