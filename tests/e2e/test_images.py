"""The operator's image, made as docs/images.md says, by buildah and on Debian's Python; and started."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from apiserver.client import Api, eventually
from apiserver.samples import core, modules
from e2e.container import NAMESPACES, OWN_ROOT, is_on_overlay
from e2e.debian import kept
from world import NAMESPACE, World

from kmm.embedded.cluster import Cluster

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
PYTHON = "3.11"  # Debian's
KERNEL = "6.1.0-18-amd64"
BUILT_WITHIN_S = 900
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"  # Debian's /var/run is /run
OWN, OF_OPENSHIFT = (65532, 65532), (1_000_650_000, 0)  # who it runs as
pytestmark = pytest.mark.e2e


def documented(document: str, mark: str) -> str:
    """Return a block of a document, or what is to be a file."""
    text = (ROOT / "docs" / document).read_text()
    return re.search(rf"<!-- {re.escape(mark)} -->\n(?:```\w*\n(.*?)```|    ([^\n]*))", text, re.DOTALL).expand(
        r"\1\2"
    )


class Images:
    """A place to build images in: a folder of wheels, and buildah with a store of its own."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.command = documented("images.md", "run")
        driver = "vfs" if is_on_overlay(folder) else "overlay"
        places = {"graphroot": folder / "store", "runroot": folder / "run"}
        lines = ["[storage]", f'driver = "{driver}"', *(f'{name} = "{path}"' for name, path in places.items())]
        lines += ["[storage.options.overlay]", 'skip_mount_home = "true"']  # else it stays mounted
        (folder / "storage.conf").write_text("\n".join(lines))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KMM_")},
            "BUILDAH_ISOLATION": "chroot",
            "STORAGE_DRIVER": driver,
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        (folder / "deploy").symlink_to(ROOT / "deploy")
        (folder / "pip.conf").write_text("[global]\nno-index = true\n")
        shutil.copytree(DIST, folder / "dist")
        for each in needed().glob("*.whl"):
            shutil.copy(each, folder / "dist")
        named = re.search(r"BASE=(\S+)", self.command)[1]
        self.said("skopeo", "copy", "--quiet", f"oci:{base}", f"containers-storage:{named}")

    def build(self, version: str = "2.0") -> subprocess.CompletedProcess[str]:
        """Run the document's command, for a version of the vendor's plugin."""
        return self.run("sh", "-c", self.command.replace("acme-kmm==2.0", f"acme-kmm=={version}"))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
            timeout=BUILT_WITHIN_S,
        )  # fmt: skip

    def said(self, *command: str) -> str:
        ran = self.run(*command)
        assert ran.returncode == 0, ran.stderr[-3000:]
        return ran.stdout


def needed() -> Path:
    """Return a folder with the wheels of what the operator needs, from the cache or the package index."""
    versions = (DIST / "constraints.txt").read_text()
    what = "kmm-operator[standard,signing]"

    def make(folder: Path) -> None:
        venv.create(folder / "venv", with_pip=True)
        options = ["--quiet", "--only-binary=:all:", f"--python-version={PYTHON}", f"--find-links={DIST}"]
        options += [f"--constraint={DIST / 'constraints.txt'}", f"--dest={folder}"]
        subprocess.run([folder / "venv/bin/pip", "download", *options, what], check=True)
        shutil.rmtree(folder / "venv")
        for ours in folder.glob("kmm_*.whl"):
            ours.unlink()

    return kept("wheels", [PYTHON, what, versions, os.uname().machine], make)


def vendors_wheel(folder: Path, dist: Path, group: str, version: str) -> None:
    """Make the wheel of docs/plugins.md's plugin, in an entry-point group."""
    folder.mkdir()
    project = documented("plugins.md", "file: pyproject.toml")
    (folder / "pyproject.toml").write_text(project.replace("kmm.v1", group).replace('"2.0"', f'"{version}"'))
    (folder / "acme_kmm.py").write_text(documented("plugins.md", "file: acme_kmm.py"))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", dist], cwd=folder, check=True
    )


@pytest.fixture(scope="module")
def images(python_layout):
    with tempfile.TemporaryDirectory(prefix="kmm-images-") as temporary:  # not pytest's, which are kept for long
        made = Images(Path(temporary), python_layout)
        try:
            vendors_wheel(made.folder / "acme", made.folder / "dist", "kmm.v1", "2.0")
            vendors_wheel(made.folder / "acme-3", made.folder / "dist", "kmm.v2", "3.0")
            yield made
        finally:
            made.said("buildah", "rm", "--all")  # else their roots stay mounted


class Image:
    """The image that the document's command makes, and its root."""

    def __init__(self, images: Images) -> None:
        self.built = images.build()
        assert self.built.returncode == 0, self.built.stderr[-3000:]
        name = re.search(r"--tag (\S+)", images.command)[1]
        self.config = json.loads(images.said("buildah", "inspect", "--type", "image", name))["OCIv1"]["config"]
        container = images.said("buildah", "from", name).strip()
        self.root = Path(images.said("buildah", "mount", container).strip())
        self.environment = dict(each.split("=", 1) for each in self.config["Env"])

    @contextmanager
    def argv(
        self, command: tuple[str, ...], user: tuple[int, int], mounts: Mapping[str, Path], more: Mapping[str, str]
    ) -> Iterator[list[str]]:
        """Yield what runs a command in a container of the image, with a root that is read-only."""
        told: dict[str, Any] = {
            "root": str(self.root),
            "mounts": [[str(real), path, True] for path, real in mounts.items()],
            "capabilities": [],
            "user": user,
            "no_new_privileges": True,
            "read_only": True,
            "argv": ["/usr/bin/env", *command],
            "env": {**self.environment, **more},
        }
        with tempfile.NamedTemporaryFile("w", suffix=".json") as spec:
            json.dump(told, spec)
            spec.flush()
            yield [*NAMESPACES, sys.executable, str(OWN_ROOT), spec.name]

    def run(
        self,
        *command: str,
        user: tuple[int, int] = OWN,
        mounts: Mapping[str, Path] | None = None,
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        with self.argv(command, user, mounts or {}, more) as argv:
            return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def image(images):
    return Image(images)


def test_the_image_has_what_the_document_says_and_no_more(image):
    said = image.config
    assert (said["User"], said["Entrypoint"], said["Cmd"]) == ("65532:65532", ["kmm"], ["run"])
    assert said["Labels"]["io.x-k8s.kmm.plugins"] == "acme-kmm==2.0"
    assert "plugins used: 7, refused: 0" in image.built.stdout
    assert not (image.root / "wheels").exists()
    assert (image.root / "opt/kmm/defaults.yaml").read_text() == 'plugins: {allow: ["acme-kmm", ]}\n'
    lacking = [
        path
        for path in (image.root / "opt/kmm/lib").rglob("*.py")
        if not list(path.parent.glob(f"__pycache__/{path.stem}.cpython-*.pyc"))
    ]
    assert lacking == [], "all is compiled, as nothing can be at run time"


@pytest.mark.parametrize("user", [OWN, OF_OPENSHIFT])
def test_it_runs_as_anybody_on_a_root_that_is_read_only(image, user):
    there = image.run("sh", "-c", "id -u; touch /opt/kmm/x", user=user)
    assert (there.returncode, there.stdout) == (1, f"{user[0]}\n")
    assert "Read-only file system" in there.stderr
    assert image.run("kmm", "--version", user=user).stdout.startswith("kmm ")
    found = image.run("kmm", "plugins", user=user)
    assert (found.returncode, found.stderr) == (0, "")
    assert documented("plugins.md", "prints") in found.stdout
    assert image.run("kmm", "sign-image", "--help", user=user).returncode == 0


def test_a_plugin_that_is_not_on_the_list_is_not_imported_unless_the_configuration_says_so(image, tmp_path):
    more = tmp_path / "more"
    info = more / "more_kmm-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more-kmm\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kmm.v1]\nmore = more_kmm\n")
    (more / "more_kmm.py").write_text("print('it is asked')\ndef kmm_drivers(settings): return []\n")
    (more / "config.yaml").write_text("plugins: {allow: [acme-kmm, more-kmm]}\n")
    check = ("kmm", "plugins", "--check")
    there: dict[str, Any] = {"mounts": {"/more": more}, "PYTHONPATH": "/more"}
    for each in (tmp_path, more, info):
        each.chmod(0o755)
    refused = image.run(*check, **there)
    assert refused.returncode == 1
    assert "more (more-kmm 1.0) is refused: NotAllowed: " in refused.stdout
    assert "it is asked" not in refused.stdout
    for told in (
        image.run(*check, **there, KMM_PLUGINS_ALLOW="acme-kmm,more-kmm"),
        image.run(*check, "--config", "/more/config.yaml", **there),
    ):
        assert (told.returncode, told.stdout) == (0, "it is asked\nplugins used: 8, refused: 0\n")


def test_a_plugin_for_another_contract_stops_the_build(images):
    ran = images.build(version="3.0")
    assert ran.returncode != 0
    assert documented("images.md", "prints") in ran.stdout


def test_it_operates(image, tmp_path):
    with Cluster(folder=tmp_path / "cluster") as cluster:
        world = World(Api(cluster.url, cluster.ca_file, cluster.admin_token))
        world.furnish()
        for name in ("kmm-operator-module-loader", "kmm-operator-device-plugin"):
            assert world.api.post(core(NAMESPACE, "serviceaccounts"), {"metadata": {"name": name}}).code == 201
        cluster.add_node("node", KERNEL, labels={"vendor": "acme"})
        account = tmp_path / "account"
        account.mkdir(mode=0o755)
        shutil.copyfile(cluster.ca_file, account / "ca.crt")
        (account / "token").write_text(cluster.admin_token)
        module = {
            "apiVersion": "kmm.sigs.x-k8s.io/v1beta1",
            "kind": "Module",
            "metadata": {"name": "m"},
            "spec": {"driver": "acme-nic", "selector": {"vendor": "acme"}},
        }
        with operator(image, cluster.url, account, tmp_path / "log") as health:
            eventually(lambda: urllib3.request("GET", f"http://{health}/readyz").status == 200, within_s=60)
            assert world.api.post(modules(NAMESPACE), module).code == 201
            eventually(world.ready, "the vendor's Module is ready", within_s=60)
        assert set(world.loaders()) == {KERNEL}
        (container,) = world.loaders()[KERNEL]["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"registry.example.com/acme/nic:{KERNEL}"


@contextmanager
def operator(image: Image, url: str, account: Path, log: Path) -> Iterator[str]:
    """Run what the image runs, as in a pod with this account; yield where health is served. It has to end well."""
    command = (*image.config["Entrypoint"], *image.config["Cmd"])
    host, port = re.fullmatch(r"https://([\d.]+):(\d+)", url).groups()
    environment = {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "OPERATOR_NAMESPACE": NAMESPACE,
        "KMM_METRICS_ADDRESS": "127.0.0.1:0",
        "KMM_HEALTH_ADDRESS": "127.0.0.1:0",
    }
    with (
        image.argv(command, OWN, {ACCOUNT: account}, environment) as argv,
        log.open("w") as stream,
        subprocess.Popen(argv, stdout=stream, stderr=stream) as process,
    ):
        try:
            eventually(lambda: process.poll() is not None or "health at" in log.read_text(), within_s=60)
            served = re.search(r"health at ([\d.:]+)", log.read_text())
            assert served, log.read_text()
            yield served[1]
            below = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(below[0]), signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()[-2000:]
        finally:
            process.kill()
