"""Fresh interpreters, in which a plugin is imported for the first time: asked in JSON, answering in JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from kmm.conformance.contract import broken

_DEADLINE_S = 120.0  # a machine may be slow
_SAID_LONGEST = 500
# Two processes in which nothing but what is asked is the same.
_WORLDS = (
    ({"clockS": 1_700_000_000.25, "seed": 1}, {"PYTHONHASHSEED": "1", "TZ": "UTC", "LANG": "C.UTF-8"}),
    (
        {"clockS": 1_893_456_789.75, "seed": 2},
        {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LANG": "C", "KMM_CONFORMANCE": "2", "USER": "somebody"},
    ),
)


@cache
def in_two_worlds(asked: str) -> Sequence[Mapping[str, Any]]:
    """Return what a plugin says, and what it asks for, in two processes in which nothing but `asked` is the same."""
    return [answer("purity", {**json.loads(asked), **clock}, environment) for clock, environment in _WORLDS]


def answer(module: str, asked: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """Run a module of this package in a process of its own, in an empty folder; return what it answers.

    `environment`: beside what an interpreter needs. A process that ends without an answer breaks the rule that asked.
    """
    needed = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    path = os.pathsep.join(each or os.getcwd() for each in sys.path)  # noqa: PTH109 -- as the interpreter has it
    with tempfile.TemporaryDirectory(prefix="kmm-conformance-") as folder:
        try:
            run = subprocess.run(  # noqa: S603 -- our own module
                [sys.executable, "-P", "-W", "ignore", "-m", f"{__package__}.{module}"],
                input=json.dumps(asked),
                env={**needed, "PYTHONPATH": path, "HOME": folder, **environment},
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            broken(f"a process that uses the plugin did not end within {_DEADLINE_S:.0f} s")
    try:
        return json.loads(run.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = " ".join(run.stderr.split())[-_SAID_LONGEST:]
        broken(f"a process that uses the plugin ended with exit code {run.returncode}: {said}")
