"""What the clients of a process share."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TypeAlias

from cachetools import TTLCache

from kmm.contract import Access
from kmm.oci.address import Addresses
from kmm.oci.challenge import Challenge
from kmm.oci.connection import Connections, fingerprint
from kmm.oci.token import Tokens
from kmm.oci.turn import Turns

_KNOWN_MOST = 4096
_KNOWN_S = 600.0

_Key: TypeAlias = tuple[bytes, str, frozenset[str]]


class Session:
    """What the clients of a process share: connections, tokens, and what registries ask for.

    `addresses`: which addresses may be connected to. `environ`: where proxies are named (os.environ if None).
    """

    def __init__(self, addresses: Addresses | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.connections = Connections(addresses, environ)
        self.tokens = Tokens(self.connections)
        self._lock = threading.Lock()
        self._asks: TTLCache[_Key, Challenge | None] = TTLCache(_KNOWN_MOST, _KNOWN_S, timer=time.monotonic)
        self.asking = Turns()

    def asks(self, access: Access, base: str, scopes: frozenset[str]) -> tuple[bool, Challenge | None]:
        """Say whether it is known what the registry asks for, and what that is (None: for nothing)."""
        trust = fingerprint(access)
        with self._lock:
            for key in ((trust, base, scopes), (trust, base, frozenset[str]())):
                if key in self._asks:
                    return True, self._asks[key]
        return False, None

    def learn(self, access: Access, base: str, scopes: frozenset[str], asked: Challenge | None) -> None:
        """Keep what the registry asks for in general, and for these scopes."""
        trust = fingerprint(access)
        with self._lock:
            self._asks[trust, base, frozenset()] = asked
            if asked and set(asked.scopes) - scopes:
                self._asks[trust, base, scopes] = asked

    def close(self) -> None:
        """Close the kept connections."""
        self.connections.close()
