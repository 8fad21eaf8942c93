"""What kaniko's executor does in the demo: it builds what the pod's specification says, and pushes it for real.

It knows `ARG`, `RUN cp` of a Secret's file, and `RUN make` of a module: a text, behind the head of an ELF file. So
what is in the image depends on the Dockerfile, the arguments and the Secrets of the Job, and on nothing else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path

from kmm.contract import Access, ContractError
from kmm.embedded.image import image
from kmm.embedded.program import Exit, Run
from kmm.oci import credentials, reference
from kmm.oci.client import Client
from kmm.oci.session import Session
from kmm.signing import module

_FLAG = re.compile(r"--([a-z-]+)(?:=(.*))?", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_DEADLINE_S = 10.0
# As much as tells a kernel module from other files: 64 bits, little-endian, to be linked.
_ELF = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + (1).to_bytes(2, "little")


class BuildError(Exception):
    """An instruction that fails. Its text is the executor's last word."""


def build(run: Run, session: Session, ca_pem: str) -> Exit:
    """Build and push, as the arguments of a kaniko container say."""
    said = list(_flags(run.argv))
    one = dict(said)
    arguments = dict(value.split("=", 1) for flag, value in said if flag == "build-arg")
    mounted = one["dockerfile"].rpartition("/")
    try:
        files = _carry_out((run.mounts[mounted[0]] / mounted[2]).read_text(), arguments, run.mounts)
        target = reference.parse(one["destination"])
        config = run.mounts["/kaniko/.docker"] / "config.json"
        found = credentials.matching(credentials.read_config(config.read_bytes()), target)
        client = Client(
            target.host, Access(credentials=found, ca_pem=ca_pem), session=session, deadline_s=_DEADLINE_S
        )
        made = image([files])
        for blob in made.blobs.values():
            client.upload(target.path, blob)
        client.push_manifest(target.path, made.manifest, made.media_type, target.tag or "")
    except (BuildError, ContractError, OSError) as error:
        return Exit(code=1, output=f"error building image: {error}")
    return Exit(output=f"pushed {target}")


def _flags(argv: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for word in argv:
        if found := _FLAG.fullmatch(word):
            yield found[1], found[2] or ""


def _carry_out(dockerfile: str, given: Mapping[str, str], mounts: Mapping[str, Path]) -> dict[str, bytes]:
    """Return the files of the image that a Dockerfile makes."""
    values: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for number, line in enumerate(dockerfile.splitlines(), 1):
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "ARG":
            name, _, default = rest.partition("=")
            values[name] = given.get(name, default)
            continue
        words = shlex.split(_VARIABLE.sub(lambda found: values.get(found[1] or found[2], ""), rest))
        match instruction, words:
            case ("FROM" | "", _):
                pass
            case "RUN", ["make", *settings]:
                files |= _make(dict(each.split("=", 1) for each in settings))
            case "RUN", ["cp", secret, target]:
                folder, _, key = secret.rpartition("/")
                if folder not in mounts or not (mounts[folder] / key).exists():
                    raise BuildError(f"line {number}: cp: {secret}: No such file or directory")
                files[target] = (mounts[folder] / key).read_bytes()
            case _:
                raise BuildError(f"line {number}: {instruction} is not known here")
    return files


def _make(settings: Mapping[str, str]) -> dict[str, bytes]:
    kernel, name = settings.get("KERNEL", ""), settings["MODULE"]
    if not kernel:
        raise BuildError("make: *** KERNEL is not set.  Stop.")
    return {f"/opt/lib/modules/{kernel}/{name}.ko": compiled(name, kernel, settings.get("SPEED", ""))}


def compiled(name: str, kernel: str, speed: str = "") -> bytes:
    """Return what a compiler makes of a module here."""
    return _ELF + f"{name} for {kernel}{speed and f' at {speed}'}".encode()


def text_of(compiled: bytes) -> str:
    """Return the text of a module, with or without what signers have appended to it."""
    unsigned = BytesIO()
    module.strip(BytesIO(compiled), unsigned)
    return unsigned.getvalue().removeprefix(_ELF).decode(errors="replace")
