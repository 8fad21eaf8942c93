"""Run a program as a container runtime would: in a root, mounts and processes of its own. It may wipe `/`.

    unshare --mount --propagation private --pid --fork --kill-child python own_root.py SPEC

Needs root, and `unshare` before. SPEC is a JSON file: `root`, a folder that becomes `/`; `mounts`, lists of a real
path, the one in the root, and whether it is read-only; `capabilities`, the numbers of those that it keeps; `argv`;
`env`. It may also have `layered`, paths of mounts that are to be on an overlay; `read_only`, whether the root is;
`user`, with the group, and `no_new_privileges`; `folder`, where it begins. Nothing but Python itself is used once the
old root is gone.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_READ_ONLY, _REMOUNT, _BIND = 1, 32, 4096
_DETACH = 2
_DROP_BOUND, _NO_NEW_PRIVILEGES = 24, 38
_LAST_CAPABILITY = 63
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def _call(name: str, *arguments: object) -> None:
    encoded = [each.encode() if isinstance(each, str) else each for each in arguments]
    if getattr(_LIBC, name)(*encoded):
        number = ctypes.get_errno()
        raise OSError(number, f"{name} {arguments}: {os.strerror(number)}")


def _bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    _make_place(source, target)
    _call("mount", str(source), str(target), None, _BIND, None)
    if read_only:
        _call("mount", None, str(target), None, _BIND | _REMOUNT | _READ_ONLY, None)


def _layer(source: Path, target: Path) -> None:
    """Mount a folder through an overlay, so that it seems to be on one."""
    _make_place(source, target)
    beside = {each: source.with_name(f"{source.name}.{each}") for each in ("lower", "work")}
    for each in beside.values():
        each.mkdir(exist_ok=True)
    options = f"lowerdir={beside['lower']},upperdir={source},workdir={beside['work']}"
    _call("mount", "overlay", str(target), "overlay", 0, options)


def _make_place(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def main(spec: Path) -> None:
    """Enter the root, make sure that it is the one, and become the program."""
    told = json.loads(spec.read_text())
    root = Path(told["root"])
    wanted = {"/", "/proc", "/dev", *(f"/dev/{each}" for each in _DEVICES), *(each[1] for each in told["mounts"])}
    _bind(root, root)
    for name in ("proc", "dev"):
        (root / name).mkdir(exist_ok=True)
    _call("mount", "proc", str(root / "proc"), "proc", 0, None)
    _call("mount", "tmpfs", str(root / "dev"), "tmpfs", 0, None)
    for each in _DEVICES:
        _bind(Path("/dev", each), root / "dev" / each)
    for source, target, read_only in told["mounts"]:
        if target in told.get("layered", ()):
            _layer(Path(source), root / target.lstrip("/"))
        else:
            _bind(Path(source), root / target.lstrip("/"), read_only=read_only)
    held = sorted({*(each.name for each in root.iterdir())})
    os.chdir(root)
    Path("old").mkdir()
    _call("syscall", _PIVOT_ROOT[os.uname().machine], b".", b"old")
    os.chdir("/")
    _call("umount2", "/old", _DETACH)
    Path("/old").rmdir()
    mounted = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    if sorted(os.listdir("/")) != held or mounted != wanted:  # noqa: PTH208 -- names
        sys.exit(f"this is not the root that was made: it holds {os.listdir('/')}, mounted are {mounted}")  # noqa: PTH208
    if told.get("read_only"):
        _call("mount", None, "/", None, _BIND | _REMOUNT | _READ_ONLY, None)
    for number in range(_LAST_CAPABILITY + 1):
        if number not in told["capabilities"]:
            _LIBC.prctl(_DROP_BOUND, number, 0, 0, 0)  # the last ones may not exist
    if told.get("no_new_privileges"):
        _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    os.chdir(told.get("folder", "/"))
    user, group = told.get("user", (0, 0))
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    os.execve(told["argv"][0], told["argv"], told["env"])  # noqa: S606 -- it is what this is for


if __name__ == "__main__":
    main(Path(sys.argv[1]))
