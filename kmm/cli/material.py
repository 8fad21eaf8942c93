"""What the commands that sign and verify are given: certificates, keys, passphrases."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from getpass import getpass
from pathlib import Path

from kmm.admission import printable
from kmm.errors import ConfigError
from kmm.signing import certificate, key, source
from kmm.signing.certificate import Certificate
from kmm.signing.digest import HASHES
from kmm.signing.errors import CertificateError, RefusedError, SigningError
from kmm.signing.signer import Signer
from kmm.signing.source import Held

PASSPHRASE = "KBUILD_SIGN_PIN"  # noqa: S105 -- the variable that the kernel's own tools read it from
PASSPHRASE_LONGEST = 1024
"""Bytes of a file with a passphrase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A key and its certificate, as commands name them. `key`: a file, or a URI such as `pkcs11:token=acme`.

    `certificate`: a file; None for the one that is kept beside the key, which no file has.
    """

    key: str
    certificate: Path | None
    hash_name: str = "sha256"
    passphrase: Path | None = None


@contextmanager
def opened_signer(pair: Pair) -> Iterator[Signer]:
    """Have, in a `with` block, who signs with a key and a certificate; warn of what kernels may not take.

    Raises ConfigError where they cannot be used, or not together, and RefusedError.
    """
    if pair.hash_name not in HASHES:
        raise ConfigError(f'hash "{pair.hash_name}" is not for modules: it is one of {", ".join(HASHES)}')
    certified = read_certificate(pair.certificate) if pair.certificate else None
    with _held(pair) as held:
        if certified is None:
            certified = _kept(pair, held)
        for warning in certified.warnings(datetime.now(UTC)):
            print(printable(f"kmm: warning: {pair.certificate or pair.key}: {warning}"), file=sys.stderr)
        both = ", ".join(str(each) for each in (pair.key, pair.certificate) if each)
        try:
            signer = Signer(certified, held.sign_digest, hash_name=pair.hash_name)
        except SigningError as error:
            raise ConfigError(f"{both}: {error}") from None
        yield signer


def _kept(pair: Pair, held: Held) -> Certificate:
    """Return the certificate that is kept beside the key. Raises ConfigError."""
    try:
        if not (found := held.certificate()):
            raise ConfigError(f"{pair.key}: no certificate is kept beside the key: give it with --cert")
        return certificate.load(found)
    except CertificateError as error:
        raise ConfigError(f"{pair.key}: what is kept beside the key {error}") from None
    except SigningError as error:
        raise ConfigError(f"{pair.key}: {error}") from None


@contextmanager
def _held(pair: Pair) -> Iterator[Held]:
    """Have the key. Raises ConfigError, and RefusedError."""
    with ExitStack() as stack:
        try:
            if scheme := source.scheme_of(pair.key):
                open_ = source.opener(scheme)
                held = stack.enter_context(open_(pair.key, lambda: _passphrase(pair, "asks for a PIN")))
            else:
                data = read_limited(Path(pair.key), key.SIZE_MOST)
                held = Held(sign_digest=key.load(data, lambda: _passphrase(pair, "is encrypted")))
        except RefusedError as error:
            raise RefusedError(f"{pair.key}: {error}") from None
        except SigningError as error:
            raise ConfigError(f"{pair.key}: {error}") from None
        yield held


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


def _passphrase(pair: Pair, why: str) -> bytes:
    """Return the passphrase: from its file, the environment, or whoever sits at the terminal. Raises ConfigError."""
    if pair.passphrase is not None:
        try:
            found_there = read_limited(pair.passphrase, PASSPHRASE_LONGEST)
        except ConfigError as error:
            raise ConfigError(f"{pair.key}: {why}, and there is no passphrase for it: {error}") from None
        return passphrase_in(found_there)
    if found := os.environ.get(PASSPHRASE):
        return os.fsencode(found)
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            f"{pair.key}: {why}: give its passphrase with --passphrase-file, in ${PASSPHRASE} or at a terminal"
        )
    try:
        return getpass(printable(f"Passphrase of {pair.key}: ")).encode()
    except EOFError:
        raise ConfigError(f"{pair.key}: {why}, and no passphrase was typed") from None
