"""An embedded cluster for the commands that ask one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from runtime.conftest import EmbeddedWorld, _embedded


@pytest.fixture
def world(tmp_path) -> Iterator[Callable[..., EmbeddedWorld]]:
    """Make worlds, each with some nodes; all of it is stopped when the test is over."""
    yield from _embedded(tmp_path)
