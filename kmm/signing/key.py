"""What makes raw signatures: a private key in a file, or anything else that can be called like it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

from kmm.signing.certificate import HASH_BY_NAME
from kmm.signing.errors import KeyFileError, PassphraseError

SIZE_MOST = 1024 * 1024
"""Bytes of a file with a key."""
SignDigest: TypeAlias = Callable[[bytes, str], bytes]
"""Takes a digest and the name of its hash (`sha256`), returns the raw signature: of RSA PKCS#1 v1.5 for a DigestInfo
of it, of ECDSA in DER. The key may be anywhere. What it raises reaches whoever asked for the signature."""
AskPassphrase: TypeAlias = Callable[[], bytes]
"""Returns a passphrase, where one is needed."""

_DER_BEGINS = b"\x30"


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key in memory: a SignDigest. Loading an RSA key of 4096 bits costs a third of a second, a signature 2 ms."""

    _key: RSAPrivateKey | EllipticCurvePrivateKey = field(repr=False)

    def __call__(self, digest: bytes, hash_name: str) -> bytes:
        """Sign a digest. Raises KeyFileError where the key is too short for it."""
        prehashed = Prehashed(HASH_BY_NAME[hash_name])
        try:
            if isinstance(self._key, RSAPrivateKey):
                return self._key.sign(digest, PKCS1v15(), prehashed)
            return self._key.sign(digest, ECDSA(prehashed))
        except (UnsupportedAlgorithm, ValueError):
            raise KeyFileError(f"cannot sign with {hash_name}") from None


def load(data: bytes, passphrase: AskPassphrase | None = None) -> PrivateKey:
    """Read a private key: PEM or DER, PKCS#8 or the older forms. `passphrase` is asked for where it is encrypted.

    Raises PassphraseError where that is missing or wrong, KeyFileError where it is no key to sign modules with.
    """
    if len(data) > SIZE_MOST:
        raise KeyFileError(f"is larger than {SIZE_MOST // 1024} KiB")
    found = _load(data, None)
    if found is None:
        if passphrase is None:
            raise PassphraseError("is encrypted, and there is no passphrase for it")
        found = _load(data, passphrase())
        if found is None:
            raise PassphraseError("is encrypted, and the passphrase for it is empty")
    if not isinstance(found, RSAPrivateKey | EllipticCurvePrivateKey):
        raise KeyFileError("is neither an RSA nor an EC key, and kernels verify with no other")
    return PrivateKey(found)


def _load(data: bytes, passphrase: bytes | None) -> object:
    """Return the key, or None where it is encrypted and there is no passphrase."""
    # Their errors may hold what they read: nothing of them is kept.
    try:
        return (load_der_private_key if data.startswith(_DER_BEGINS) else load_pem_private_key)(data, passphrase)
    except TypeError:
        return None
    except UnsupportedAlgorithm:
        problem: KeyFileError = KeyFileError("is of a kind, or encrypted in a way, that is not known here")
    except ValueError as error:
        if passphrase and "cipher" not in str(error):
            problem = PassphraseError("cannot be decrypted: the passphrase is wrong, or the key damaged")
        elif passphrase:
            problem = KeyFileError("is encrypted with an outdated cipher: `openssl pkcs8 -topk8` writes it anew")
        elif b"BEGIN CERTIFICATE" in data and b"PRIVATE KEY-----" not in data:
            problem = KeyFileError("holds a certificate and no private key: are both the wrong way round?")
        else:
            problem = KeyFileError("holds no private key in PEM or DER that can be read")
    raise problem
