"""Which key of which token: a `pkcs11:` URI (RFC 7512), as openssl and the kernel's sign-file take it.

The path of the token's library is in it as `module-path`. A PIN never is: others see what a process was started with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from kmm.contract import nearest

SCHEME = "pkcs11"

_LONGEST = 4096
_PATH = ("token", "serial", "object", "id", "type")
_QUERY = ("module-path",)
_PIN = ("pin-value", "pin-source")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class UriError(ValueError):
    """A URI that names no key. The text repeats no value of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A key in a token. `module`: the path of the token's library; `token`, `label`: as people named them.

    `serial`: of the token; `id`: octets. What is empty says nothing.
    """

    module: str
    token: str = ""
    serial: str = ""
    label: str = ""
    id: bytes = b""

    def __str__(self) -> str:
        """Return it as a URI."""
        named = {"token": self.token, "serial": self.serial, "object": self.label}
        parts = [f"{name}={quote(value, safe='')}" for name, value in named.items() if value]
        parts += [f"id={quote(self.id, safe='')}"] if self.id else []
        return f"{SCHEME}:{';'.join(parts)}?module-path={quote(self.module, safe='/')}"


def parse(text: str) -> TokenKey:
    """Read a URI. Raises UriError."""
    if len(text) > _LONGEST:
        raise UriError(f"is longer than {_LONGEST} characters")
    scheme, _, rest = text.partition(":")
    if scheme != SCHEME:
        raise UriError(f"does not begin with {SCHEME}:")
    path, _, query = rest.partition("?")
    found = {**_attributes(path, ";", _PATH), **_attributes(query, "&", _QUERY)}
    if found.pop("type", b"private") != b"private":
        raise UriError("has a type that is not private: only private keys sign")
    texts = {}
    for name in ("token", "serial", "object", "module-path"):
        try:
            texts[name] = found.get(name, b"").decode()
        except UnicodeDecodeError:
            raise UriError(f"has a {name} that is not UTF-8") from None
    if not texts["module-path"].startswith("/"):
        raise UriError("has no ?module-path=/... behind it, the path of the token's PKCS#11 library")
    if not texts["token"] and not texts["serial"]:
        raise UriError("names no token: token=LABEL, or serial=NUMBER")
    if not texts["object"] and not found.get("id"):
        raise UriError("names no key: object=LABEL, or id=%01")
    return TokenKey(
        module=texts["module-path"],
        token=texts["token"],
        serial=texts["serial"],
        label=texts["object"],
        id=found.get("id", b""),
    )


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for each in filter(None, text.split(separator)):
        name, equals, value = each.partition("=")
        if name in _PIN:
            raise UriError(f"has a {name}: a PIN is given with --passphrase-file, where no other process sees it")
        if name not in known:
            shown = name[:100]
            raise UriError(f'has an unknown "{shown}"{nearest(shown, known)} (known: {", ".join(known)})')
        if name in found:
            raise UriError(f"has {name} twice")
        if not equals or _ESCAPE.search(value):
            raise UriError(f"has a {name} that is not written as URIs are, such as {name}=a%20b")
        found[name] = unquote_to_bytes(value)
    return found
