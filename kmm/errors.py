"""Errors, each by what happens next."""

from __future__ import annotations

from kmm.contract import ContractError, Forbidden, Unavailable

__all__ = ["ConfigError", "ContractError", "Forbidden", "KmmError", "PluginError", "SpecError", "Unavailable"]


class KmmError(Exception):
    """The base of our own errors: their text is for people."""


class ConfigError(KmmError):
    """The configuration or the command is wrong: the process ends with exit code 2."""


class PluginError(KmmError):
    """A Module asks for something that no installed plugin offers: wait for a change of either."""


class SpecError(KmmError):
    """What a user wrote cannot work as it stands: wait for a change of it."""
