"""Debian's kernels, for virtual machines: from its packages, unpacked into the cache and not installed.

By hand:

    python tests/e2e/kernel.py       # gets them, and prints where they are
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e import debian
from e2e.debian import Missing

ARCHITECTURE = "amd64"  # the virtual machine's
CLOUD, PLAIN = "cloud-amd64", "amd64"
# Of thousands of modules: what a virtual machine needs, and what the tests load. stp needs llc.
MODULES = ("virtio_pci", "virtio_console", "loop", "stp", "sha512_generic")
_UNPACKED_WITHIN_S = 600
_XZ = b"\xfd7zXZ\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """`image`: what boots; `root`: a folder with `lib/modules/<release>`, where MODULES are as Debian signed them."""

    release: str
    image: Path
    root: Path

    @property
    def modules(self) -> Path:
        return self.root / "lib/modules" / self.release

    def module(self, name: str) -> bytes:
        """Return a module of Debian's."""
        (found,) = self.modules.rglob(f"{name}.ko")
        return found.read_bytes()


def kernel(suite: str = debian.SUITE, flavour: str = CLOUD) -> Kernel:
    """Return the present kernel of a release of Debian, from the cache or fetched now. Raises Missing."""
    if (here := debian.architecture()) != ARCHITECTURE:
        raise Missing(f"the kernels that are tried are of {ARCHITECTURE}, and this machine is of {here}")
    options = debian.release(suite) if suite != debian.SUITE else ()
    release = debian.depended(f"linux-image-{flavour}", "linux-image-", options)
    folder = debian.kept("kernels", [release, MODULES], lambda made: _fetch(release, made, options))
    return Kernel(release=release, image=folder / "vmlinuz", root=folder)


def index(root: Path, release: str) -> None:
    """Write what modprobe reads: which modules there are below `root`, and what each needs."""
    _kmod("depmod", "-b", root, release)


def _fetch(release: str, made: Path, options: tuple[str, ...]) -> None:
    package = debian.download(f"linux-image-{release}", made.parent, options)
    whole = made.with_name("whole")
    subprocess.run(["dpkg-deb", "-x", package, whole], check=True, timeout=_UNPACKED_WITHIN_S)
    if not (whole / "lib").exists():  # since Debian 13
        (whole / "lib").symlink_to("usr/lib")
    index(whole, release)
    for module in _needed(whole, release):
        kept = made / module.relative_to(whole).with_suffix("" if module.suffix == ".xz" else ".ko")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(_unpacked(module.read_bytes()))
    for each in (whole / "lib/modules" / release).glob("modules.builtin*"):
        shutil.copy(each, made / "lib/modules" / release)
    index(made, release)
    shutil.copy(whole / f"boot/vmlinuz-{release}", made / "vmlinuz")


def _needed(root: Path, release: str) -> Iterable[Path]:
    for name in MODULES:
        said = _kmod("modprobe", "--dirname", root, "--set-version", release, "--show-depends", name)
        yield from (Path(line.split()[1]) for line in said.splitlines() if line.startswith("insmod "))


def _unpacked(data: bytes) -> bytes:
    return lzma.decompress(data) if data.startswith(_XZ) else data


def _kmod(*argv: str | Path) -> str:
    """Run a name of kmod's, which may be in a folder that is not searched. Raises Missing."""
    if not (program := shutil.which("kmod")):
        raise Missing("there is no kmod")
    return subprocess.run(argv, executable=program, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    for each in (debian.SUITE, debian.NEXT_SUITE):
        print(kernel(each).root)
