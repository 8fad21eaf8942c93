"""The registry of the distribution project on this machine: Debian's `docker-registry`, no container, no root.

By hand:

    python tests/registry/docker_registry.py         # only gets the program, and prints where it is
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import trustme

READY_WITHIN = 30.0
STOPPED_WITHIN = 5.0
_NAME = "docker-registry"
_VERSION = " 2.8."  # what the suite says of it is so for these


class Missing(Exception):
    """This machine cannot have the registry, and why."""


def program() -> Path:
    """The program: the one on PATH where its version fits, else Debian's in the cache, which is filled first."""
    found = shutil.which(_NAME)
    if found and _VERSION in subprocess.run([found, "--version"], capture_output=True, check=False, text=True).stdout:
        return Path(found)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kmm", _NAME)
    path = cache / "debian/usr/bin" / _NAME
    if not path.exists():
        if lacking := [each for each in ("apt-get", "dpkg-deb") if not shutil.which(each)]:
            raise Missing(
                f"no {_NAME}{_VERSION}x on PATH, and to get Debian's there is no {' and no '.join(lacking)}"
            )
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _unpack(cache)
    return path


def _unpack(cache: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        run = _download(temporary)
        if run.returncode:
            # The lists may be old, or there are none yet. Only root may renew them.
            subprocess.run(["apt-get", "--quiet", "update"], check=False, capture_output=True)
            run = _download(temporary)
        if run.returncode:
            raise Missing(f"no {_NAME}{_VERSION}x on PATH, and apt-get download fails: {run.stderr.strip()}")
        (package,) = Path(temporary).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, f"{temporary}/debian"], check=True)
        Path(temporary, "debian").rename(cache / "debian")


def _download(folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "--quiet", "download", _NAME], cwd=folder, check=False, capture_output=True, text=True
    )


class DockerRegistry:
    """A running registry, as a context manager; its files are in `folder`.

    `auth`: that part of its configuration, <https://distribution.github.io/distribution/about/configuration/>;
    `authority`: who signs its certificate, where it is to serve HTTPS; `access_log`: whether requests are logged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        auth: Mapping[str, Any] | None = None,
        authority: trustme.CA | None = None,
        access_log: bool = False,
    ) -> None:
        self.program = program()
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_file = self.folder / "log"
        self.host = ""
        http: dict[str, Any] = {"addr": "127.0.0.1:0", "secret": secrets.token_hex(16)}
        if authority:
            certificate = authority.issue_cert("127.0.0.1")
            certificate.private_key_and_cert_chain_pem.write_to_path(str(self.folder / "server.pem"))
            http["tls"] = {"certificate": str(self.folder / "server.pem"), "key": str(self.folder / "server.pem")}
        config = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": not access_log}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "storage")},
                "delete": {"enabled": True},
            },
            "http": http,
            **({"auth": auth} if auth else {}),
        }
        # JSON is YAML.
        (self.folder / "config.yml").write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [str(self.program), "serve", str(self.folder / "config.yml")]
        if setpriv := shutil.which("setpriv"):
            # So the kernel kills it when we are killed.
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            self.host = self._listening()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _listening(self) -> str:
        """Wait until it says where it listens: it has chosen the port itself."""
        until = time.monotonic() + READY_WITHIN
        while self._process and self._process.poll() is None and time.monotonic() < until:
            if match := re.search(r'msg="listening on (127\.0\.0\.1:\d+)', self.log_file.read_text()):
                return match[1]
            time.sleep(0.02)
        raise RuntimeError(f"{self.program} does not start:\n{self.log_file.read_text()[-4000:]}")


if __name__ == "__main__":
    print(program())
