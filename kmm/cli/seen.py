"""What a cluster tells of its Modules and of its operator, for a person to look at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kmm.api.schema import at
from kmm.contract import nearest
from kmm.core.reasons import About, Reason, reason_of
from kmm.core.status import FIELDS_IGNORED, readable
from kmm.errors import ConfigError
from kmm.runtime.advice import advice
from kmm.runtime.kinds import LEASE, MODULE, path_of
from kmm.runtime.leader import LEASE_NAME, Leader, leader_of
from kmm.runtime.transport import ApiError, NotFound, Transport

_PAGE = 250
_PAGES_MOST = 400
_RENEWED_WITHIN = 0.3  # of its duration: a leader renews its Lease twice in that
_UNDER_WAY = frozenset({Reason.LOADING, Reason.DEVICE_PLUGIN_STARTING, Reason.NOT_SEEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSeen:
    """An operator. `state`: Leading; Expired (it stopped renewing); Released (nobody leads); Missing; Unreadable."""

    namespace: str
    state: str
    leader: Leader | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSeen:
    """A Module for one kernel. `loaded`: on how many of `nodes`, None where that is not known."""

    kernel: str
    nodes: int
    loaded: int | None
    state: str
    reason: str
    message: str
    image: str
    image_state: str
    digest: str
    attempts: int
    last_failure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSeen:
    """A Module. Counts are of nodes; `device_plugin`: available of wanted, None where none is asked for."""

    namespace: str
    name: str
    ready: bool
    reason: str
    message: str
    generation: int
    observed: int
    targeted: int
    wanted: int
    loaded: int
    device_plugin: tuple[int, int] | None
    kernels: tuple[KernelSeen, ...]
    kernels_not_shown: int
    others: tuple[tuple[str, str], ...]  # reasons and messages of what is amiss and about no kernel

    @property
    def is_under_way(self) -> bool:
        """Whether it is on its way to be ready, with nobody's help."""
        known = reason_of(self.reason)
        return known in _UNDER_WAY or (known is not None and not known.remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a cluster told."""

    operators: tuple[OperatorSeen, ...]
    modules: tuple[ModuleSeen, ...]

    @property
    def ready(self) -> bool:
        """Whether an operator leads, as far as one may know, and every Module is ready."""
        led = any(each.state in ("Leading", "Unreadable") for each in self.operators)
        return led and all(each.ready for each in self.modules)


def look(transport: Transport, module: str | None, namespace: str | None, operator_namespace: str | None) -> Seen:
    """Return what a cluster tells of one Module or all, in one namespace or all, and of its operator.

    Raises:
        ConfigError: there is no such Module.
        NotFound: the cluster knows no Modules.
        ApiError, Unreachable: they cannot be listed.
    """
    modules = [_module(each) for each in _listed(transport, path_of(MODULE, namespace or ""))]
    if module is not None:
        found = [each for each in modules if each.name == module]
        if not found:
            names = sorted({each.name for each in modules})
            where = f"in the namespace {namespace}" if namespace else "in any namespace"
            raise ConfigError(f'there is no Module "{module}" {where}{nearest(module, names)}')
        modules = found
    modules.sort(key=lambda each: (each.ready, each.namespace, each.name))
    return Seen(operators=_operators(transport, operator_namespace), modules=tuple(modules))


def _listed(transport: Transport, path: str, **query: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list, page by page."""
    more = ""
    for _ in range(_PAGES_MOST):
        asked = {**query, "limit": str(_PAGE)} | ({"continue": more} if more else {})
        page = transport.ask("GET", path, query=asked).read()
        found = at(page, "items")
        yield from (each for each in (found if isinstance(found, list) else ()) if isinstance(each, Mapping))
        more = _text(at(page, "metadata", "continue"))
        if not more:
            return


def _operators(transport: Transport, namespace: str | None) -> tuple[OperatorSeen, ...]:
    """Return the operator of a namespace, or those of all namespaces."""
    try:
        if namespace:
            leases = [transport.ask("GET", path_of(LEASE, namespace, LEASE_NAME)).read()]
        else:
            leases = list(_listed(transport, path_of(LEASE), fieldSelector=f"metadata.name={LEASE_NAME}"))
        found = [_operator(transport, leader_of(each)) for each in leases]
    except NotFound:
        return (OperatorSeen(namespace=namespace or "", state="Missing"),)
    except ApiError as error:
        return (OperatorSeen(namespace=namespace or "", state="Unreadable", message=advice(error, transport.host)),)
    return tuple(sorted(found, key=lambda each: each.namespace))


def _operator(transport: Transport, leader: Leader) -> OperatorSeen:
    if not leader.holder:
        return OperatorSeen(namespace=leader.namespace, state="Released")
    silent_s = leader.silent_s(datetime.now(UTC))
    leads = -1 <= silent_s <= leader.duration_s
    if not leads and silent_s != float("inf"):
        # Its clock, or ours, may be wrong: that it renews its Lease is what counts.
        time.sleep(min(10.0, leader.duration_s * _RENEWED_WITHIN))
        try:
            lease = transport.ask("GET", path_of(LEASE, leader.namespace, LEASE_NAME)).read()
        except NotFound:
            return OperatorSeen(namespace=leader.namespace, state="Missing")
        again = leader_of(lease)
        leads, leader = again.renewed != leader.renewed and bool(again.holder), again
    return OperatorSeen(namespace=leader.namespace, state="Leading" if leads else "Expired", leader=leader)


def _module(body: Mapping[str, Any]) -> ModuleSeen:
    written = at(body, "status")
    said = readable(written if isinstance(written, Mapping) else {})
    conditions = {each.get("type"): each for each in said["conditions"]}
    top = conditions.get("Ready", {})
    generation, observed = _count(at(body, "metadata", "generation")), _count(said.get("observedGeneration"))
    ready, reason, message = top.get("status") == "True", _text(top.get("reason")), _text(top.get("message"))
    if at(body, "metadata", "deletionTimestamp"):
        ready, reason, message = False, str(Reason.DELETING), ""
    elif not top or observed < generation:
        ready, reason, message = False, str(Reason.NOT_SEEN), ""
    kernels = sorted((_kernel(each) for each in said["kernels"]), key=_urgency)
    of_kernels = {each.reason for each in kernels}
    others = {
        _text(each.get("reason")): _text(each.get("message"))
        for each in conditions.values()
        if (each.get("status") != "True" or each.get("type") == FIELDS_IGNORED)
        and each.get("reason") not in of_kernels
    }
    if not ready or reason == Reason.NO_NODES:
        others = ({} if reason in of_kernels else {reason: message}) | others
    plugin = at(body, "spec", "devicePlugin")
    return ModuleSeen(
        namespace=_text(at(body, "metadata", "namespace")),
        name=_text(at(body, "metadata", "name")),
        ready=ready,
        reason=reason,
        message=message,
        generation=generation,
        observed=observed,
        targeted=_count(at(said, "moduleLoader", "nodesMatchingSelectorNumber")),
        wanted=_count(at(said, "moduleLoader", "desiredNumber")),
        loaded=_count(at(said, "moduleLoader", "availableNumber")),
        device_plugin=(
            _count(at(said, "devicePlugin", "availableNumber")),
            _count(at(said, "devicePlugin", "desiredNumber")),
        )
        if isinstance(plugin, Mapping)
        else None,
        kernels=tuple(kernels),
        kernels_not_shown=_count(said.get("kernelsNotShown")),
        others=tuple(others.items()),
    )


def _kernel(said: Mapping[str, Any]) -> KernelSeen:
    nodes, state, reason = _count(said.get("nodes")), _text(said.get("state")), _text(said.get("reason"))
    loaded: int | None = _count(said["available"]) if "available" in said else None
    if loaded is None and reason == Reason.LOADED:
        loaded = nodes
    known = reason_of(reason)
    image_state = ""
    if known is not None and (known.about is About.IMAGE or known is Reason.IMAGE_PULL_FAILED):
        image_state = reason
    elif known in (Reason.LOADING, Reason.LOADED) or (known is not None and known.about is About.LOADER):
        image_state = str(Reason.IMAGES_READY)
    return KernelSeen(
        kernel=_text(said.get("kernelVersion")),
        nodes=nodes,
        loaded=loaded,
        state=state,
        reason=reason,
        message=_text(said.get("message")),
        image=_text(said.get("image")),
        image_state=image_state,
        digest=_text(said.get("digest")),
        attempts=_count(said.get("attempts")),
        last_failure=_text(said.get("lastFailureTime")),
    )


def _urgency(kernel: KernelSeen) -> tuple[int, bool, str]:
    """Return a key that puts first what failed, last what is settled."""
    states = ("Failed", "Pending", "Settled")
    order = states.index(kernel.state) if kernel.state in states else 1
    return order, kernel.reason != Reason.NO_MAPPING, kernel.kernel


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
