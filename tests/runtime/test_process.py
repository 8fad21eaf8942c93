"""The operator as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from apiserver.client import eventually


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_a_login_hangs(tmp_path, number):
    begun = tmp_path / "begun"
    login = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "/bin/sh",
        "args": ["-c", f"echo $$ >{begun}.part; mv {begun}.part {begun}; exec sleep 3600"],
        "interactiveMode": "Never",
    }
    named = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [named],
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"exec": login}}],
            }
        )
    )
    command = [Path(sys.executable).with_name("kmm"), "run", "--kubeconfig", kubeconfig]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(begun.exists, "it logs in")
            process.send_signal(number)
            assert process.wait(30) == 0
        finally:
            process.kill()
            if begun.exists():
                os.kill(int(begun.read_text()), signal.SIGKILL)
