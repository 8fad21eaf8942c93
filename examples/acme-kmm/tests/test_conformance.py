"""The operator's own suite, over all that this package offers: `kmm conformance acme`, and what that cannot guess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from kmm.conformance import (
    DevicePluginContract,
    DriverContract,
    ObservationContract,
    PluginContract,
    ValidationContract,
)

from acme_kmm.rules import CARD


class TestPlugin(PluginContract):
    @pytest.fixture
    def plugin(self) -> str:
        return "acme"


class TestMirrored(PluginContract):
    """With the options of an administrator who mirrors Acme's registry."""

    @pytest.fixture
    def plugin(self) -> str:
        return "acme"

    @pytest.fixture
    def options(self) -> Mapping[str, Any]:
        return {"registry": "mirror.example.com:5000/acme", "release": "2.3.0"}


class TestDriver(DriverContract):
    @pytest.fixture
    def plugin(self) -> str:
        return "acme"

    @pytest.fixture
    def spec(self) -> Mapping[str, Any]:
        return {"selector": {CARD: "true"}, "devicePlugin": {"params": {"virtualFunctions": 4}}}


class TestDevicePlugin(DevicePluginContract):
    @pytest.fixture
    def plugin(self) -> str:
        return "acme"

    @pytest.fixture
    def params(self) -> Mapping[str, Any]:
        return {"healthPort": 9000, "virtualFunctions": 4}


class TestValidation(ValidationContract):
    @pytest.fixture
    def plugin(self) -> str:
        return "acme"


class TestObservation(ObservationContract):
    @pytest.fixture
    def plugin(self) -> str:
        return "acme"
