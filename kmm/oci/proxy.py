"""Which proxy leads to a host: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`, in lower case or upper case. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for `scheme`, or None where the host is asked directly.

    `NO_PROXY`: names (they and what is below them), `.name` and `*.name` (what is below), addresses, networks such as
    `10.0.0.0/8`, each with a port or without one, or `*`.
    """
    proxy = _variable(f"{scheme}_proxy", environ)
    if not proxy or any(
        _covers(entry.strip().lower(), host.strip("[]").rstrip(".").lower(), port)
        for entry in _variable("no_proxy", environ).split(",")
    ):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(name: str, environ: Mapping[str, str]) -> str:
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _covers(entry: str, host: str, port: int) -> bool:
    if not entry:
        return False
    if entry == "*":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    try:
        network = ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        return address is not None and address in network
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdecimal():
        if int(wanted[:6]) != port:
            return False
        entry = name.strip("[]")
    if entry.startswith(("*.", ".")):
        return host.endswith(entry.lstrip("*"))
    return host == entry or (address is None and host.endswith(f".{entry}"))
