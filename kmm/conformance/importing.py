"""A plugin, imported: in a process of its own, which tells what that cost, what it started and left running."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import REGISTRY

# What the operator has imported before any plugin is: it costs the plugin nothing.
_THERE = (
    "kmm.contract",
    "kmm.job",
    "kmm.oci.inspection",
    "kmm.oci.session",
    "importlib.metadata",
)

# Python's events of what is started.
_STARTS = {
    **dict.fromkeys(
        ("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"),
        "a process",
    ),
    "socket.connect": "a connection",
}


def main() -> None:
    """Answer with the CPU time of the import, and what runs, is open and is measured since."""
    channel = os.dup(1)
    os.dup2(2, 1)
    module, _, attribute = json.load(sys.stdin)["value"].partition(":")
    for name in _THERE:
        importlib.import_module(name)
    before, measured = _running(), _metrics()
    started_s = time.process_time()
    with _noted() as began:
        target = importlib.import_module(module)
    cpu_s = time.process_time() - started_s
    for name in filter(None, attribute.split(".")):
        target = getattr(target, name)
    after = _running()
    more = {what: sorted(after[what] - before[what]) for what in after}
    answer = {"cpuS": cpu_s, "started": more, "began": list(began), "metrics": sorted(_metrics() - measured)}
    os.write(channel, json.dumps(answer).encode())


@contextmanager
def _noted() -> Iterator[dict[str, None]]:
    """Note what is started, for it may be over soon."""
    began: dict[str, None] = {}
    noting = True
    start = threading.Thread.start

    def note(event: str, _: object) -> None:
        if noting and event in _STARTS:
            began[_STARTS[event]] = None

    def note_thread(self: threading.Thread) -> None:
        began["a thread"] = None
        start(self)

    sys.addaudithook(note)
    threading.Thread.start = note_thread  # type: ignore[method-assign]
    try:
        yield began
    finally:
        noting = False
        threading.Thread.start = start  # type: ignore[method-assign]


def _running() -> dict[str, set[str]]:
    """Return the threads and children of this process, and its sockets and pipes, as Linux tells."""
    own = Path("/proc/self")
    threads = {each.name for each in (own / "task").iterdir()}
    children = {pid for each in (own / "task").iterdir() for pid in (each / "children").read_text().split()}
    return {"threads": threads, "processes": children, "sockets and pipes": set(_open(own / "fd"))}


def _metrics() -> set[str]:
    """Return the names of what is measured where plugins' metrics are by default."""
    return {each.name for each in REGISTRY.collect()}


def _open(folder: Path) -> list[str]:
    found = []
    for each in folder.iterdir():
        try:
            found.append(str(each.readlink()))
        except OSError:  # the one that lists them
            continue
    return [each for each in found if each.startswith(("socket:", "pipe:"))]


if __name__ == "__main__":
    main()
