"""`kmm sign-module`: signs kernel modules for Secure Boot, as the kernel's `sign-file` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kmm.admission import printable
from kmm.cli.material import read_signer
from kmm.errors import ConfigError
from kmm.signing import file
from kmm.signing.errors import SigningError


def sign_module(
    files: Sequence[Path],
    key_file: Path,
    certificate_file: Path,
    hash_name: str,
    passphrase_file: Path | None,
    output: Path | None,
) -> int:
    """Sign `files` in place, or the only one to `output`. Return 1 where one of them could not be signed, else 0.

    Raises ConfigError for wrong use, and where key and certificate cannot be used.
    """
    if output and len(files) > 1:
        raise ConfigError(
            f"--output is for one file, and these are {len(files)}: without it they are signed in place"
        )
    signer = read_signer(key_file, certificate_file, hash_name, passphrase_file)
    failed = False
    for each in files:
        try:
            signed = file.sign(each, signer, output)
        except (OSError, SigningError) as error:
            failed = True
            said = f"cannot be signed: {error.strerror}" if isinstance(error, OSError) else str(error)
        else:
            said = f"signed with {hash_name} by {signer.certificate}"
            if signed.replaced:
                said += f"; {signed.replaced} older signature{'s' * (signed.replaced > 1)} taken off"
        print(printable(f"{each}: {said}"))
    return int(failed)
