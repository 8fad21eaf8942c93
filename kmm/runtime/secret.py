"""A Secret that nothing refers to any more, and whose contents still count."""

from __future__ import annotations

from kmm.core.view import SecretFacts
from kmm.runtime.kinds import SECRET, path_of
from kmm.runtime.references import facts
from kmm.runtime.transport import NotFound, Transport


def read_secret(transport: Transport, namespace: str, name: str) -> SecretFacts | None:
    """Return what may be known of a Secret, or None where it is gone.

    Raises:
        ApiError, Unreachable: it cannot be read.
    """
    try:
        body = transport.ask("GET", path_of(SECRET, namespace, name)).read()
    except NotFound:
        return None
    return facts(body.get("data") or {}, str(body.get("type") or ""), body["metadata"].get("uid", ""))
