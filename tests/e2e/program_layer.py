"""A layer of an image: a program of this machine, with what it is linked with."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path


def program_layer(program: Path, names: Iterable[str] = ()) -> bytes:
    """Return a tar with a program below `bin`, its libraries, and further names for it."""
    needs = subprocess.run(["ldd", program], check=False, capture_output=True, text=True).stdout
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", dereference=True) as tar:
        tar.add(program, f"bin/{program.name}")
        for library in re.findall(r"(/\S+)", needs):
            tar.add(library, library.lstrip("/"))
        for each in names:
            link = tarfile.TarInfo(f"bin/{each}")
            link.type, link.linkname = tarfile.SYMTYPE, program.name
            tar.addfile(link)
    return made.getvalue()
