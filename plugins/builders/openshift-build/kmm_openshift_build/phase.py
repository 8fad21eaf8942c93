"""How far a Build has come, by the phase that OpenShift gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kmm.contract import Manifest, Progress, State
from kmm.job import last_lines, why_pending

_STATES = {
    "New": State.PENDING,
    "Pending": State.PENDING,
    "Running": State.RUNNING,
    "Complete": State.SUCCEEDED,
    "Failed": State.FAILED,
    "Error": State.FAILED,
    "Cancelled": State.FAILED,
}
# What is said of a phase where OpenShift says nothing of it.
_OTHERWISE = {
    "Failed": "the build failed",
    "Error": "OpenShift could not run the build",
    "Cancelled": "somebody cancelled the build",
}


def observe(objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
    """Say how far the first Build among `objects` has come, and why it failed or does not start. Never raises."""
    found: Manifest = next((each for each in map(_map, objects) if each.get("kind", "Build") == "Build"), {})
    status = _map(found.get("status"))
    phase = _text(status, "phase")
    # A phase that is not known is none that has ended.
    state = _STATES.get(phase, State.RUNNING if phase else State.PENDING)
    reason, message = _text(status, "reason"), _text(status, "message")
    if state is State.FAILED:
        said = [message or _OTHERWISE[phase], last_lines(_text(status, "logSnippet"))]
        return Progress(state=state, reason=reason or phase, message=": ".join(filter(None, said)))
    if state is State.PENDING:
        if message or reason:
            return Progress(state=state, reason=reason, message=message or reason)
        reason, message = why_pending(pods)
        return Progress(state=state, reason=reason, message=message)
    return Progress(state=state)


def _map(value: object) -> Manifest:
    return value if isinstance(value, Mapping) else {}


def _text(parent: Manifest, key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""
