"""What a plugin costs its vendor: the lines of each kind's template, and the time that the conformance suite takes.

By itself: `python tests/bench/plugin_cost.py`.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance.running import conformance
from conformance.test_own_plugins import ASKED_OTHERWISE, OPTIONS, OWN
from vendor import install, write

from kmm.cli.new_plugin import KINDS, package

MOST_S = 20


def lines(text: str) -> int:
    """Return the number of lines that are neither empty nor a comment."""
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text.splitlines())


def measure() -> None:
    print("\nlines of a plugin, as kmm new-plugin writes it       plugin   tests   all files")
    for kind in KINDS:
        made = package("acme", kind)
        of = [lines(made[path]) for path in ("acme_kmm/__init__.py", "tests/test_acme_kmm.py")]
        print(f"  {kind:48}  {of[0]:7}   {of[1]:5}   {sum(map(lines, made.values())):9}")
    print(f"\nkmm conformance of one plugin (bound: {MOST_S} s)             s   CPU s   rules   kept")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        site = folder / "site"
        for kind in KINDS:
            install(write(folder / kind, f"a-{kind}", kind), site)
            row(folder, f"a-{kind}", (folder / "registry/conformance.yaml") if kind == "registry" else None, site)
        (folder / "own.yaml").write_text(OPTIONS)
        for plugin in OWN:
            if plugin not in ASKED_OTHERWISE:
                row(folder, plugin, folder / "own.yaml")


def row(folder: Path, plugin: str, config: Path | None, *beside: Path) -> None:
    began, spent_s = time.perf_counter(), cpu_s()
    found = conformance(folder, plugin, *(["--config", str(config)] if config else []), beside=beside)
    took_s, spent_s = time.perf_counter() - began, cpu_s() - spent_s
    claims = found.report["claims"]
    kept = sum(each["result"] == "holds" for each in claims)
    print(f"  {plugin:48}  {took_s:7.1f}   {spent_s:5.1f}   {len(claims):5}   {kept:4}")


def cpu_s() -> float:
    """Return what the processes that have ended have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    measure()
