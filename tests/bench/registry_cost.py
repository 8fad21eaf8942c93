"""What asking a registry costs: one file out of a large image, and requests for many images.

The registry is a process of its own (`serve`), and so is what is measured (`find`). Run by bench.py, or by itself.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from kmm.contract import Access, Credential
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.client import Client
from kmm.oci.layers import find as find_files
from kmm.oci.reference import parse
from kmm.oci.session import Session

IMAGES = 150
WAITING, MINUTES = 50, 2
MIB = 1 << 20
LAYERS = ((8, 47), (2, 12), (1, 1))  # how many layers of how many MiB, the lowest first: 401 MiB
MODULE = "/opt/lib/modules/6.1.0/driver.ko"


def memory() -> dict[str, float]:
    """Return the resident MiB now and at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}


def serve() -> None:
    """Serve until standard input ends: a large image, one whose large layer is on top, many small ones, indexes."""
    from kmm.embedded.registry import Registry  # noqa: PLC0415 -- the measured process does without

    # What does not compress, as drivers and firmware hardly do.
    layers = [{f"/usr/{n}.bin": os.urandom(size * MIB)} for count, size in LAYERS for n in range(count)]
    driver = {MODULE: b"driver" * 1000}
    with Registry(auth="bearer", users={"user": "password"}) as registry:
        registry.push_image("large:top", driver, layers=layers)
        registry.push_image("large:bottom", {"/x": b""}, layers=[driver, *layers])
        for number in range(IMAGES):
            digest = registry.push_image(f"many:{number}", {"/x": b"%d" % number})
            registry.push_index(f"many:all-{number}", {"amd64": digest, "arm64": digest})
        print(json.dumps({"host": registry.host, "ca": registry.ca_pem}), flush=True)
        for _ in sys.stdin:
            print(json.dumps([entry.kind for entry in registry.log]), flush=True)


def client(host: str, ca: str, session: Session) -> Client:
    access = Access(credentials=(Credential(username="user", password="password"),), ca_pem=ca)
    return Client(host, access, session=session, deadline_s=300)


def session() -> Session:
    return Session(Addresses(allowed=parse_networks(["127.0.0.0/8"])), environ={})


def find(host: str, ca: str, tag: str) -> None:
    """Find the driver, and print what it cost."""
    asking = client(host, ca, session())
    before, began = memory()["VmRSS"], time.perf_counter()
    image = asking.manifest(parse(f"{host}/large:{tag}"))
    layers = image.manifest.layers
    found = find_files([partial(asking.blob, "large", layer) for layer in layers], [MODULE])
    said = {"s": time.perf_counter() - began, "before": before, "peak": memory()["VmHWM"]}
    print(json.dumps({**said, "found": len(found), "size": sum(layer.size for layer in layers) / MIB}))


@contextmanager
def serving() -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    server = subprocess.Popen(
        [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield server, json.loads(server.stdout.readline())
    finally:
        server.stdin.close()
        server.wait()


def requests(server: subprocess.Popen[str]) -> list[str]:
    server.stdin.write("log\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def measure() -> None:
    print("\nregistries, over HTTPS with Bearer tokens on loopback")
    with serving() as (server, at):
        for tag, where in (("top", "top"), ("bottom", "lowest")):
            before = len(requests(server))
            ran = subprocess.run(
                [sys.executable, __file__, "find", at["host"], at["ca"], tag],
                capture_output=True,
                text=True,
                check=True,
            )
            said = json.loads(ran.stdout)
            if said["found"] != 1:
                raise RuntimeError("the driver was not found")
            print(
                f"  a driver in the {where} layer of an image of {said['size']:.0f} MiB: {said['s'] * 1e3:.0f} ms, "
                f"{len(requests(server)) - before} requests, peak {said['peak']:.1f} MiB "
                f"({said['peak'] - said['before']:.1f} over the start)"
            )
        for prefix, what in (("", "single manifests"), ("all-", "indexes")):
            shared = session()
            before, began = len(requests(server)), time.perf_counter()
            for number in range(IMAGES):
                reference = parse(f"{at['host']}/many:{prefix}{number}")
                if client(at["host"], at["ca"], shared).resolve(reference) is None:
                    raise RuntimeError("an image was not found")
            taken = time.perf_counter() - began
            print(f"  {IMAGES} {what} of one repository: {len(requests(server)) - before} requests, {taken:.2f} s")
            shared.close()
    dead()


def dead() -> None:
    """Let many Modules wait for a registry that refuses connections, for a minute."""
    from kmm_oci import Oci  # noqa: PLC0415 -- the measured process does without

    from kmm.catalog import Plugin, build_catalog  # noqa: PLC0415
    from kmm.contract import ModuleRef  # noqa: PLC0415
    from kmm.core.view import Question, Subject, Unknown  # noqa: PLC0415
    from kmm.runtime.metrics import Metrics  # noqa: PLC0415
    from kmm.runtime.probes import Probes  # noqa: PLC0415

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and never listens
        host = f"127.0.0.1:{held.getsockname()[1]}"
        catalog = build_catalog([Plugin(name="oci", distribution="t", version="1", registries=(Oci(session()),))])
        told: set[str] = set()
        asked: list[float] = []

        def hear(question, answer, subject, _):
            told.add(subject.uid)
            if isinstance(answer, Unknown):
                probes.ask(question, subject)  # as the next plan does

        def access(_question, _subject):
            asked.append(time.monotonic())
            return Access()

        probes = Probes(catalog, access, hear, Metrics())
        probes.start()
        began = time.monotonic()
        for number in range(WAITING):
            ref = ModuleRef(namespace="n", name=f"m{number}")
            probes.ask(Question(image=f"{host}/team/driver:{number}"), Subject(ref=ref, uid=ref.name))
        time.sleep(MINUTES * 60)
        probes.stop()
    if len(told) != WAITING:
        raise RuntimeError("a Module was not told that the registry is away")
    by_minute = [sum(minute <= (each - began) / 60 < minute + 1 for each in asked) for minute in range(MINUTES)]
    print(
        f"  {WAITING} Modules waiting for a dead registry: {', '.join(map(str, by_minute))} questions in each minute"
    )


def main() -> None:
    commands = {"serve": serve, "find": find}
    commands[sys.argv[1]](*sys.argv[2:]) if len(sys.argv) > 1 else measure()


if __name__ == "__main__":
    main()
