"""Which addresses may be connected to: users name registries, and must not reach what only the operator can.

Loopback, link-local, metadata, multicast and unspecified addresses are refused unless they are allowed. An
address is judged where a connection is made, as it is: what a name resolved to a moment ago, or at another
party, says nothing (DNS rebinding). Through a proxy only the text of the target can be judged; what the proxy
connects to is its business.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# Where clouds serve credentials to whoever asks, outside of the link-local networks.
_METADATA = frozenset(
    map(ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
_NAT64 = IPv6Network("64:ff9b::/96")
_THIS = IPv4Network("0.0.0.0/8")
_COMPATIBLE = IPv6Network("::/96")


class AddressRefused(Exception):
    """A connection that is not to be made. The text says why, not where to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The rule. `allowed`: networks that may be connected to though they would be refused."""

    allowed: tuple[Network, ...] = ()

    def check(self, address: str) -> None:
        """Raise AddressRefused where `address` (its numbers, perhaps with a zone) must not be connected to."""
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            raise AddressRefused("an address that is none") from None
        for each in (found, *_inside(found)):
            if reason := _reason(each):
                if any(each in network or found in network for network in self.allowed):
                    return
                raise AddressRefused(f"{reason}, which is not allowed")

    def check_text(self, host: str) -> None:
        """Raise AddressRefused where `host` is such an address, or the name that always means this machine.

        For connections that a proxy makes. Other names pass.
        """
        host = host.strip("[]").rstrip(".").lower()
        if host == "localhost" or host.endswith(".localhost"):
            self.check("127.0.0.1")
            return
        with suppress(OSError, UnicodeError):
            # As the C library reads it: 127.1, 0x7f000001 and 2130706433 are addresses too.
            host = socket.inet_ntoa(socket.inet_aton(host))
        try:
            ip_address(host.partition("%")[0])
        except ValueError:
            return
        self.check(host)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return networks (`127.0.0.0/8`, `fd00:ec2::254`) from their texts. Raises ValueError, saying which is none."""
    found: list[Network] = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError:
            raise ValueError(f'"{text[:60]}" is no address and no network such as 127.0.0.0/8') from None
    return tuple(found)


def _inside(address: Address) -> Iterable[Address]:
    """Return the IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, IPv4Address):
        return ()
    inner: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo:
        inner += address.teredo
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in inner if each is not None]


def _reason(address: Address) -> str:
    if address in _METADATA:
        return "a cloud's metadata address"
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_unspecified or address in _THIS:
        return "the unspecified address"
    if address.is_multicast:
        return "a multicast address"
    if isinstance(address, IPv4Address) and address == IPv4Address("255.255.255.255"):
        return "the broadcast address"
    return ""
