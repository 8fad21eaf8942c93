"""`kmm demo`, as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kmm.cli.demo import demo
from kmm.errors import ConfigError

KMM = Path(sys.executable).parent / "kmm"
EXAMPLE = Path(__file__).parents[2] / "examples/acme-kmm"


@pytest.fixture
def vendor(tmp_path):
    """The example for vendors, as `pip install --target` leaves it."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d"]
    subprocess.run([*build, tmp_path / "built"], cwd=EXAMPLE, capture_output=True, check=True)
    (wheel,) = (tmp_path / "built").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "vendor")
    return tmp_path / "vendor"


def test_all_of_it_happens_and_is_shown_without_a_terminal(tmp_path, vendor):
    picture = tmp_path / "demo.svg"
    command = [KMM, "demo", "--plugins", vendor, "--svg", picture]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr
    assert ran.stderr == ""
    assert "\x1b" not in ran.stdout
    for said in (
        "acme-kmm 2.4.1: its driver takes part",
        "Module acme: driver: acme, which the installed package acme-kmm brings",
        "every driver is loaded on its six nodes",
        "the firmware that acme-kmm 2.4.1 brings is on the nodes",
        "by a renderer of its own: startupProbe, livenessProbe, readinessProbe",
        'acme_driver_actions_total{action="Create"} 4.0',
        'did you mean "daemonset"?',
        "an image that cannot be asked for is unknown, and starts nothing",
        "it is built with the Module's arguments and the Secret's firmware",
        'its module\'s signature verifies: sha256 by certificate 01 issued by "CN=kmm demo"',
        "what was not signed never had that name",
        "no loader of another kernel was touched",
        "and so are its labels on the nodes",
        "its memory at most",
    ):
        assert said in ran.stdout
    assert picture.read_text().startswith("<svg")


def test_without_a_vendors_package_it_says_so_and_with_a_wrong_one_it_fails(tmp_path, vendor):
    def play(folder):
        command = [KMM, "demo", "--plugins", folder]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    ran = play(tmp_path / "built")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert 'no plugin "acme" is installed' in ran.stderr
    (vendor / "acme_kmm/driver.py").write_text("raise OSError('a mistake of the vendor')\n")
    ran = play(vendor)
    assert ran.returncode == 1
    assert "there is no driver of a vendor: acme-kmm: ImportFailed: " in ran.stdout
    assert "a mistake of the vendor" in " ".join(ran.stdout.split())


def test_it_can_be_left_running_and_cleans_up_when_it_is_interrupted():
    # A background shell may have its children ignore it.
    restored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    with subprocess.Popen([KMM, "demo", "--keep"], stdout=subprocess.PIPE, text=True, **restored) as process:
        try:
            said = ""
            for line in process.stdout:
                said += line
                if "export KUBECONFIG=" in line:
                    break
            assert "none takes part: acme-kmm is not installed" in said
            kubeconfig = line.partition("KUBECONFIG=")[2].strip()
            status = subprocess.run(
                [KMM, "status", "--kubeconfig", kubeconfig], capture_output=True, text=True, timeout=60, check=False
            )
            assert status.returncode == 0, status.stdout + status.stderr
            for module in ("gpu", "tired"):
                assert module in status.stdout
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert not Path(kubeconfig).exists()


def test_what_it_needs_and_is_not_installed_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "kmm.demo.story", None)
    with pytest.raises(ConfigError, match="pip install"):
        demo(keep=False, svg=None)


def test_a_build_that_is_given_another_argument_fails_it():
    script = (
        "import sys; from kmm.demo import cast; cast.SPEED = '10G'\n"
        "from kmm.cli.demo import demo; sys.exit(demo(keep=False, svg=None))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 1, ran.stdout[-3000:] + ran.stderr
    assert '"nic for 6.1.0-25-amd64 at 10G", and not "nic for 6.1.0-25-amd64 at 25G"' in " ".join(ran.stdout.split())
