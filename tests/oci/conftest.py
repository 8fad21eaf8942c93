"""Registries in this process."""

from __future__ import annotations

import pytest
from oci.served import LOOPBACK, Served

from kmm.embedded.registry import Registry
from kmm.oci.session import Session


@pytest.fixture
def session():
    """Return a session that may connect to this machine."""
    made = Session(LOOPBACK, environ={})
    yield made
    made.close()


@pytest.fixture
def serve(session):
    """Start registries; they are stopped when the test is over."""
    running = []

    def begin(**options):
        registry = Registry(**{"users": {"user": "s3cret"}, **options})
        registry.__enter__()
        running.append(registry)
        return Served(registry, session)

    yield begin
    for registry in running:
        registry.__exit__(None, None, None)


@pytest.fixture
def served(serve):
    """Return a registry with HTTPS that asks nobody who they are."""
    return serve()
