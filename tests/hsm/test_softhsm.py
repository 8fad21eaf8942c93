"""Where SoftHSM is had from, and what is said where it cannot be."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hsm import softhsm
from hsm.softhsm import Missing


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(softhsm, "_LIBRARY", "usr/lib/none.so")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_a_machine_without_apt_says_what_it_lacks(elsewhere, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Missing, match="there is no apt-get and no dpkg-deb"):
        softhsm.softhsm()


def test_a_package_that_cannot_be_had_is_told(elsewhere, monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command[2])
        return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package libsofthsm2\n")

    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(softhsm.subprocess, "run", run)
    with pytest.raises(Missing, match="fails: E: Unable to locate package"):
        softhsm.softhsm()
    assert asked == ["download", "update", "download"]
    assert [each.name for each in (elsewhere / "kmm/softhsm").iterdir()] == ["lock"]
