"""What a container runtime does for buildah's containers, done here: this machine has what its image would have.

A container has mounts and processes of its own, a read-only root, the user, capabilities and environment that its
specification asks for, and its volumes as the kubelet filled them. Needs root.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kmm.embedded.program import Exit, Run, process

OWN_ROOT = Path(__file__).with_name("own_root.py")
NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
_TOP = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_ETC = (
    *("alternatives", "containers", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "login.defs"),
    *("nsswitch.conf", "resolv.conf", "ssl"),
)
# What buildah's own image has: its user, and programs with capabilities where Debian's have the setuid bit.
_OWN_ETC = {
    "passwd": "root:x:0:0::/root:/bin/sh\nbuild:x:1000:1000::/home/build:/bin/sh\n",
    "group": "root:x:0:\nbuild:x:1000:\n",
    "subuid": "build:1:999\nbuild:1001:64535\n",
    "subgid": "build:1:999\nbuild:1001:64535\n",
}
_OWN_BIN = {"newuidmap": 7, "newgidmap": 6}  # by the number of the capability
_CAPABILITIES = {"SETGID": 6, "SETUID": 7}
_EVERY_CAPABILITY = range(64)
_REVISION_2, _EFFECTIVE = 0x02000000, 0x000001


def make_image(folder: Path) -> Path:
    """Write what the image has that this machine has not, or has otherwise."""
    (folder / "etc").mkdir(parents=True)
    for each in _ETC:
        if (path := Path("/etc", each)).is_dir():
            shutil.copytree(path, folder / "etc" / each, symlinks=True)
        elif path.exists():
            shutil.copy(path, folder / "etc" / each)
    for name, text in _OWN_ETC.items():
        (folder / "etc" / name).write_text(text)
    (folder / "bin").mkdir()
    for name, capability in _OWN_BIN.items():
        program = folder / "bin" / name
        shutil.copyfile(f"/usr/bin/{name}", program)
        program.chmod(0o755)
        said = struct.pack("<5I", _REVISION_2 | _EFFECTIVE, 1 << capability, 0, 0, 0)
        os.setxattr(program, "security.capability", said)
    return folder


async def contained(run: Run, image: Path, *, layered: bool = False) -> Exit:
    """Run a container's command. `layered`: its empty folders are on an overlay."""
    with tempfile.TemporaryDirectory(prefix="kmm-container-") as temporary:
        argv = await asyncio.to_thread(_argv, run, image, Path(temporary), layered=layered)
        return await process(replace(run, argv=argv, env={}, mounts={}))


def _argv(run: Run, image: Path, folder: Path, *, layered: bool) -> tuple[str, ...]:
    """Make a container's root; return what runs it there."""
    root = folder / "root"
    shutil.copytree(image / "etc", root / "etc", symlinks=True)
    mounts = [[each, each, True] for each in ("/usr", "/sys")]
    for name in _TOP:
        if (path := Path("/", name)).is_symlink():
            (root / name).symlink_to(path.readlink())
        elif path.is_dir():
            mounts.append([str(path), str(path), True])
    mounts += [[str(each), f"/usr/bin/{each.name}", True] for each in (image / "bin").iterdir()]
    read_only = {mount["mountPath"] for mount in run.container["volumeMounts"] if mount.get("readOnly")}
    mounts += [[str(real), path, path in read_only] for path, real in run.mounts.items()]
    told = {
        "root": str(root),
        "mounts": mounts,
        "layered": list(_empty_folders(run)) if layered and not is_on_overlay(folder) else [],
        "argv": list(run.argv),
        "env": {"PATH": "/usr/bin:/bin"} | dict(run.env),
        "folder": run.container["workingDir"],
        **_privileges(run.container["securityContext"]),
    }
    spec = folder / "spec.json"
    spec.write_text(json.dumps(told))
    return (*NAMESPACES, sys.executable, str(OWN_ROOT), str(spec))


def _privileges(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what own_root.py is told; what the machine has no means for, such as seccomp, is none of it."""
    kept = _EVERY_CAPABILITY
    if not asked.get("privileged"):
        assert asked["capabilities"]["drop"] == ["ALL"]
        kept = [_CAPABILITIES[each] for each in asked["capabilities"]["add"]]
    return {
        "capabilities": list(kept),
        "user": [asked["runAsUser"], asked["runAsGroup"]],
        "no_new_privileges": not asked.get("allowPrivilegeEscalation", True),
        "read_only": asked.get("readOnlyRootFilesystem", False),
    }


def is_on_overlay(folder: Path) -> bool:
    """Whether the folder's file system is an overlay, on which there can be no other."""
    command = ["stat", "--file-system", "--format=%T", folder]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "overlayfs"


def _empty_folders(run: Run) -> Iterator[str]:
    empty = {volume["name"] for volume in run.pod["spec"]["volumes"] if "emptyDir" in volume}
    return (mount["mountPath"] for mount in run.container["volumeMounts"] if mount["name"] in empty)
