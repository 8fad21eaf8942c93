"""`kmm demo`: the whole life of Modules, in a cluster of its own."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from kmm.errors import ConfigError
from kmm.loader import find

_LACKING = "the demo needs {}, which is not installed: pip install 'kmm-operator[embedded,kaniko,standard]'"


def demo(*, keep: bool, svg: Path | None, plugins: Path | None = None) -> int:
    """Play the demo. Raises ConfigError where what it needs is not installed.

    `plugins`: a folder with a vendor's package in it, as `pip install --target` leaves it; what is installed, else.
    """
    if plugins:
        sys.path.append(str(plugins.absolute()))
    try:
        from kmm.demo.story import run
        from kmm.demo.vendor import PLUGIN
    except ModuleNotFoundError as error:
        raise ConfigError(_LACKING.format(error.name)) from None
    for plugin in ("kmm_kaniko", "kmm_sign_file"):  # what builds in it, and what signs
        if find_spec(plugin) is None:
            raise ConfigError(_LACKING.format(plugin.replace("_", "-")))
    if plugins:
        find(PLUGIN)
    return run(keep=keep, svg=svg, plugins=plugins and plugins.absolute())
