"""What real builds need from Debian: programs of this machine, and base images: for kernel modules, and with Python.

mmdebstrap makes them once, the first for each of Debian's kernels, in a minute; they are kept in the cache, as OCI
layouts. By hand:

    python tests/e2e/debian.py       # makes the images, and prints where they are
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kmm.embedded.image import OCI_INDEX, Image, digest_of, image

SUITE, NEXT_SUITE = "bookworm", "trixie"
PACKAGES = {program: program for program in ("buildah", "mmdebstrap", "skopeo")} | {
    "newuidmap": "uidmap",
    "modinfo": "kmod",
    "pkcs11-tool": "opensc",
    "softhsm2-util": "softhsm2",
}
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
OVMF = Path("/usr/share/OVMF")
QEMU = {"qemu-system-x86_64": "qemu-system-x86", str(OVMF / "OVMF_CODE_4M.secboot.fd"): "ovmf"}
# Nobody reads these there, and every build unpacks them.
UNWANTED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "*lto-dump*",
    "*/lto1",
)
INCLUDED = ("gcc", "make", "busybox-static")
PYTHON = ("python3", "python3-pip")
# A mirror may be slow; what hangs ends, and is told.
APT_WITHIN_S, IMAGE_WITHIN_S = 600, 1200
_APT_OPTIONS = ("--option=DPkg::Lock::Timeout=300", "--option=Acquire::Retries=3")


class Missing(Exception):
    """This machine cannot have it, and why."""


def need_programs(packages: Mapping[str, str] = PACKAGES) -> None:
    """Install what is missing, programs and files with their packages: as root, on Debian. Raises Missing."""
    lacking = [package for name, package in packages.items() if not shutil.which(name) and not Path(name).is_file()]
    if os.geteuid():
        raise Missing("mounts and namespaces as a container runtime makes them need root")
    if not lacking:
        return
    if not shutil.which("apt-get"):
        raise Missing(f"there is no {' and no '.join(lacking)}, nor apt-get to install it with")
    print(f"installing {' '.join(lacking)}", file=sys.stderr)
    _apt_get("update")
    _apt_get("install", "--yes", "--no-install-recommends", *lacking)


@dataclass(frozen=True)
class Toolkit:
    """A base image with gcc, make and the headers of `kernel`. `layout`: where it is; `busybox`: a program of it."""

    kernel: str
    layout: Path
    busybox: Path


def toolkit() -> Toolkit:
    """Return the image for Debian's present kernel, from the cache or made now. Raises Missing."""
    kernel = depended(f"linux-headers-cloud-{architecture()}", "linux-headers-")
    # What it is made from: the kernel's number moves with security updates.
    folder = kept("toolkit", [SUITE, kernel, INCLUDED, UNWANTED], lambda made: _make(kernel, made))
    return Toolkit(kernel=kernel, layout=folder / "layout", busybox=folder / "busybox")


def python() -> Path:
    """Return the layout of an image with Debian's Python and pip, from the cache or made now. Raises Missing."""

    def make(made: Path) -> None:
        write_layout(image([_root(PYTHON, made.with_name("root.tar.gz")).read_bytes()]), made / "layout")

    return kept("python", [SUITE, PYTHON, UNWANTED], make) / "layout"


def kept(what: str, made_from: object, make: Callable[[Path], None]) -> Path:
    """Return the folder of the cache with what is made from that. `make` fills it, where it is not there yet."""
    name = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
    place = cache(what)
    folder = place / name
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=place) as temporary:
                made = Path(temporary, "made")
                made.mkdir()
                make(made)
                made.rename(folder)
    return folder


def cache(name: str) -> Path:
    """Return a folder in the cache."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kmm", name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def architecture() -> str:
    """Return this machine's, as Debian calls it; empty elsewhere."""
    return _said("dpkg", "--print-architecture").strip() if shutil.which("dpkg") else ""


def release(suite: str) -> tuple[str, ...]:
    """Return apt's options for another release of Debian than this machine's, from where that is. Raises Missing."""
    folder = cache("apt") / suite
    for each in ("state/lists/partial", "cache/archives/partial"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    archive = next((line.split()[1] for line in _sources().splitlines()), "")
    if not archive:
        raise Missing(f"apt has no source of {SUITE}")
    (folder / "sources.list").write_text(f"deb [signed-by={KEYS}] {archive} {suite} main\n")
    places = {"State": "state", "Cache": "cache", "Etc::SourceList": "sources.list", "Etc::SourceParts": "none"}
    return (
        *(f"--option=Dir::{name}={folder / place}" for name, place in places.items()),
        "--option=Dir::State::status=/var/lib/dpkg/status",
        "--option=Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    )


def depended(package: str, prefix: str, options: tuple[str, ...] = ()) -> str:
    """Return the rest of the name that begins so, of what a package depends on now. Raises Missing."""
    pattern = rf"Depends: {re.escape(prefix)}(\d\S*)"
    found = re.search(pattern, _said("apt-cache", *options, "depends", package))
    if found is None:  # the lists may be old, or there are none yet
        _apt_get(*options, "update")
        found = re.search(pattern, _said("apt-cache", *options, "depends", package))
    if found is None:
        raise Missing(f"apt-cache knows no {package}")
    return found[1]


def download(package: str, folder: Path, options: tuple[str, ...] = ()) -> Path:
    """Download a package's file. Raises Missing."""
    command = ["apt-get", "--quiet", *_APT_OPTIONS, *options, "download", package]
    try:
        _run(command, APT_WITHIN_S, folder=folder)
    except Missing:  # the lists may be old
        _apt_get(*options, "update")
        _run(command, APT_WITHIN_S, folder=folder)
    (found,) = folder.glob(f"{package}_*.deb")
    return found


def _make(kernel: str, made: Path) -> None:
    tar = _root((*INCLUDED, f"linux-headers-{kernel}"), made.with_name("root.tar.gz"))
    with tarfile.open(tar) as files:
        member = next(each for each in files if each.isfile() and each.name.endswith("bin/busybox"))
        program = files.extractfile(member)
        assert program is not None
        (made / "busybox").write_bytes(program.read())
        (made / "busybox").chmod(0o755)
    write_layout(image([tar.read_bytes()]), made / "layout")


def _root(include: tuple[str, ...], tar: Path) -> Path:
    """Write a root with these packages, and those that each Debian has."""
    options = [f"--dpkgopt=path-exclude={each}" for each in UNWANTED]
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(include)}", *options, SUITE]
    _run([*command, str(tar), "-"], IMAGE_WITHIN_S, said=_sources())
    return tar


def _sources() -> str:
    """Return where this machine has Debian's packages from: an archive or a mirror, with its security updates."""
    format_ = "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)"
    said = _said("apt-get", "indextargets", "--format", format_, "Identifier: Packages")
    found = [line.split() for line in said.splitlines() if line.endswith(" Debian")]
    return "".join(f"deb {uri} {name} {component}\n" for uri, name, component, _ in found if name.startswith(SUITE))


def write_layout(made: Image, folder: Path) -> None:
    """Write an image as skopeo reads it: `oci:FOLDER`."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    for content in (made.manifest, *made.blobs.values()):
        (blobs / digest_of(content).removeprefix("sha256:")).write_bytes(content)
    entry = {"mediaType": made.media_type, "digest": made.digest, "size": len(made.manifest)}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _said(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


def _apt_get(*arguments: str) -> None:
    _run(["apt-get", "--quiet", *_APT_OPTIONS, *arguments], APT_WITHIN_S)


def _run(command: list[str], within_s: float, said: str = "", folder: Path | None = None) -> None:
    """Run a command that needs Debian's archive; `said` is its standard input. Raises Missing, which says why."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        ran = subprocess.run(
            command,
            input=said,
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=within_s,
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{command[0]} did not end within {within_s} s: is Debian's archive reachable?") from None
    if ran.returncode:
        raise Missing(f"{' '.join(command[:2])} fails: {ran.stderr.strip()[-2000:]}")


if __name__ == "__main__":
    need_programs()
    print(toolkit().layout)
    print(python())
