"""`kmm conformance`: asks installed plugins whether they keep the contract. The process becomes pytest's."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import kmm
from kmm.errors import ConfigError
from kmm.loader import find

_NEEDS = ("pytest", "hypothesis", "aiohttp")
_INI = Path(kmm.__file__).parent / "conformance/pytest.ini"


def conformance(
    names: Sequence[str], config: Path | None, cluster: Path | None, report: Path | None, more: Sequence[str]
) -> NoReturn:
    """Become pytest. `more`: its own arguments. Raises ConfigError where a plugin, or what the suite needs, lacks."""
    for name in names:
        find(name)
    for module in _NEEDS:
        if find_spec(module) is None:
            raise ConfigError(
                f"the suite needs {module}, which is not installed: pip install 'kmm-operator[conformance]'"
            )
    given = {"--kmm-config": config, "--kmm-cluster": cluster, "--kmm-report": report}
    command = [sys.executable, "-m", "pytest", "-c", str(_INI), "--rootdir", str(Path.cwd())]
    command += ["--pyargs", "kmm.conformance", *(f"--kmm-plugin={name}" for name in names)]
    command += [f"{option}={path}" for option, path in given.items() if path]
    os.execv(sys.executable, [*command, *more])  # noqa: S606 -- nothing of it is a shell's
