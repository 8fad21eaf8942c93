"""A virtual machine with one of Debian's kernels, and a busybox that does what it is told.

QEMU emulates it all: /dev/kvm may be there and not work. With certificates it has UEFI with Secure Boot and these in
`db`: they end up in the kernel's platform keyring, which Debian's Linux 5.10 lacks. The root is in its memory.
"""

from __future__ import annotations

import gzip
import io
import shlex
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from e2e.debian import OVMF
from e2e.kernel import Kernel
from e2e.program_layer import program_layer
from e2e.variables import enrolled

from kmm.embedded.program import Exit

INIT = Path(__file__).with_suffix(".sh")
# It takes 10 s where nothing else runs. Only what never comes is waited for that long.
BOOT_WITHIN_S, ANSWER_WITHIN_S, STOP_WITHIN_S = 600.0, 300.0, 60.0
ENDED_WITHIN_S = 5.0  # after its end of the port was closed, if it was
_CPU = "qemu64,cx16=off"  # QEMU 7.2 spoils the flags in its cmpxchg16b, which lets Linux 6.12 end in double faults
PROGRAMS = ("chroot", "setpriv")
"""Of this machine, in the folder `bin`: what busybox has of these does less, and takes its own for what they run."""


class Machine:
    """It runs while this is a context manager, and threads may share it.

    `certificates`: in DER; without any, there is no UEFI. `arguments`: of the kernel. `boot_s`: what passed until it
    listened. `console`: the file with what the kernel said.
    """

    def __init__(
        self, folder: Path, kernel: Kernel, busybox: Path, *, certificates: Sequence[bytes] = (), arguments: str = ""
    ) -> None:
        folder.mkdir(parents=True)
        self.kernel, self.console = kernel, folder / "console"
        initramfs = folder / "initramfs"
        initramfs.write_bytes(_initramfs(folder / "root", kernel, busybox))
        self._command = [
            *("qemu-system-x86_64", "-accel", "tcg", "-cpu", _CPU, "-m", "1024", "-nodefaults", "-no-reboot"),
            *("-display", "none", "-serial", f"file:{self.console}"),
            *("-device", "virtio-serial", "-device", "virtserialport,chardev=port"),
            *("-kernel", kernel.image, "-initrd", initramfs, "-append", f"console=ttyS0 panic=-1 {arguments}"),
            *(_secure_boot(folder, certificates) if certificates else ("-machine", "q35")),
        ]
        self._lock = threading.Lock()
        self.boot_s = 0.0

    def __enter__(self) -> Self:
        began = time.monotonic()
        self._socket, theirs = socket.socketpair()
        with theirs:
            port = ("-chardev", f"socket,id=port,fd={theirs.fileno()}")
            self._qemu = subprocess.Popen(
                [*self._command, *port], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()]
            )
        self._answers = self._socket.makefile("rb")
        try:
            self._socket.settimeout(BOOT_WITHIN_S)
            assert self._answered() == b"ready\n", self._why()
        except BaseException:
            self.stop()
            raise
        self.boot_s = time.monotonic() - began
        self._socket.settimeout(ANSWER_WITHIN_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, as by cutting its power."""
        self._qemu.kill()
        self._qemu.wait(STOP_WITHIN_S)
        assert self._qemu.stderr
        self._qemu.stderr.close()
        self._answers.close()
        self._socket.close()

    def unpack(self, tar: bytes, folder: str) -> None:
        """Unpack a tar, not compressed."""
        done = self._ask(f"unpack {len(tar)} {folder}", tar)
        assert done.code == 0, done.output

    def run(self, script: str) -> Exit:
        """Run a script of busybox's shell."""
        return self._ask(f"run {len(script.encode())}", script.encode())

    def said(self, *argv: str) -> str:
        """Return what a command says that has to succeed."""
        done = self.run(shlex.join(argv))
        assert done.code == 0, (argv, done)
        return done.output

    def _ask(self, line: str, content: bytes) -> Exit:
        with self._lock:
            self._socket.sendall(line.encode() + b"\n" + content)
            code, size = map(int, self._answered().split())
            output = self._answers.read(size)
            assert len(output) == size, self._why()
        return Exit(code=code, output=output.decode(errors="replace"))

    def _answered(self) -> bytes:
        try:
            line = self._answers.readline()
        except TimeoutError:
            line = b""
        assert line, self._why()
        return line

    def _why(self) -> str:
        """Say what is known about a machine that does not answer."""
        with suppress(subprocess.TimeoutExpired):
            self._qemu.wait(ENDED_WITHIN_S)
        ended = self._qemu.poll()
        said = self._qemu.stderr.read().decode(errors="replace") if ended is not None and self._qemu.stderr else ""
        console = self.console.read_text(errors="replace") if self.console.exists() else ""
        return f"the machine does not answer; QEMU ended: {ended} {said}; its console: {console[-4000:]}"


def _secure_boot(folder: Path, certificates: Iterable[bytes]) -> Iterable[str]:
    """Return the options for a firmware that trusts nothing but these."""
    variables = folder / "variables"
    variables.write_bytes(enrolled((OVMF / "OVMF_VARS_4M.fd").read_bytes(), certificates))
    flash = "if=pflash,format=raw"
    return (
        *("-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-drive", f"{flash},unit=0,readonly=on,file={OVMF / 'OVMF_CODE_4M.secboot.fd'}"),
        *("-drive", f"{flash},unit=1,file={variables}"),
    )


def _initramfs(root: Path, kernel: Kernel, busybox: Path) -> bytes:
    shutil.copytree(kernel.root / "lib", root / "lib")
    for program in (busybox, *map(_program, PROGRAMS)):
        with tarfile.open(fileobj=io.BytesIO(program_layer(program))) as tar:
            tar.extractall(root, filter="tar")
    shutil.copy(INIT, root / "init")
    (root / "init").chmod(0o755)
    names = "\n".join(str(each.relative_to(root)) for each in sorted(root.rglob("*")))
    command = [busybox, "cpio", "-o", "-H", "newc"]
    made = subprocess.run(command, cwd=root, input=names.encode(), check=True, capture_output=True)
    return gzip.compress(made.stdout, compresslevel=1)


def _program(name: str) -> Path:
    found = shutil.which(name, path="/usr/sbin:/usr/bin")
    assert found, f"Debian has {name}"
    return Path(found)
