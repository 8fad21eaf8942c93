"""kaniko's executor, built once from its Go module.

By hand:

    python tests/e2e/executor.py       # builds it (8 minutes), and prints where it is
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

# The last release of the original: whatever it takes, its forks take too.
VERSION = "v1.24.0"
_MODULE = "github.com/GoogleContainerTools/kaniko"
_SUM = "h1:PgzzuOwaraxC7UMw0F0YoxNHi+a6YeiAbDgc2GHrk+M="


class Missing(Exception):
    """This machine cannot have it, and why."""


def executor() -> Path:
    """Return the program, from the cache or built now. Raises Missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kmm", "kaniko")
    program = cache / VERSION / "executor"
    if not program.exists():
        if not shutil.which("go"):
            raise Missing("kaniko's executor is built with Go, and there is none here")
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.exists():
                _build(program)
    return program


def _build(program: Path) -> None:
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"}
    with tempfile.TemporaryDirectory(dir=program.parents[1]) as temporary:
        download = ["go", "mod", "download", "-json", f"{_MODULE}@{VERSION}"]
        ran = subprocess.run(download, cwd=temporary, check=False, capture_output=True, text=True, env=environment)
        if ran.returncode:
            raise Missing(f"go mod download fails: {(ran.stdout + ran.stderr)[-2000:]}")
        found = json.loads(ran.stdout)
        assert found["Sum"] == _SUM, "it is another one"
        build = ["go", "build", "-trimpath", "-ldflags=-s -w", f"-o={temporary}/executor", "./cmd/executor"]
        subprocess.run(build, cwd=found["Dir"], check=True, env=environment)
        program.parent.mkdir(exist_ok=True)
        Path(temporary, "executor").rename(program)


if __name__ == "__main__":
    print(executor())
