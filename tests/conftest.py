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


TOGETHER = "tests/properties/test_convergence.py"  # they count together what occurred


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Spread all tests over the workers, but for those of a file that one worker has to run."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 -- only where there are workers

    class Spread(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path if path == TOGETHER else nodeid

    return Spread(config, log)
