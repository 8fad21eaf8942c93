"""One suite for two registries: the embedded one, and a real one with `make e2e`, each in four modes."""

from __future__ import annotations

import pytest
from registry.client import Client
from registry.running import RunningRegistry, registry, repository

__all__ = ["registry", "repository"]


@pytest.fixture
def client(registry: RunningRegistry) -> Client:
    return registry.client()
