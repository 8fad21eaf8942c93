"""What signing with a key in a token costs: SoftHSM's, RSA-4096, in one session.

By itself: `python tests/bench/hsm_cost.py`.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from hsm.softhsm import LABEL, PIN, Missing, Tokens, softhsm
from kmm_hsm.token import opened
from kmm_hsm.uri import TokenKey
from signing.golden import PASSPHRASE, golden

from kmm.signing import certificate, key
from kmm.signing.signer import Signer

SIGNATURES = 200


def per_s(signer: Signer) -> float:
    """Return how many signatures a second there are, each verified."""
    digests = [hashlib.sha256(bytes([n])).digest() for n in range(SIGNATURES)]
    began = time.perf_counter()
    for each in digests:
        signer.signature(each)
    return len(digests) / (time.perf_counter() - began)


def measure() -> None:
    print(f"\nsigning with RSA-4096, {SIGNATURES} digests of sha256, each verified")
    certified = certificate.load(golden("issued.pem"))
    in_file = key.load(golden("issued.key.pem"), lambda: PASSPHRASE)
    print(f"  {'a key in a file, signatures a second':60}{per_s(Signer(certified, in_file)):8.0f}")
    try:
        program = softhsm()
    except Missing as missing:
        print(f"  {missing}")
        return
    with tempfile.TemporaryDirectory() as folder:
        tokens = Tokens(program, Path(folder, "softhsm"))
        tokens.make()
        tokens.put(golden("issued.key.pem"), PASSPHRASE, label="issued")
        os.environ |= tokens.environment  # the library is loaded once, and reads it then
        uri = str(TokenKey(module=str(tokens.library), token=LABEL, label="issued"))
        began = time.perf_counter()
        with opened(uri, PIN.encode) as held:
            signer = Signer(certified, held.sign_digest)
            print(f"  {'logging in, and a first signature, ms':60}{(time.perf_counter() - began) * 1e3:8.0f}")
            print(f"  {'a key in SoftHSM, signatures a second':60}{per_s(signer):8.0f}")


if __name__ == "__main__":
    measure()
