"""The operator of the demo: `kmm run` as a process of its own, as in a cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

_STOP_S = 15.0
_METRICS = re.compile(r"metrics at (\S+),")


class OperatorProcess:
    """Runs the operator; `told` hears each line of its log. `plugins`: a folder with more of them."""

    def __init__(
        self,
        kubeconfig: Path,
        config: Path,
        namespace: str,
        plugins: Path | None,
        told: Callable[[dict[str, Any]], None],
    ) -> None:
        paths = [str(plugins or ""), os.environ.get("PYTHONPATH", "")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KMM_")}
        environment |= {"OPERATOR_NAMESPACE": namespace, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._told = told
        self.said: list[str] = []
        self.metrics = ""
        self._process = subprocess.Popen(  # noqa: S603 -- our own command
            [sys.executable, "-m", "kmm.cli", "run", "--kubeconfig", str(kubeconfig), "--config", str(config)],
            env=environment,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # a Ctrl-C is for us, who stop it
        )
        self._reader = threading.Thread(target=self._read, name="operator-log", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def memory_mib(self) -> float:
        """Return the most memory that it has had."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self) -> int:
        """Stop it as a kubelet would; return its exit code."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join(_STOP_S)
        return code

    def _read(self) -> None:
        if self._process.stderr is None:
            return
        for line in self._process.stderr:
            self.said = [*self.said[-20:], line.rstrip()]
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict):
                if found := _METRICS.match(str(said.get("msg"))):
                    self.metrics = found[1]
                self._told(said)
