"""`kmm sign-module`: signs kernel modules for Secure Boot, as the kernel's `sign-file` does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from kmm.admission import printable
from kmm.cli.material import Pair, opened_signer
from kmm.errors import ConfigError
from kmm.signing import file
from kmm.signing.errors import RefusedError, SigningError
from kmm.signing.signer import Signer
from kmm.signing.source import REFUSED_CODE


def sign_module(files: Sequence[Path], pair: Pair, output: Path | None) -> int:
    """Sign `files` in place, or the only one to `output`. Return 1 where one of them could not be signed, else 0.

    REFUSED_CODE where a PIN is not to be tried again. Raises ConfigError for wrong use, and where key and certificate
    cannot be used.
    """
    if output and len(files) > 1:
        raise ConfigError(
            f"--output is for one file, and these are {len(files)}: without it they are signed in place"
        )
    for what, named in (("key", Path(pair.key)), ("certificate", pair.certificate), ("passphrase", pair.passphrase)):
        if output and named and named.exists() and output.exists() and output.samefile(named):
            raise ConfigError(f"--output {output} is the file of the {what}: it would be lost")
    try:
        with opened_signer(pair) as signer:
            return int(not _sign(files, signer, output))
    except RefusedError as error:
        print(printable(f"kmm: {error}"), file=sys.stderr)
        return REFUSED_CODE


def _sign(files: Sequence[Path], signer: Signer, output: Path | None) -> bool:
    """Sign each, and tell it; return whether all were."""
    failed = False
    for each in files:
        try:
            signed = file.sign(each, signer, output)
        except (OSError, SigningError) as error:
            failed = True
            said = f"cannot be signed: {error.strerror}" if isinstance(error, OSError) else str(error)
        else:
            said = f"signed with {signer.hash_name} by {signer.certificate}"
            if signed.replaced:
                said += f"; {signed.replaced} older signature{'s' * (signed.replaced > 1)} taken off"
        print(printable(f"{each}: {said}"))
    return not failed
