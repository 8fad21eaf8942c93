"""What pytest is told of this suite. Every run of pytest imports it, so it imports pytest and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

    from kmm.conformance.registries import Registries
    from kmm.conformance.world import World

_SUITE = "kmm.conformance"
_OFFERS = f"{_SUITE}.test_offers"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("kmm", "conformance of plugins for kmm")
    group.addoption(
        "--kmm-plugin",
        metavar="NAME",
        action="append",
        default=[],
        help="the plugin that `--pyargs kmm.conformance` asks, by its entry point's name; several times for several",
    )
    group.addoption(
        "--kmm-config", metavar="FILE", help="the operator's configuration, with the options of the plugin"
    )
    group.addoption(
        "--kmm-cluster",
        metavar="KUBECONFIG",
        help="the cluster whose API server judges what is rendered, and stores nothing; the embedded one, else",
    )
    group.addoption("--kmm-report", metavar="FILE", help="where to write what was found, as JSON")
    group.addoption(
        "--kmm-patience",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="how long to wait for each thing that is to happen in a cluster",
    )


# The hooks below cost nothing where nobody asks: the suite is not imported for them.


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str) -> list[pytest.Item] | None:
    """Leave out what the plugins that are asked do not offer. Raises UsageError for a plugin that is not there."""
    if getattr(getattr(collector, "obj", None), "__name__", "") != _OFFERS or not name.startswith("Test"):
        return None
    from kmm.conformance import subject, test_offers  # noqa: PLC0415 -- asked for

    return None if subject.asked(collector.config, getattr(test_offers, name)) else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask each of their offers."""
    if metafunc.cls is None or metafunc.cls.__module__ != _OFFERS:
        return
    from kmm.conformance import subject  # noqa: PLC0415 -- asked for

    found = subject.asked(metafunc.config, metafunc.cls)
    names = ("plugin", "offer") if metafunc.cls.field else ("plugin",)
    metafunc.parametrize(names, found, ids=map("-".join, found))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note which rule a test is."""
    if f"{_SUITE}.contract" in sys.modules:
        from kmm.conformance import claims  # noqa: PLC0415 -- it is in use

        claims.note(item)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Say of each claim whether it holds, and write the report."""
    if f"{_SUITE}.contract" in sys.modules or config.option.kmm_report:
        from kmm.conformance import claims  # noqa: PLC0415 -- asked for

        claims.tell(terminalreporter, config.option.kmm_report)


@pytest.fixture(scope="session")
def kmm_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A cluster in this process, which an operator can be started in."""
    from kmm.conformance.world import World  # noqa: PLC0415 -- asked for

    with World(patience_s=request.config.option.kmm_patience) as world:
        yield world


@pytest.fixture(scope="session")
def kmm_kubeconfig(request: pytest.FixtureRequest) -> Path:
    """How the API server is reached that judges what is rendered."""
    given = request.config.option.kmm_cluster
    if given:
        return Path(given)
    world: World = request.getfixturevalue("kmm_world")
    return world.kubeconfig


@pytest.fixture(scope="session")
def kmm_registries() -> Iterator[Registries]:
    """Registries in this process, in each way in which registries want to be asked."""
    from kmm.conformance.registries import Registries  # noqa: PLC0415 -- asked for

    with Registries() as registries:
        yield registries
