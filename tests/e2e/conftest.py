"""What real builds, signatures and loads share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.debian import NEXT_SUITE, QEMU, SUITE, Missing, Toolkit, need_programs, python, toolkit
from e2e.kernel import Kernel, kernel
from e2e.verdict import own_signer, token_signer
from hsm.softhsm import Missing as NoToken
from registry.docker_registry import Missing as NoRegistry
from registry.docker_registry import program

from kmm.signing.signer import Signer


@contextmanager
def _needed() -> Iterator[None]:
    """Skip where something is missing; in CI that fails."""
    try:
        yield
    except (Missing, NoRegistry, NoToken) as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def tools() -> Toolkit:
    """Return the base image of kernel modules, with the programs of this machine that building needs."""
    with _needed():
        need_programs()
        program()
        return toolkit()


@pytest.fixture(scope="session")
def python_layout() -> Path:
    """Return the layout of a base image with Python, with the programs of this machine that building needs."""
    with _needed():
        need_programs()
        return python()


@pytest.fixture(scope="session")
def kernels(tools: Toolkit) -> dict[str, Kernel]:
    """Return kernels by the release of Debian, with the programs of this machine that emulate one that they run on.

    That of SUITE is the one of the base image.
    """
    with _needed():
        need_programs(QEMU)
        found = {suite: kernel(suite) for suite in (SUITE, NEXT_SUITE)}
    assert found[SUITE].release == tools.kernel
    return found


@pytest.fixture(scope="session")
def trusted(tmp_path_factory) -> dict[str, Signer]:
    """Return those whose certificates the machines with Secure Boot trust; whoever is here is tried."""
    with _needed():
        by_token = token_signer(tmp_path_factory.mktemp("softhsm"))
    return {"an RSA-2048 key": own_signer("self"), "an RSA-4096 key": own_signer("issued"), "a token": by_token}
