"""docs/signing.md: keys in Secrets, with kubectl and a real control plane."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from apiserver.client import Api
from controlplane.controlplane import ControlPlane
from document import blocks, follow

pytestmark = pytest.mark.e2e

DOCUMENT = Path(__file__).parents[2] / "docs/signing.md"


def test_the_commands_for_keys_do_what_the_document_says(tmp_path, programs):
    folder = tmp_path / "here"
    folder.mkdir()
    with ControlPlane(tmp_path / "plane") as plane:
        api = Api(plane.url, plane.ca_file, plane.admin_token)
        assert api.post("/api/v1/namespaces", {"metadata": {"name": "drivers"}}).code == 201
        environment = {
            "KUBECONFIG": str(plane.kubeconfig()),
            "PATH": f"{Path(sys.executable).parent}:{programs}:/usr/bin:/bin",
            "HOME": str(folder),
        }
        tried = [each for each in blocks(DOCUMENT, "tested") if each.of == "keys"]
        follow(tried, folder, environment)
    assert {each.name for each in folder.iterdir()} >= {"cert.der", "encrypted.pem"}
    assert not (folder / "key.pem").exists()
