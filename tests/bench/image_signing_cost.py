"""What signing an image costs, next to copying it with skopeo: bytes, requests, time, memory.

The registry is a process of its own (`serve`), which counts what goes through it, and so is `kmm sign-image`. By
itself: `python tests/bench/image_signing_cost.py`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from signing.golden import GOLDEN, module

MIB = 1 << 20
PATH = "/opt/lib/modules/6.1.0/acme.ko"
# Where the module is, and the layers without it: how many of how many MiB. 400 MiB each.
IMAGES = {"last of 3": ((2, 200),), "first of 20": ((19, 21),)}
_PAIR = ("--key", GOLDEN / "self.key.pem", "--cert", GOLDEN / "self.pem")


class Counting:
    """Passes on connections to a port, and counts the bytes in each direction."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.bytes = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                upstream = socket.create_connection(("127.0.0.1", self._target))
                for pair in ((client, upstream), (upstream, client)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(256 * 1024):
                with self._lock:
                    self.bytes += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a command cost. `peak_mib`: the largest resident set of its process."""

    seconds: float
    requests: int
    moved_mib: float
    peak_mib: float


def serve() -> None:
    """Serve until standard input ends; for each line, tell what was asked and how much went through."""
    from kmm.embedded.registry import Registry  # noqa: PLC0415 -- the measured process does without

    noise = random.Random(0)  # noqa: S311
    # Half of it like code, which packs, and half like firmware, which does not.
    driver = {PATH: module(MIB // 2) + noise.randbytes(MIB // 2)}
    with Registry(tls=False) as registry, closing(Counting(int(registry.host.rpartition(":")[2]))) as counting:
        for number, shape in enumerate(IMAGES.values()):
            # What does not compress, as drivers and firmware hardly do.
            others = [{f"/usr/{n}.bin": noise.randbytes(size * MIB)} for count, size in shape for n in range(count)]
            registry.push_image(f"acme:{number}", layers=[*others, driver] if number == 0 else [driver, *others])
        print(json.dumps({"host": f"127.0.0.1:{counting.port}"}), flush=True)
        for _ in sys.stdin:
            print(json.dumps([len(registry.log), counting.bytes]), flush=True)


@contextmanager
def serving() -> Iterator[tuple[subprocess.Popen[str], str]]:
    server = subprocess.Popen(
        [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield server, json.loads(server.stdout.readline())["host"]
    finally:
        server.stdin.close()
        server.wait()


def asked(server: subprocess.Popen[str]) -> tuple[int, int]:
    """Return how many requests there were so far, and how many bytes."""
    server.stdin.write("\n")
    server.stdin.flush()
    requests, moved = json.loads(server.stdout.readline())
    return requests, moved


def cost(server: subprocess.Popen[str], command: list[str | Path], folder: str) -> Cost:
    """Run a command, and return what it cost. Raises RuntimeError where it fails."""
    requests, moved = asked(server)
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": folder}) as process:
        # What the kernel counted for it alone, and for nothing that we started before.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed")
    after = asked(server)
    return Cost(
        seconds=seconds,
        requests=after[0] - requests,
        moved_mib=(after[1] - moved) / MIB,
        peak_mib=used.ru_maxrss / 1024,
    )


def measure() -> None:
    kmm, skopeo = Path(sys.executable).parent / "kmm", shutil.which("skopeo")
    print("\nsigning one module of 1 MiB in an image of 400 MiB, over HTTP on loopback")
    print(f"  {'':54}      s  requests  MiB moved  peak MiB")
    with serving() as (server, host), tempfile.TemporaryDirectory() as folder:
        policy = Path(folder, "policy.json")
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        for number, where in enumerate(IMAGES):
            source = f"{host}/acme:{number}"
            plain = ("--insecure", "--unsigned-insecure")
            runs: list[tuple[str, list[str | Path]]] = [
                (f"{what}, the module {how}", [kmm, "sign-image", *_PAIR, *plain, *files, source, f"{host}/{target}"])
                for what, target, how, files in (
                    ("in the repository", f"acme:{number}-signed", "named", ("--file", PATH)),
                    ("a rerun", f"acme:{number}-signed", "named", ("--file", PATH)),
                    ("to another repository", f"signed:{number}", "named", ("--file", PATH)),
                    ("in the repository", f"acme:{number}-any", "by a pattern", ()),
                )
            ]
            if skopeo:
                flags = ("--quiet", "--src-tls-verify=false", "--dest-tls-verify=false")
                copy = [f"docker://{source}", f"docker://{host}/copied:{number}"]
                runs.append(
                    ("skopeo copy to another repository", [skopeo, "--policy", policy, "copy", *flags, *copy])
                )
            print(f"  in the {where} layers")
            for what, command in runs:
                found = cost(server, command, folder)
                figures = f"{found.seconds:7.2f}{found.requests:10}{found.moved_mib:11.2f}{found.peak_mib:10.1f}"
                print(f"    {what:52}{figures}")


def main() -> None:
    serve() if sys.argv[1:] == ["serve"] else measure()


if __name__ == "__main__":
    main()
