"""What the commands that sign and verify are given: certificates, keys, passphrases."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from getpass import getpass
from pathlib import Path

from kmm.admission import printable
from kmm.errors import ConfigError
from kmm.signing import certificate, key
from kmm.signing.certificate import Certificate
from kmm.signing.digest import HASHES
from kmm.signing.errors import CertificateError, SigningError
from kmm.signing.signer import Signer

PASSPHRASE = "KBUILD_SIGN_PIN"  # noqa: S105 -- the variable that the kernel's own tools read it from
PASSPHRASE_LONGEST = 1024
"""Bytes of a file with a passphrase."""


def read_signer(key_file: Path, certificate_file: Path, hash_name: str, passphrase_file: Path | None) -> Signer:
    """Return who signs with the key and the certificate in files, and warn of what kernels may not take.

    Raises ConfigError where they cannot be used, or not together.
    """
    if hash_name not in HASHES:
        raise ConfigError(f'hash "{hash_name}" is not for modules: it is one of {", ".join(HASHES)}')
    certified = read_certificate(certificate_file)
    for warning in certified.warnings(datetime.now(UTC)):
        print(printable(f"kmm: warning: {certificate_file}: {warning}"), file=sys.stderr)
    data = read_limited(key_file, key.SIZE_MOST)
    try:
        private = key.load(data, lambda: _passphrase(key_file, passphrase_file))
    except SigningError as error:
        raise ConfigError(f"{key_file}: {error}") from None
    try:
        return Signer(certified, private, hash_name=hash_name)
    except SigningError as error:
        raise ConfigError(f"{key_file}, {certificate_file}: {error}") from None


def read_certificate(file: Path) -> Certificate:
    """Read the certificate in `file`. Raises ConfigError."""
    try:
        return certificate.load(read_limited(file, certificate.SIZE_MOST))
    except CertificateError as error:
        raise ConfigError(f"{file}: {error}") from None


def read_limited(file: Path, most: int) -> bytes:
    """Return what is in `file`, which may be a pipe. Raises ConfigError, also where it is more than `most` bytes."""
    try:
        with file.open("rb") as stream:
            found = stream.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(found) > most:
        raise ConfigError(f"{file}: is larger than {most:,} bytes")
    return found


def passphrase_in(data: bytes) -> bytes:
    """Return the passphrase that a file holds, without the end of its line."""
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _passphrase(key_file: Path, passphrase_file: Path | None) -> bytes:
    """Return the passphrase: from its file, the environment, or whoever sits at the terminal. Raises ConfigError."""
    if passphrase_file is not None:
        try:
            found_there = read_limited(passphrase_file, PASSPHRASE_LONGEST)
        except ConfigError as error:
            raise ConfigError(f"{key_file}: is encrypted, and there is no passphrase for it: {error}") from None
        return passphrase_in(found_there)
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
