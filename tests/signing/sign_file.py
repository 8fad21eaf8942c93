"""The kernel's own `sign-file`: the one that is installed, else that of Debian 12's `linux-kbuild-6.1`; no root.

By hand:

    python tests/signing/sign_file.py                # only gets the program, and prints where it is
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_PACKAGE = "linux-kbuild-6.1"
_PLACE = f"usr/lib/{_PACKAGE}/scripts/sign-file"


class Missing(Exception):
    """This machine cannot have the program, and why."""


def program() -> Path:
    """The program: where the package has it, else from the package in the cache, which is filled first."""
    installed = Path("/", _PLACE)
    if installed.exists():
        return installed
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kmm", "sign-file")
    path = cache / "debian" / _PLACE
    if not path.exists():
        if lacking := [each for each in ("apt-get", "dpkg-deb") if not shutil.which(each)]:
            raise Missing(f"no {installed}, and to get Debian's {_PACKAGE} there is no {' and no '.join(lacking)}")
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
            raise Missing(f"no /{_PLACE}, and apt-get download fails: {run.stderr.strip()}")
        (package,) = Path(temporary).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, f"{temporary}/debian"], check=True)
        made = Path(temporary, "debian")
        # Elsewhere the package is another one, or the program needs another libcrypto.
        ran = subprocess.run([made / _PLACE], check=False, capture_output=True, text=True)
        if "Usage:" not in ran.stderr:
            raise Missing(f"Debian's sign-file does not run here: {ran.stderr.strip()}")
        made.rename(cache / "debian")


def _download(folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "--quiet", "download", _PACKAGE], cwd=folder, check=False, capture_output=True, text=True
    )


def sign(module: bytes, hash_name: str, key: Path, certificate: Path, *options: str, passphrase: str = "") -> bytes:
    """Return `module` as the program signs it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "module.ko")
        path.write_bytes(module)
        subprocess.run(
            [program(), *options, hash_name, key, certificate, path],
            check=True,
            env={**os.environ, "KBUILD_SIGN_PIN": passphrase} if passphrase else None,
        )
        return path.read_bytes()


if __name__ == "__main__":
    print(program())
