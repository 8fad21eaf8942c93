"""What a task says about itself, without the values of the Secrets that it can read."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from cachetools import LRUCache

from kmm.oci import credentials
from kmm.runtime.kinds import SECRET, path_of
from kmm.runtime.transport import NotFound, Transport

_MOST = 1_000
_SHORTEST = 4  # of what is masked: less is no secret, and would mask half of a text
MASK = "***"


class Masks:
    """Masks texts. A text is masked once, when it is first seen; values are not kept."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._masked: LRUCache[tuple[str, tuple[str, ...], tuple[str, ...], str], str] = LRUCache(_MOST)

    def mask(self, namespace: str, secrets: Sequence[str], optional: Sequence[str], text: str) -> str:
        """Return a text with what these Secrets hold replaced, whole and line by line.

        Where one of `secrets` is gone, nobody knows what it held, and the text is withheld. An `optional` one may
        never have been there: a service account names pull secrets that nobody made, and tasks run all the same.

        Raises:
            ApiError, Unreachable: one of them cannot be read.
        """
        if not text or not (secrets or optional):
            return text
        key = (namespace, tuple(secrets), tuple(optional), text)
        with self._lock:
            known = self._masked.get(key)
        if known is not None:
            return known
        values: set[str] = set()
        found = ""
        for name in dict.fromkeys((*secrets, *optional)):
            try:
                body = self._transport.ask("GET", path_of(SECRET, namespace, name)).read()
            except NotFound:
                if name not in secrets:
                    continue
                found = f'what it said is not shown: the Secret "{name}", which it may quote, is gone'
                break
            values |= _values(str(body.get("type")), body.get("data") or {})
        if not found:
            found = text
            # The longest first, of all Secrets together: one may hold a part of another.
            for value in sorted(values, key=len, reverse=True):
                found = found.replace(value, MASK)
        with self._lock:
            self._masked[key] = found
        return found


def _values(kind: str, data: Mapping[str, str]) -> set[str]:
    """Return what a Secret holds, in the forms in which it is quoted: as it is, by lines, in base64."""
    found: set[str] = set()
    decoded: dict[str, bytes] = {}
    for key, encoded in data.items():
        found.add(encoded)
        try:
            decoded[key] = base64.b64decode(encoded)
        except binascii.Error:
            continue
        text = decoded[key].decode(errors="replace")
        found |= {text, *text.splitlines()}
    found.update(_of_registries(kind, decoded))
    plain = {each for value in found if len(each := value.strip()) >= _SHORTEST}
    return plain | {form for each in plain for form in _quoted(each)}


def _quoted(value: str) -> tuple[str, ...]:
    """Return a value as URLs, JSON and dumps have it."""
    return quote(value, safe=""), quote(value), json.dumps(value)[1:-1], value.encode().hex()


def _of_registries(kind: str, data: Mapping[str, bytes]) -> Iterator[str]:
    try:
        entries = credentials.read_secret(kind, data)
    except credentials.CredentialsError:
        return
    for each in (entry.credential for entry in entries):
        yield from (each.password, each.token)
        if each.password:
            yield base64.b64encode(f"{each.username}:{each.password}".encode()).decode()
