"""What it takes to have kernels judge what is signed, and which of their words the operator knows.

By itself: `python tests/bench/secure_boot_cost.py`, as root on Debian.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from e2e.debian import NEXT_SUITE, QEMU, SUITE, Missing, Toolkit, need_programs, toolkit
from e2e.driver import LOADS, dockerfile
from e2e.kernel import CLOUD, PLAIN, Kernel, kernel
from e2e.loader import Loader, loading_site
from e2e.machine import Machine
from e2e.verdict import MODES, SECURE_BOOT, Court, Verdict, cases, own_signer
from registry.docker_registry import Missing as NoRegistry
from registry.docker_registry import program
from signing.golden import golden

from kmm.core.reasons import Reason

KERNELS = ((SUITE, CLOUD), (SUITE, PLAIN), (NEXT_SUITE, CLOUD), ("bullseye", CLOUD))
TRUSTED = ("self", "issued")


def verdicts(tools: Toolkit, here: Kernel, other: Kernel) -> dict[str, dict[str, Verdict]]:
    """Print how long machines took to boot; return what a kernel says, by its mode and the case."""
    trusted = {name: own_signer(name) for name in TRUSTED}
    given = cases(here, other, trusted)
    certificates = [each.certificate.der for each in (*trusted.values(), own_signer("ec"))]
    found = {}
    for enrolled, modes in ((certificates, {SECURE_BOOT: "true"}), ([], MODES)):
        with (
            tempfile.TemporaryDirectory() as folder,
            Machine(Path(folder, "machine"), here, tools.busybox, certificates=enrolled) as machine,
        ):
            how = "with Secure Boot" if enrolled else "without UEFI"
            print(f"  {f'booting {here.release}, {how}':60}{machine.boot_s:8.1f}")
            court = Court(machine, given, trusted[TRUSTED[0]])
            began = time.monotonic()
            for mode, command in modes.items():
                machine.said("sh", "-c", command)
                found[mode] = dict(court.verdicts())
            count = sum(len(found[mode]) for mode in modes)
            print(f"  {f'{count} loads tried in it':60}{time.monotonic() - began:8.1f}")
    return found


def words(said: str) -> str:
    """Return those that say why, of what modprobe said."""
    return said.splitlines()[0].rpartition(": ")[2].partition(" in directory ")[0]


def table(release: str, found: dict[str, dict[str, Verdict]]) -> None:
    print(f"\n{f'what the operator calls it: {release}':36}" + "".join(f"{mode:>16}" for mode in found))
    for case in next(iter(found.values())):
        cells = (each[case].reason for each in found.values())
        print(f"  {case:34}" + "".join(f"{(cell.value if cell else 'loaded'):>16}" for cell in cells))


def chain(tools: Toolkit, here: Kernel) -> None:
    certificates = [own_signer("self").certificate.der]
    arguments = "firmware_class.path=/var/lib/firmware"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        machine = Machine(
            Path(folder, "machine"), here, tools.busybox, certificates=certificates, arguments=arguments
        )
        stack.enter_context(machine)
        Path(folder, "site").mkdir()
        site = loading_site(Path(folder, "site"), stack, tools, Loader(machine))
        site.secret("pair", key=golden("self.key.pem").decode(), cert=golden("self.pem").decode())
        pair = {"keySecret": {"name": "pair"}, "certSecret": {"name": "pair"}}
        machine.said("modprobe", *LOADS["inTreeModulesToRemove"])
        began = time.monotonic()
        site.apply("acme", dockerfile(site.host), sign=pair, loads=LOADS)
        site.loaded("acme")
        print(f"  {'the whole chain, from a Dockerfile to a loaded driver':60}{time.monotonic() - began:8.1f}")


def present() -> Iterator[Kernel]:
    """Yield the kernels that can be had, the base image's first. Raises Missing where that one cannot."""
    for number, (suite, flavour) in enumerate(KERNELS):
        try:
            yield kernel(suite, flavour)
        except Missing as missing:
            if not number:
                raise
            print(f"  {missing}")


def measure() -> None:
    print(f"\nSecure Boot, emulated by QEMU{'s':>39}")
    try:
        need_programs()
        need_programs(QEMU)
        program()
        tools = toolkit()
        kernels = list(present())
    except (Missing, NoRegistry) as missing:
        print(f"  {missing}")
        return
    chain(tools, kernels[0])
    others = (*kernels[1:], kernels[0])
    judged = {here.release: verdicts(tools, here, other) for here, other in zip(kernels, others, strict=True)}
    for release, found in judged.items():
        table(release, found)
    refused: dict[str, set[Reason]] = {}
    for each in (case for found in judged.values() for mode in found.values() for case in mode.values()):
        if each.reason:
            refused.setdefault(words(each.said), set()).add(each.reason)
    known = [each for each, reasons in refused.items() if Reason.LOAD_FAILED not in reasons]
    print(f"\nwords of these kernels that are known: {len(known)} of {len(refused)}")
    for each, reasons in refused.items():
        print(f"  {each:60}  {', '.join(sorted(reasons))}")


if __name__ == "__main__":
    measure()
