"""Names of issuers and subjects, as people read them."""

from __future__ import annotations

from collections.abc import Iterator

from kmm.signing import der
from kmm.signing.der import OBJECT, SEQUENCE, SET, DerError, Parts

_LONGEST = 400
_OCTETS_MOST = 64
_LABELS = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "1.2.840.113549.1.9.1": "emailAddress",
}
_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}


def shown(name: bytes) -> str:
    """Return a Name in DER as `O=Acme, CN=modules`, what cannot be read of it as `?`.

    Never raises. What it returns may hold any character.
    """
    try:
        text = ", ".join(f"{label}={value}" for label, value in _attributes(name))
    except DerError:
        return "?"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _attributes(name: bytes) -> Iterator[tuple[str, str]]:
    for relative in der.elements(b"".join(each.content for each in der.elements(name) if each.tag == SEQUENCE)):
        if relative.tag != SET:
            raise DerError("has another thing where a part of a name belongs")
        for attribute in der.elements(relative.content):
            parts = Parts.of(attribute.whole)
            dotted = der.dotted(parts.take(OBJECT).content)
            value = parts.take(*_ENCODINGS)
            text = value.content.decode(_ENCODINGS[value.tag], "replace")
            yield _LABELS.get(dotted, dotted), text


def hexadecimal(octets: bytes) -> str:
    """Return a serial number or a key's id as modinfo writes them: `4F:2C:D3`."""
    return octets[:_OCTETS_MOST].hex(":").upper()


def serial(octets: bytes) -> str:
    """Return a serial number, the content of its INTEGER, without the octet that only says that it is positive."""
    return hexadecimal(octets.removeprefix(b"\0") or octets)
