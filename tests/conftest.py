"""What holds for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from controlplane.controlplane import Missing, binaries
from hypothesis import settings

# The same cases on every machine, however slow it is at the moment.
settings.register_profile("kmm", deadline=None, derandomize=True, database=None)
settings.load_profile("kmm")


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder with the control plane's programs; a machine that cannot have them skips, CI never does."""
    try:
        return binaries()
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
