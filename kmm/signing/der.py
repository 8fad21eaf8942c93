"""DER, as little of it as signatures of modules need.

Reading takes any bytes: it keeps no more than it was given, goes down only as far as it is told to, and raises
DerError alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

INTEGER, OCTET_STRING, NULL, OBJECT = 0x02, 0x04, 0x05, 0x06
SEQUENCE, SET = 0x30, 0x31

_NUMBER_LONG = 0x1F
_LENGTH_LONG = 0x80
_LENGTH_OCTETS_MOST = 4
_ARC_MORE = 0x80
_ARCS_FIRST = 40
_ARC_FIRST_MOST = 2
_OBJECT_LONGEST = 64


class DerError(ValueError):
    """Bytes that are not the DER that was looked for. The text says what, and repeats nothing of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """`tag`: its one octet; `whole`: with tag and length, as it is written."""

    tag: int
    content: bytes
    whole: bytes


def encode(tag: int, *parts: bytes) -> bytes:
    """Return an element whose content are `parts`."""
    length = sum(map(len, parts))
    if length < _LENGTH_LONG:
        head = bytes((tag, length))
    else:
        octets = length.to_bytes((length.bit_length() + 7) // 8)
        head = bytes((tag, _LENGTH_LONG | len(octets))) + octets
    return b"".join((head, *parts))


def object_identifier(dotted: str) -> bytes:
    """Return the element for an identifier such as `1.2.840.113549.1.7.2`."""
    first, second, *rest = map(int, dotted.split("."))
    content = bytearray()
    for arc in (first * _ARCS_FIRST + second, *rest):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(_ARC_MORE | arc & 0x7F)
        content += bytes(reversed(septets))
    return encode(OBJECT, bytes(content))


def dotted(content: bytes) -> str:
    """Return the content of an object identifier as text. Raises DerError."""
    if not 0 < len(content) <= _OBJECT_LONGEST or content[-1] & _ARC_MORE:
        raise DerError("has an object identifier that is none")
    arcs, arc = [], 0
    for octet in content:
        arc = arc << 7 | octet & 0x7F
        if not octet & _ARC_MORE:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // _ARCS_FIRST, _ARC_FIRST_MOST)
    return ".".join(map(str, (first, arcs[0] - first * _ARCS_FIRST, *arcs[1:])))


def elements(data: bytes) -> Iterator[Element]:
    """Yield the elements that `data` is made of. Raises DerError."""
    at = 0
    while at < len(data):
        tag, length, begin = _head(data, at)
        end = begin + length
        if end > len(data):
            raise DerError("breaks off")
        yield Element(tag=tag, content=data[begin:end], whole=data[at:end])
        at = end


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag, the length and where the content begins."""
    if len(data) - at < 2:  # noqa: PLR2004 -- a tag and a length
        raise DerError("breaks off")
    tag, length = data[at], data[at + 1]
    if tag & _NUMBER_LONG == _NUMBER_LONG:
        raise DerError("has a tag that does not belong there")
    if length < _LENGTH_LONG:
        return tag, length, at + 2
    octets = data[at + 2 : at + 2 + (length & 0x7F)]
    if not 0 < length & 0x7F <= _LENGTH_OCTETS_MOST or len(octets) < length & 0x7F:
        raise DerError("has a length that is none")
    length = int.from_bytes(octets)
    if octets[0] == 0 or length < _LENGTH_LONG:
        raise DerError("has a length that is written longer than it needs to be")
    return tag, length, at + 2 + len(octets)


class Parts:
    """The elements of a SEQUENCE, taken in their order."""

    def __init__(self, data: bytes) -> None:
        """Take `data` apart, the content of the SEQUENCE. Raises DerError."""
        self._parts = list(elements(data))
        self._at = 0

    @classmethod
    def of(cls, data: bytes) -> Parts:
        """Take `data` apart, a SEQUENCE and nothing after it. Raises DerError."""
        outer = cls(data)
        found = outer.take(SEQUENCE)
        outer.end()
        return cls(found.content)

    def maybe(self, *tags: int) -> Element | None:
        """Return the next element where it has one of `tags`."""
        if self._at < len(self._parts) and self._parts[self._at].tag in tags:
            self._at += 1
            return self._parts[self._at - 1]
        return None

    def take(self, *tags: int) -> Element:
        """Return the next element. Raises DerError where it has none of `tags`, or there is none."""
        found = self.maybe(*tags)
        if found is None:
            raise DerError("lacks a part, or has another one in its place")
        return found

    def end(self) -> None:
        """Raise DerError where there is more."""
        if self._at < len(self._parts):
            raise DerError("has more than belongs there")
