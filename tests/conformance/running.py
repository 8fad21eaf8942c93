"""`kmm conformance`, run as a vendor would, and what its report says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRONG = Path(__file__).parent / "wrong"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str
    report: dict[str, Any]

    def broken(self) -> dict[str, list[str]]:
        """Return the broken rules of each plugin and each of its offers."""
        found: dict[str, list[str]] = {}
        for each in self.report["claims"]:
            found.setdefault(f"{each['plugin']}, {each['of']}", [])
            if each["result"] == "broken":
                found[f"{each['plugin']}, {each['of']}"].append(each["rule"].replace("_", "-"))
        return found


def conformance(folder: Path, *arguments: str, beside: Sequence[Path] = (WRONG,)) -> Outcome:
    """Run it in a folder, with what is installed in others."""
    report = folder / "report.json"
    path = [*map(str, beside), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, "-m", "kmm.cli", "conformance", *arguments, "--report", str(report)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(run.returncode, run.stdout, run.stderr, json.loads(report.read_text()) if report.exists() else {})
