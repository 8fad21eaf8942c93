"""`kmm demo`: the whole life of Modules, in a cluster of its own."""

from __future__ import annotations

from pathlib import Path

from kmm.errors import ConfigError


def demo(*, keep: bool, svg: Path | None) -> int:
    """Play the demo. Raises ConfigError where what it needs is not installed."""
    try:
        from kmm.demo.story import run
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the demo needs {error.name}, which is not installed: pip install 'kmm-operator[embedded,standard]'"
        ) from None
    return run(keep=keep, svg=svg)
