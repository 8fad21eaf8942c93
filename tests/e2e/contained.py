"""What a container runtime does for a loader's container, done in a virtual machine."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from e2e.machine import Machine

from kmm.embedded.program import Exit

# What runtimes give to whoever asks for nothing.
CAPABILITIES = (
    *("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service"),
    *("net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Contained:
    """A container named `name`, of layers that are not compressed, the lowest first.

    `mounts`: from paths in it to a path of the machine, and whether it is read-only. `added`: capabilities beside
    CAPABILITIES. It keeps the root user, and can win no more rights.
    """

    def __init__(
        self,
        machine: Machine,
        name: str,
        layers: Iterable[bytes],
        *,
        mounts: Mapping[str, tuple[str, bool]] = {},
        added: Sequence[str] = ("sys_module",),
    ) -> None:
        self._machine, self.root = machine, f"/containers/{name}"
        for each in layers:
            machine.unpack(each, self.root)
        bounding = ",".join(["-all", *(f"+{each}" for each in (*CAPABILITIES, *added))])
        privileges = ("/bin/setpriv", "--no-new-privs", "--bounding-set", bounding)
        # With their paths they are not busybox's.
        self._enter = ("env", "-i", f"PATH={PATH}", *privileges, "/bin/chroot", self.root)
        script = [
            "set -e",
            f"cd {self.root}",
            "mkdir -p proc sys dev tmp",
            "mount -t proc proc proc",
            "mount -t sysfs -o ro sysfs sys",
            "mount -t tmpfs tmpfs dev",
            "mknod -m 666 dev/null c 1 3",
            "touch dev/termination-log",
        ]
        for path, (real, read_only) in mounts.items():
            there = shlex.quote(path.lstrip("/"))
            script += [f"mkdir -p {there}", f"mount --bind {shlex.quote(real)} {there}"]
            if read_only:
                script.append(f"mount -o remount,bind,ro {there}")
        done = machine.run("\n".join(script))
        assert done.code == 0, done.output

    def run(self, argv: Iterable[str], *, but: Sequence[str] = ()) -> Exit:
        """Run a command in it, without the capabilities in `but`."""
        less = ("/bin/setpriv", "--bounding-set", ",".join(f"-{each}" for each in but)) if but else ()
        return self._machine.run(shlex.join((*less, *self._enter, *argv)))

    def start(self, argv: Iterable[str]) -> str:
        """Start a service in it; return the number of its process."""
        return self._machine.said(
            "sh", "-c", f"{shlex.join((*self._enter, *argv))} >/dev/null 2>&1 & echo $!"
        ).strip()
