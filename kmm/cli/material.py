"""What the commands that sign and verify are given: certificates, keys, passphrases."""

from __future__ import annotations

from pathlib import Path

from kmm.errors import ConfigError
from kmm.signing import certificate
from kmm.signing.certificate import Certificate
from kmm.signing.errors import CertificateError


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
