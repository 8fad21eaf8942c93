"""Who leads, as the operator's Lease tells it: written by the leader, read by `kmm status`.

It stands in an annotation, since the Lease is written anyhow, and since whoever looks after a cluster may read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kmm import __version__
from kmm.api.metadata import PREFIX
from kmm.api.schema import at
from kmm.catalog import Refusal

LEASE_NAME = "kmm.sigs.x-k8s.io"
ANNOTATION = f"{PREFIX}operator"
_REFUSED_MOST = 20
_LONGEST = 100
_READ_MOST = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPlugin:
    """A plugin that the leader does not use. `reason`: one word of kmm/core/reasons.py."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """What a Lease tells. `holder` is empty where it was given back, `version` where it is not this operator's.

    `renewed` changes whenever the Lease is renewed; `refused_not_shown`: how many plugins did not fit.
    """

    namespace: str
    holder: str
    since: str
    renewed: str
    duration_s: float
    version: str
    refused: tuple[RefusedPlugin, ...]
    refused_not_shown: int

    def silent_s(self, now: datetime) -> float:
        """Return for how long nothing was heard of it, by our clock; without end where that cannot be read."""
        try:
            return (now - datetime.fromisoformat(self.renewed)).total_seconds()
        except (ValueError, TypeError):
            return float("inf")


def written(identity: str, refusals: Sequence[Refusal]) -> dict[str, str]:
    """Return what the leader writes about itself.

    Not why a plugin was refused: that may quote its settings, and more people read Leases than logs.
    """
    told = {
        "holder": identity,  # an operator of another kind may take the Lease over and leave this as it is
        "version": __version__,
        "refusedPlugins": [
            {"name": each.name[:_LONGEST], "reason": str(each.reason)[:_LONGEST]} for each in refusals[:_REFUSED_MOST]
        ],
        "refusedPluginsNotShown": max(0, len(refusals) - _REFUSED_MOST),
    }
    return {ANNOTATION: json.dumps(told, separators=(",", ":"))}


def leader_of(lease: Mapping[str, Any]) -> Leader:
    """Return what a Lease tells, whoever wrote it: what cannot be read counts as absent."""
    holder = _text(at(lease, "spec", "holderIdentity"))
    told = _told(at(lease, "metadata", "annotations", ANNOTATION))
    if not holder or told.get("holder") != holder:
        told = {}
    refused, more = told.get("refusedPlugins"), told.get("refusedPluginsNotShown")
    duration_s = at(lease, "spec", "leaseDurationSeconds")
    return Leader(
        namespace=_text(at(lease, "metadata", "namespace")),
        holder=holder,
        since=_text(at(lease, "spec", "acquireTime")),
        renewed=_text(at(lease, "spec", "renewTime")),
        duration_s=duration_s if isinstance(duration_s, int | float) else 0,
        version=_text(told.get("version")),
        refused=tuple(
            RefusedPlugin(name=_text(at(each, "name")), reason=_text(at(each, "reason")))
            for each in (refused if isinstance(refused, list) else ())[:_REFUSED_MOST]
        ),
        refused_not_shown=more if isinstance(more, int) else 0,
    )


def _told(text: object) -> Mapping[str, Any]:
    if not isinstance(text, str) or len(text) > _READ_MOST:
        return {}
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, Mapping) else {}


def _text(value: object) -> str:
    return value[: 4 * _LONGEST] if isinstance(value, str) else ""
