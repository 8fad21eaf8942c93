"""What Acme's support asks for: how the operator gets on with Acme's driver.

Metrics in prometheus_client's own registry, where they are by default, are served by the operator with its own.
"""

from __future__ import annotations

from kmm.contract import Record
from prometheus_client import Counter

from acme_kmm.driver import NAME

_ACTIONS = Counter("acme_driver_actions", "What the operator did for Modules with Acme's driver", ["action"])
_EVENTS = Counter("acme_driver_events", "What it told of them, by its word for why", ["reason"])


def count(record: Record) -> None:
    """Count a record, if it is about a Module with this driver."""
    if record.driver != NAME:
        return
    _ACTIONS.labels(record.action).inc()
    if record.action == "Announce":
        _EVENTS.labels(record.reason).inc()
