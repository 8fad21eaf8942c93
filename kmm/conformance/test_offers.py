"""The door without test code: `pytest --pyargs kmm.conformance --kmm-plugin NAME` asks the offers of that plugin."""

from __future__ import annotations

from kmm.conformance.base_images import BaseImagesContract
from kmm.conformance.driver import DriverContract
from kmm.conformance.observation import ObservationContract
from kmm.conformance.plugin import PluginContract
from kmm.conformance.registry import RegistryContract
from kmm.conformance.renderer import BuilderContract, DevicePluginContract, SignerContract
from kmm.conformance.validation import ValidationContract


class TestPlugin(PluginContract): ...


class TestBuilder(BuilderContract): ...


class TestSigner(SignerContract): ...


class TestDevicePlugin(DevicePluginContract): ...


class TestRegistry(RegistryContract): ...


class TestDriver(DriverContract): ...


class TestBaseImages(BaseImagesContract): ...


class TestValidation(ValidationContract): ...


class TestObservation(ObservationContract): ...
