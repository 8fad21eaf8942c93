"""Keys that are in no file: named by a URI, and held by what is installed for its scheme.

A distribution names what opens keys of a scheme in the entry-point group `kmm.keys`, under the scheme: `pkcs11`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TypeAlias

from kmm.signing.errors import KeyFileError
from kmm.signing.key import AskPassphrase, SignDigest

GROUP = "kmm.keys"
REFUSED_CODE = 3
"""The exit code of whoever stops at a RefusedError: what has made it is to change before it is tried again."""

_SCHEMES = {"pkcs11": "kmm-hsm"}  # what to install for them
_URI = re.compile(r"([a-z][a-z0-9+.-]+):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A key that somebody holds. `certificate`: looks for the one kept beside it: empty where none is.

    That raises SigningError.
    """

    sign_digest: SignDigest = field(repr=False)
    certificate: Callable[[], bytes] = field(default=bytes, repr=False)


Open: TypeAlias = Callable[[str, AskPassphrase], AbstractContextManager[Held]]
"""Opens the key of a URI for a `with` block; asks for a PIN at most once. Raises SigningError: RefusedError where a
PIN was refused, or would be the last."""


def scheme_of(key: str) -> str:
    """Return the scheme where `key` is a URI that is no file's, else an empty text."""
    found = _URI.match(key)
    return found[1] if found else ""


def opener(scheme: str) -> Open:
    """Return what opens the keys of a scheme. Raises KeyFileError where nothing is installed that does."""
    found = next(iter(entry_points(group=GROUP, name=scheme)), None)
    if found is None:
        hint = f": pip install {_SCHEMES[scheme]}" if scheme in _SCHEMES else ""
        raise KeyFileError(f"nothing is installed that holds keys of {scheme}{hint}")
    try:
        made: Open = found.load()
    except ImportError as error:
        raise KeyFileError(f"what holds keys of {scheme} cannot be imported: {error}"[:500]) from None
    return made
