"""What signing a module costs: in this process, the key loaded once, and by the kernel's sign-file as a process.

By itself: `python tests/bench/signing_cost.py`.
"""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from signing import sign_file
from signing.golden import GOLDEN, KEYS, PASSPHRASE, golden, module
from signing.sign_file import Missing

from kmm.signing import certificate, file, key
from kmm.signing.compression import Compression, packed
from kmm.signing.signer import Signer
from kmm.signing.verification import verify

MIB = 1 << 20
REPEATS = 31


def best_ms(function: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the shortest of several: what else the machine does only adds to it."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        taken.append((time.perf_counter() - began) * 1e3)
    return min(taken)


def row(what: str, ms: float) -> None:
    print(f"  {what:60}{ms:8.2f}")


def row_signing(what: str, signer: Signer, data: bytes, repeats: int = REPEATS) -> bytes:
    """Print what signing `data` costs, and return what was made."""
    # Not what it costs to get memory for as much.
    source, target = io.BytesIO(data), io.BytesIO(bytes(2 * len(data)))

    def sign() -> None:
        target.seek(0)
        signer.sign(source, target)

    row(what, best_ms(sign, repeats))
    return target.getvalue()[: target.tell()]


def load(name: str, key_file: str) -> Signer:
    private = key.load(golden(key_file), lambda: PASSPHRASE)
    return Signer(certificate.load(golden(f"{name}.pem")), private)


def measure() -> None:
    # Half of it like code, which packs, and half like firmware, which does not.
    whole = module(MIB // 2) + random.Random(0).randbytes(MIB // 2)  # noqa: S311
    print(f"\nsigning a module of 1 MiB with sha256, the best of {REPEATS:<20}       ms")
    row(
        "loading an RSA key of 4096 bits and its certificate, once",
        best_ms(lambda: load("issued", KEYS["issued"]), 3),
    )
    signer = load("issued", KEYS["issued"])
    digest = hashlib.sha256(whole).digest()
    row("hashing alone", best_ms(lambda: hashlib.sha256(whole)))
    row("the signature alone, RSA-4096, and verifying it", best_ms(lambda: signer.signature(digest)))
    made = row_signing("all of it, RSA-4096", signer, whole)
    row_signing("all of it, RSA-2048", load("self", KEYS["self"]), whole)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "acme.ko")
        path.write_bytes(whole)
        row("all of it, RSA-4096, in a file, safe on its disk", best_ms(lambda: file.sign(path, signer)))
    row("verifying, RSA-4096", best_ms(lambda: verify(io.BytesIO(made), signer.certificate)))
    for how in (Compression.GZIP, Compression.XZ, Compression.ZSTD):
        data = b"".join(packed([whole], how, len(whole)))
        row_signing(f"all of it, RSA-4096, as {how.value}", signer, data, 5)
    try:
        program = sign_file.program()
    except Missing as missing:
        print(f"  {missing}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path, target, key_file = (Path(folder, name) for name in ("acme.ko", "signed.ko", "key.pem"))
        path.write_bytes(whole)
        private = load_pem_private_key(golden(KEYS["issued"]), PASSPHRASE)
        key_file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        command = [program, "sha256", key_file, GOLDEN / "issued.pem", path, target]
        row("sign-file as a process, RSA-4096", best_ms(lambda: subprocess.run(command, check=True)))
        theirs = target.read_bytes()
    if theirs != made:
        raise RuntimeError("sign-file makes another signature")


if __name__ == "__main__":
    measure()
