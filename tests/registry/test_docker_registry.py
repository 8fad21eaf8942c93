"""How the real registry is got and started: what cannot be is said."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from registry import docker_registry
from registry.docker_registry import DockerRegistry, Missing, program
from registry.running import need_program


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without the program, and with an empty cache."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "docker-registry" else which(name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_machine_without_apt_says_what_it_lacks(bare, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Missing, match="there is no apt-get and no dpkg-deb"):
        program()


def test_a_package_that_cannot_be_had_is_told(bare, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "docker-registry" else name)
    asked = []

    def run(command, **_):
        asked.append(command[2])
        return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package docker-registry\n")

    monkeypatch.setattr(docker_registry.subprocess, "run", run)
    with pytest.raises(Missing, match="fails: E: Unable to locate package docker-registry"):
        program()
    assert asked == ["download", "update", "download"]
    assert [each.name for each in (bare / "kmm/docker-registry").iterdir()] == ["lock"]


@pytest.mark.e2e
def test_a_registry_that_does_not_start_says_why(tmp_path):
    need_program()
    nowhere = {"token": {"realm": "x", "service": "x", "issuer": "x", "rootcertbundle": str(tmp_path / "nowhere")}}
    with pytest.raises(RuntimeError, match=r"does not start:(?s:.)*nowhere"):
        DockerRegistry(tmp_path / "registry", auth=nowhere).__enter__()
