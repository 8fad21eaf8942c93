"""An embedded cluster for the commands that ask one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from runtime.conftest import EmbeddedWorld, _embedded
from signing.conftest import certificates

from kmm.cli import main

__all__ = ["certificates"]


@pytest.fixture
def world(tmp_path) -> Iterator[Callable[..., EmbeddedWorld]]:
    """Make worlds, each with some nodes; all of it is stopped when the test is over."""
    yield from _embedded(tmp_path)


@pytest.fixture
def here(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process, which is faster; return how it ended and what it printed."""

    def run(*arguments, **variables):
        monkeypatch.setattr(sys, "argv", ["kmm", *map(str, arguments)])
        with monkeypatch.context() as during:
            for name, value in variables.items():
                during.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        return ended.value.code, *capsys.readouterr()

    return run
