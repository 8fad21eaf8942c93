"""A vendor's packages as `kmm new-plugin` writes them, and a place where they are installed without pip."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from kmm.cli.new_plugin import package

_BUILD = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"


def write(folder: Path, name: str, kind: str) -> Path:
    """Write a new plugin's package into a folder, and return that."""
    for path, text in package(name, kind).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def install(folder: Path, site: Path) -> None:
    """Build the wheel of a package, and unpack it: the folder `site` is one for PYTHONPATH then."""
    command = [sys.executable, "-c", _BUILD, str(site.parent)]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split()[-1]
    zipfile.ZipFile(site.parent / built).extractall(site)
