"""`kmm sign-module`: signs kernel modules for Secure Boot, as the kernel's `sign-file` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from getpass import getpass
from pathlib import Path

from kmm.admission import printable
from kmm.cli.material import read_certificate, read_limited
from kmm.errors import ConfigError
from kmm.signing import file, key
from kmm.signing.digest import HASHES
from kmm.signing.errors import SigningError
from kmm.signing.signer import Signer

PASSPHRASE = "KBUILD_SIGN_PIN"  # noqa: S105 -- the variable that the kernel's own tools read it from
_PASSPHRASE_LONGEST = 1024


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
    if hash_name not in HASHES:
        raise ConfigError(f'hash "{hash_name}" is not for modules: it is one of {", ".join(HASHES)}')
    certificate = read_certificate(certificate_file)
    for warning in certificate.warnings(datetime.now(UTC)):
        print(printable(f"kmm: warning: {certificate_file}: {warning}"), file=sys.stderr)
    data = read_limited(key_file, key.SIZE_MOST)
    try:
        private = key.load(data, lambda: _passphrase(key_file, passphrase_file))
    except SigningError as error:
        raise ConfigError(f"{key_file}: {error}") from None
    try:
        signer = Signer(certificate, private, hash_name=hash_name)
    except SigningError as error:
        raise ConfigError(f"{key_file}, {certificate_file}: {error}") from None
    failed = False
    for each in files:
        try:
            signed = file.sign(each, signer, output)
        except (OSError, SigningError) as error:
            failed = True
            said = f"cannot be signed: {error.strerror}" if isinstance(error, OSError) else str(error)
        else:
            said = f"signed with {hash_name} by {certificate}"
            if signed.replaced:
                said += f"; {signed.replaced} older signature{'s' * (signed.replaced > 1)} taken off"
        print(printable(f"{each}: {said}"))
    return int(failed)


def _passphrase(key_file: Path, passphrase_file: Path | None) -> bytes:
    """Return the passphrase: from its file, the environment, or whoever sits at the terminal. Raises ConfigError."""
    if passphrase_file is not None:
        return read_limited(passphrase_file, _PASSPHRASE_LONGEST).removesuffix(b"\n").removesuffix(b"\r")
    if found := os.environ.get(PASSPHRASE):
        return os.fsencode(found)
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            f"{key_file}: is encrypted: give its passphrase with --passphrase-file, in ${PASSPHRASE} or at a terminal"
        )
    try:
        return getpass(printable(f"Passphrase of {key_file}: ")).encode()
    except EOFError:
        raise ConfigError(f"{key_file}: is encrypted, and no passphrase was typed") from None
