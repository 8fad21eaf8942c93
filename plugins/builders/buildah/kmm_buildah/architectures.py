"""An image for several architectures: a Job for each builds and pushes its own, and the last makes the index of them.

No Job waits for another. Each pushes under a name that tells the architecture and what went into it, and then makes
the index if all of them are there, as whoever ends last finds them. Two that end together make the same index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kmm.contract import BuildRequest, Manifest, Progress, State
from kmm.job import observe_job
from kmm.oci import reference

_ARCHITECTURE = "kubernetes.io/arch"
_JOB_NAMES = ("batch.kubernetes.io/job-name", "job-name")
_INPUTS_LONG = 12  # hexadecimal digits that tell one build's image from another's


def apart(request: BuildRequest) -> Sequence[BuildRequest]:
    """Return a request for each architecture that the image is for, to be built on nodes that have it."""
    if not request.architectures:
        return (request,)
    return tuple(
        replace(request, architecture=each, node_selector={**request.node_selector, _ARCHITECTURE: each})
        for each in request.architectures
    )


def images(request: BuildRequest) -> Mapping[str, str]:
    """Return what the image of each architecture is called, none where there is to be no index of them.

    Raises ValueError where that is no name, such as one that is too long.
    """
    if request.image is None or not request.architectures:
        return {}
    whole, end = reference.parse(request.image), request.inputs[:_INPUTS_LONG]
    try:
        return {each: str(whole.with_suffix(f"-{each}-{end}".rstrip("-"))) for each in request.architectures}
    except reference.ReferenceError as error:
        raise ValueError(f"the image of an architecture of its own: {error}") from None


def observe(objects: Sequence[Manifest], pods: Sequence[Manifest]) -> Progress:
    """Say how far all Jobs have come. None has failed before all are over: what the others build is not lost."""
    if len(objects) <= 1:
        return observe_job(objects, pods)
    found = {_architecture(each): observe_job([each], _pods_of(each, pods)) for each in objects}
    states = {each.state for each in found.values()}
    said = [f"{name}: {each.message}" for name, each in sorted(found.items()) if each.message]
    reason = next((each.reason for _, each in sorted(found.items()) if each.reason), "")
    if states <= {State.SUCCEEDED, State.FAILED}:
        state = State.FAILED if State.FAILED in states else State.SUCCEEDED
    else:
        state = State.PENDING if states == {State.PENDING} else State.RUNNING
    return Progress(state=state, reason=reason, message="; ".join(said))


def _architecture(job: Manifest) -> str:
    pod = _map(_map(_map(_map(job, "spec"), "template"), "spec"), "nodeSelector")
    return str(pod.get(_ARCHITECTURE) or _map(job, "metadata").get("name", ""))


def _pods_of(job: Manifest, pods: Sequence[Manifest]) -> Sequence[Manifest]:
    name = _map(job, "metadata").get("name")
    return [each for each in pods if name in [_map(_map(each, "metadata"), "labels").get(key) for key in _JOB_NAMES]]


def _map(parent: Manifest, key: str) -> Manifest:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}
