"""Wanted against owned: the least that makes the one of the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kmm.contract import Manifest
from kmm.core import names
from kmm.core.actions import Action, Announce, Create, Delete, Replace
from kmm.core.loader_daemonset import DAEMON_SET
from kmm.core.reasons import Reason
from kmm.core.rendered import finished
from kmm.core.view import DaemonSet, Subject, View
from kmm.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A DaemonSet that is wanted. `kernel`: empty for a device plugin. `annotations`: more of them than ours."""

    role: str
    kernel: str
    name: str
    manifest: Manifest
    annotations: Mapping[str, str]

    @property
    def hash(self) -> str:
        """What changes when what was rendered does."""
        return names.digest(self.manifest["spec"], length=16)

    @property
    def selector(self) -> Mapping[str, str]:
        """What it selects its pods by."""
        selector: Mapping[str, str] = self.manifest["spec"]["selector"]["matchLabels"]
        return selector


class NameTakenError(SpecError):
    """A stranger's object has the name that ours would have: nothing is touched."""


def bring(wanted: Wanted, owned: Sequence[DaemonSet], subject: Subject, view: View) -> Iterator[Action]:
    """Yield what makes `wanted` of the objects of its role and kernel: none of them, one, or too many.

    Raises NameTakenError.
    """
    live = [each for each in owned if not each.deleting]
    if not live:
        if owned:
            return  # its predecessor is on the way out: it unloads before the next one loads
        if wanted.name in view.taken:
            raise NameTakenError(f'a DaemonSet named "{wanted.name}" exists that is not of this Module: delete it')
        yield _create(wanted, subject)
        return
    kept, *surplus = keep_order(live)
    yield from (_delete(each, "there is another one for the same nodes") for each in surplus)
    if dict(kept.selector) != dict(wanted.selector):
        message = f"{kept.name} selects its pods in another way and is made anew: its driver is reloaded"
        yield _delete(kept, "its selector is not what is wanted, and cannot be changed")
        yield Announce(reason=Reason.SELECTOR_CHANGED, message=message, warning=True)
        return
    yield from _update(wanted, kept)


def keep_order(live: Iterable[DaemonSet]) -> list[DaemonSet]:
    """Return objects for the same nodes, the one to keep first: most ready pods, then the oldest."""
    return sorted(live, key=lambda each: (-each.ready, each.created, each.name))


def _update(wanted: Wanted, kept: DaemonSet) -> Iterator[Action]:
    ours = {names.LAST_HASH: wanted.hash, names.VERBATIM_KERNEL: wanted.kernel, **wanted.annotations}
    stamped = {**ours, names.APPLIED_GENERATION: str(kept.generation)}
    changes_spec = {**ours, names.APPLIED_GENERATION: str(kept.generation + 1)}
    if names.APPLIED_GENERATION not in kept.annotations:
        if kept.spec is not None and _covers(kept.spec, wanted.manifest["spec"]):
            yield _replace(kept, {}, stamped, "it is taken over as it is")
            yield Announce(reason=Reason.TAKEN_OVER, message=f"{kept.name} is kept as it is")
        else:
            yield _replace(kept, _updatable(wanted), changes_spec, "it is taken over")
            yield Announce(reason=Reason.TAKEN_OVER, message=f"{kept.name} is brought up to date")
    elif kept.annotations.get(names.LAST_HASH) != wanted.hash:
        yield _replace(kept, _updatable(wanted), changes_spec, "what is wanted has changed")
    elif kept.annotations[names.APPLIED_GENERATION] == str(kept.generation + 1):
        # Our last write changed nothing that counts as a generation: nobody has edited it.
        yield _replace(kept, {}, stamped, "what is noted about it has changed")
    elif not kept.applied:
        yield _replace(kept, _updatable(wanted), changes_spec, "somebody has edited it")
        message = f"{kept.name} was edited by somebody else and is brought back"
        yield Announce(reason=Reason.DRIFT_REVERTED, message=message, warning=True)
    elif any(kept.annotations.get(key) != value for key, value in ours.items()):
        yield _replace(kept, {}, stamped, "what is noted about it has changed")
    elif lost := {key: value for key, value in wanted.selector.items() if kept.labels.get(key) != value}:
        # No edit of labels counts as a generation.
        yield replace(_replace(kept, {}, stamped, "its labels were edited"), labels=lost)


def _updatable(wanted: Wanted) -> dict[str, Any]:
    return {key: value for key, value in wanted.manifest["spec"].items() if key != "selector"}


# What the API server adds to a DaemonSet that does not say it.
_DEFAULTS: tuple[tuple[str, Any], ...] = (
    ("creationTimestamp", None),
    ("dnsPolicy", "ClusterFirst"),
    ("imagePullPolicy", "Always"),
    ("imagePullPolicy", "IfNotPresent"),
    ("maxSurge", 0),
    ("minReadySeconds", 0),
    ("name", ""),
    ("protocol", "TCP"),
    ("resources", {}),
    ("restartPolicy", "Always"),
    ("revisionHistoryLimit", 10),
    ("schedulerName", "default-scheduler"),
    ("securityContext", {}),
    ("terminationGracePeriodSeconds", 30),
    ("terminationMessagePath", "/dev/termination-log"),
    ("terminationMessagePolicy", "File"),
)
# Maps of users' keys: nothing in them is a default.
_EXACT = ("nodeSelector", "labels", "matchLabels", "limits", "requests")


def _covers(live: Any, wanted: Any, key: str = "") -> bool:
    """Whether `live` says all that `wanted` says, and beyond that nothing but the API server's defaults."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping) or not all(
            name in live and _covers(live[name], value, name) for name, value in wanted.items()
        ):
            return False
        extra = live.keys() - wanted.keys() - _unlike(live)
        return all(
            key not in _EXACT and (_is_default(name, live[name]) or _is_mirror(name, live, wanted)) for name in extra
        )
    if isinstance(wanted, list | tuple):
        if not isinstance(live, list | tuple) or len(live) != len(wanted):
            return False
        return all(_covers(mine, theirs) for mine, theirs in zip(live, wanted, strict=True))
    return bool(live == wanted)


def _unlike(live: Mapping[str, Any]) -> set[str]:
    """Return what may differ: the Go operator's finalizer on pods is no reason to reload a driver.

    It is taken off them when they end.
    """
    return {"finalizers"} if live.get("finalizers") == [names.HELD_BY_THE_GO_OPERATOR] else set()


def _is_default(name: str, value: Any) -> bool:
    return (name, value) in _DEFAULTS or value in ([], {}, None)


def _is_mirror(name: str, live: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether it is the old spelling that the API server keeps beside the new one."""
    return name == "serviceAccount" and live[name] == wanted.get("serviceAccountName")


def _create(wanted: Wanted, subject: Subject) -> Create:
    annotations = {
        names.LAST_HASH: wanted.hash,
        names.APPLIED_GENERATION: "1",
        names.VERBATIM_KERNEL: wanted.kernel,
        **wanted.annotations,
    }
    manifest = finished(wanted.manifest, subject, wanted.name, wanted.selector, annotations)
    return Create(kind=DAEMON_SET, manifest=manifest)


def _replace(kept: DaemonSet, spec: Mapping[str, Any], annotations: Mapping[str, str], reason: str) -> Replace:
    return Replace(
        kind=DAEMON_SET,
        name=kept.name,
        uid=kept.uid,
        generation=kept.generation,
        spec=spec,
        annotations=annotations,
        reason=reason,
    )


def _delete(owned: DaemonSet, reason: str) -> Delete:
    return Delete(kind=DAEMON_SET, name=owned.name, uid=owned.uid, reason=reason)
