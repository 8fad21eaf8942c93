"""What the operator writes, for whoever reads its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from apiserver.client import eventually

from kmm.embedded.cluster import Cluster

USES = """
import warnings
from kmm.contract import ContractDeprecation
from kmm.runtime.logs import log_to_standard_error

log_to_standard_error()
for _ in range(3):
    warnings.warn("an old one", ContractDeprecation)
    warnings.warn("another matter", DeprecationWarning)
"""


def test_what_a_plugin_uses_that_will_go_is_logged_once():
    ran = subprocess.run([sys.executable, "-c", USES], capture_output=True, text=True, check=True)
    (said,) = map(json.loads, ran.stderr.splitlines()[:1])
    assert said["level"] == "warning"
    assert "ContractDeprecation: an old one" in said["msg"]
    assert ran.stderr.count("an old one") == 1


def test_what_a_plugin_has_that_will_go_is_logged_at_start(tmp_path):
    (tmp_path / "acme_made.py").write_text(
        "import warnings\n"
        "from kmm.contract import ContractDeprecation\n"
        "def kmm_drivers():\n"
        "    warnings.warn('an old one', ContractDeprecation, stacklevel=2)\n"
        "    return []\n"
    )
    info = tmp_path / "acme_kmm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-kmm\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kmm.v1]\nacme = acme_made\n")
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "KMM_PLUGINS_ALLOW": "acme-kmm",
        "KMM_METRICS_ADDRESS": "127.0.0.1:0",
        "KMM_HEALTH_ADDRESS": "127.0.0.1:0",
    }
    kmm, log = Path(sys.executable).with_name("kmm"), tmp_path / "log"
    with Cluster(folder=tmp_path / "cluster") as cluster, log.open("w") as stream:
        operator = subprocess.Popen(
            [kmm, "run", "--kubeconfig", cluster.kubeconfig()], env=environment, stderr=stream
        )
        try:
            eventually(lambda: "plugin acme uses what will go: an old one" in log.read_text(), within_s=60)
        finally:
            operator.terminate()
            assert operator.wait(30) == 0
    said = subprocess.run([kmm, "plugins"], env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, "it is used all the same"
    assert "acme (acme-kmm 1.0)\n  offers nothing\n  deprecated: an old one\n" in said.stdout
