"""What the nodes of the demo do: load the module that is inside a real image for their kernel, unload it, build."""

from __future__ import annotations

import asyncio
import re
import shlex
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kmm.contract import Access, Forbidden, ImageInfo, Unavailable
from kmm.core import names
from kmm.demo.builder import build
from kmm.embedded.program import Exit, Run, idle
from kmm.oci.inspection import inspect
from kmm.oci.session import Session

_MODPROBE = re.compile(r"\bmodprobe\b[^&;\n}]*")
_COPY = re.compile(r"\bcp -r (\S+)/\* (\S+)")
_REMOVE = re.compile(r"^remove (\S+) (\S+)$", re.MULTILINE)
_DEADLINE_S = 10.0


class Nodes:
    """The kernels of the nodes. `loaded`: what was compiled, by node and module; `firmware`: files by node.

    `told` hears of each that comes or goes.
    """

    def __init__(self, session: Session, access: Access, firmware: str, told: Callable[[str, str], None]) -> None:
        self._session, self._access = session, access
        self._firmware, self._told = firmware, told
        self._lock = threading.Lock()
        self.loaded: dict[str, dict[str, str]] = {}
        self.firmware: dict[str, dict[str, bytes]] = {}

    async def run(self, run: Run) -> Exit:
        """Carry out builds and a loader's hooks; everything else just runs."""
        if names.JOB_TYPE in run.pod["metadata"]["labels"]:
            self._told(
                run.node, f"{run.container['name']} builds for {run.pod['metadata']['labels'][names.TARGET_KERNEL]}"
            )
            return await asyncio.to_thread(build, run, self._session, self._access.ca_pem or "")
        if not run.hook:
            return await idle(run)
        text = run.argv[-1] if run.argv[0] != "modprobe" else shlex.join(run.argv)
        # As the command has it: the firmware first, for which a driver looks as soon as it is loaded.
        for folder, _target in _COPY.findall(text):
            await self._copy(run, folder)
        for folder, _target in _REMOVE.findall(text):
            self._remove(run, folder)
        for called in _MODPROBE.findall(text):
            words = shlex.split(called)[1:]
            name = words[-1]
            if any(word.startswith("-r") for word in words):
                self._unload(run, name)
            elif failed := await self._load(run, words[words.index("-d") + 1], name):
                return Exit(code=1, output=failed)
        return Exit()

    def restarted(self, node: str) -> None:
        """Forget what was loaded: the node has booted anew."""
        with self._lock:
            self.loaded.pop(node, None)

    async def _load(self, run: Run, folder: str, name: str) -> str:
        path = f"{folder}/lib/modules/{run.kernel}/{name}.ko"
        try:
            found = await self._inspect(str(run.container["image"]), path)
        except (Unavailable, Forbidden) as error:
            return f"modprobe: ERROR: {error}"
        if found is None or path not in found.files:
            return f"modprobe: FATAL: Module {name} not found in directory {folder}/lib/modules/{run.kernel}"
        compiled = found.files[path].decode()
        if not compiled.startswith(f"{name} for {run.kernel}"):
            return f"modprobe: ERROR: could not insert '{name}': Exec format error"
        with self._lock:
            self.loaded.setdefault(run.node, {})[name] = compiled
        self._told(run.node, f"modprobe {name}: loaded into {run.kernel}")
        return ""

    def _unload(self, run: Run, name: str) -> None:
        with self._lock:
            was = self.loaded.get(run.node, {}).pop(name, None)
        if was:
            self._told(run.node, f"modprobe -r {name}: unloaded")

    async def _copy(self, run: Run, folder: str) -> None:
        path = f"{folder}/{Path(self._firmware).name}"
        found = await self._inspect(str(run.container["image"]), path)
        if found and path in found.files:
            with self._lock:
                self.firmware.setdefault(run.node, {})[path] = found.files[path]

    def _remove(self, run: Run, folder: str) -> None:
        if folder == str(Path(self._firmware).parent):
            with self._lock:
                self.firmware.pop(run.node, None)

    async def _inspect(self, image: str, *files: str) -> ImageInfo | None:
        asked = partial(inspect, image, self._access, self._session, _DEADLINE_S, files)
        return await asyncio.to_thread(asked)
