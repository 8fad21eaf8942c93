"""`kmm demo`, as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kmm.cli.demo import demo
from kmm.errors import ConfigError

KMM = Path(sys.executable).parent / "kmm"


def test_all_of_it_happens_and_is_shown_without_a_terminal(tmp_path):
    picture = tmp_path / "demo.svg"
    ran = subprocess.run([KMM, "demo", "--svg", picture], capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr
    assert ran.stderr == ""
    assert "\x1b" not in ran.stdout
    for said in (
        "every driver is loaded on its six nodes",
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


def test_it_can_be_left_running_and_cleans_up_when_it_is_interrupted():
    # A background shell may have its children ignore it.
    restored = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    with subprocess.Popen([KMM, "demo", "--keep"], stdout=subprocess.PIPE, text=True, **restored) as process:
        try:
            for line in process.stdout:
                if "export KUBECONFIG=" in line:
                    break
            kubeconfig = line.partition("KUBECONFIG=")[2].strip()
            status = subprocess.run(
                [KMM, "status", "--kubeconfig", kubeconfig], capture_output=True, text=True, timeout=60, check=False
            )
            assert status.returncode == 0, status.stdout + status.stderr
            for module in ("gpu", "acme", "tired"):
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
