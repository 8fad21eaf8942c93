"""What the nodes of the demo do: load the module inside a real image for their kernel, unload it, build, sign.

Their kernels load only what is signed, as with Secure Boot.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from kmm.contract import Access, Forbidden, ImageInfo, Unavailable
from kmm.core import names
from kmm.core.images import SIGN
from kmm.demo.builder import build, text_of
from kmm.embedded.program import Exit, Run, idle, process
from kmm.oci.inspection import inspect
from kmm.oci.session import Session
from kmm.signing import verification
from kmm.signing.certificate import Certificate
from kmm.signing.errors import ModuleError

_MODPROBE = re.compile(r"\bmodprobe\b[^&;\n}]*")
_COPY = re.compile(r"\bcp -r (\S+)/\* (\S+)")
_REMOVE = re.compile(r"^remove (\S+) (\S+)$", re.MULTILINE)
_DEADLINE_S = 10.0


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read modprobe's arguments, as far as a loader has them."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("-r", "--remove", action="store_true")
    parser.add_argument("-d", "--dirname", default="/")
    parser.add_argument("name")
    parser.add_argument("parameters", nargs="*")
    return parser.parse_args(words)


class Nodes:
    """The kernels of the nodes. `loaded`: what was compiled, by node and module; `firmware`: files by node.

    They know firmware by the paths in images that are given; `trusted`: whose signatures they take; `told` hears of
    each module that comes or goes.
    """

    def __init__(
        self,
        session: Session,
        access: Access,
        firmware: Sequence[str],
        trusted: Certificate,
        told: Callable[[str, str], None],
    ) -> None:
        self._session, self._access = session, access
        self._firmware, self._trusted, self._told = firmware, trusted, told
        self._lock = threading.Lock()
        self.loaded: dict[str, dict[str, str]] = {}
        self.firmware: dict[str, dict[str, bytes]] = {}
        self._brought: dict[str, list[str]] = {}  # by the pod's uid

    async def run(self, run: Run) -> Exit:
        """Carry out builds, signatures and a loader's hooks; everything else just runs."""
        labels = run.pod["metadata"]["labels"]
        if kind := labels.get(names.JOB_TYPE):
            self._told(run.node, f"{run.container['name']} {kind}s for {labels[names.TARGET_KERNEL]}")
            if kind == SIGN:
                return await _sign(run)
            return await asyncio.to_thread(build, run, self._session, self._access.ca_pem or "")
        if not run.hook:
            return await idle(run)
        text = run.argv[-1] if run.argv[0] != "modprobe" else shlex.join(run.argv)
        # As the command has it: the firmware first, for which a driver looks as soon as it is loaded.
        for folder, _target in _COPY.findall(text):
            await self._copy(run, folder)
        if _REMOVE.search(text):
            self._remove(run)
        for called in _MODPROBE.findall(text):
            modprobe = _arguments(shlex.split(called)[1:])
            if modprobe.remove:
                self._unload(run, modprobe.name)
            elif failed := await self._load(run, modprobe.dirname, modprobe.name):
                return Exit(code=1, output=failed)
        return Exit()

    def restarted(self, node: str) -> None:
        """Forget what was loaded: the node has booted anew."""
        with self._lock:
            self.loaded.pop(node, None)

    def inspect(self, image: str, *files: str) -> ImageInfo | None:
        """Return what is in an image, as `kmm.oci.inspection` does."""
        return inspect(image, self._access, self._session, _DEADLINE_S, files)

    async def _load(self, run: Run, folder: str, name: str) -> str:
        path = f"{folder}/lib/modules/{run.kernel}/{name}.ko"
        try:
            found = await asyncio.to_thread(self.inspect, str(run.container["image"]), path)
        except (Unavailable, Forbidden) as error:
            return f"modprobe: ERROR: {error}"
        if found is None or path not in found.files:
            return f"modprobe: FATAL: Module {name} not found in directory {folder}/lib/modules/{run.kernel}"
        try:
            refused = verification.verify(BytesIO(found.files[path]), self._trusted).problem
            text = text_of(found.files[path])
        except ModuleError as error:
            return f"modprobe: ERROR: could not insert '{name}': Exec format error: it {error}"
        if refused:
            return f"modprobe: ERROR: could not insert '{name}': Key was rejected by service: it {refused}"
        if not text.startswith(f"{name} for {run.kernel}"):
            return f"modprobe: ERROR: could not insert '{name}': Exec format error"
        with self._lock:
            self.loaded.setdefault(run.node, {})[name] = text
        self._told(run.node, f"modprobe {name}: loaded into {run.kernel}")
        return ""

    def _unload(self, run: Run, name: str) -> None:
        with self._lock:
            was = self.loaded.get(run.node, {}).pop(name, None)
        if was:
            self._told(run.node, f"modprobe -r {name}: unloaded")

    async def _copy(self, run: Run, folder: str) -> None:
        known = [path for path in self._firmware if str(Path(path).parent) == folder]
        found = await asyncio.to_thread(self.inspect, str(run.container["image"]), *known)
        if found:
            with self._lock:
                self._brought[run.pod["metadata"]["uid"]] = list(found.files)
                self.firmware.setdefault(run.node, {}).update(found.files)

    def _remove(self, run: Run) -> None:
        with self._lock:
            for path in self._brought.pop(run.pod["metadata"]["uid"], ()):
                self.firmware[run.node].pop(path, None)


async def _sign(run: Run) -> Exit:
    """Run what the container runs: the command itself, of the Python that we run in."""
    # It may be below a folder that the container mounts something at: there it is itself.
    python = {sys.executable: Path(sys.executable)}
    argv = (sys.executable, "-m", "kmm.cli", *run.argv[1:])
    return await process(replace(run, argv=argv, mounts={**run.mounts, **python}))
