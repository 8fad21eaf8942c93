"""Why something cannot be signed or read, each by whose matter it is. No text holds a secret."""

from __future__ import annotations


class SigningError(ValueError):
    """The base: its text says what is wrong, of the thing that it is about."""


class KeyFileError(SigningError):
    """A private key that cannot be read or used."""


class PassphraseError(KeyFileError):
    """A key is encrypted, and its passphrase is missing or wrong."""


class RefusedError(KeyFileError):
    """A PIN was refused, or is not tried since that would lock its key: nobody tries again with the same one."""


class CertificateError(SigningError):
    """A certificate that cannot be read or used."""


class MismatchError(SigningError):
    """What the key signs does not verify with the certificate."""


class ModuleError(SigningError):
    """A file that is no kernel module, or none that can be read."""


class CompressionError(ModuleError):
    """A compressed file that is damaged, too large, or cannot be unpacked here."""


class SignatureError(ModuleError):
    """A module ends in a signature that cannot be read."""
