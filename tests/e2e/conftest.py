"""What real builds and signatures share."""

from __future__ import annotations

import os

import pytest
from e2e.debian import Missing, Toolkit, need_programs, toolkit
from registry.docker_registry import Missing as NoRegistry
from registry.docker_registry import program


@pytest.fixture(scope="session")
def tools() -> Toolkit:
    """Return the base image, with the programs of this machine that building needs: in CI, what is missing fails."""
    try:
        need_programs()
        program()
        return toolkit()
    except (Missing, NoRegistry) as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
