"""`kmm status`: how the Modules of a cluster are, kernel by kernel, what to do about it, and how the operator is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from kmm.admission import printable
from kmm.api.schema import at
from kmm.contract import nearest
from kmm.core.reasons import About, Reason, reason_of
from kmm.core.status import kernels_named, readable
from kmm.errors import ConfigError, KmmError
from kmm.runtime.advice import advice
from kmm.runtime.kinds import LEASE, MODULE, path_of
from kmm.runtime.leader import LEASE_NAME, Leader, leader_of
from kmm.runtime.transport import ApiError, NotFound, Transport, connect

_KERNELS_SHOWN = 8
_NOTES_SHOWN = 8
_NAMED = 3
_LONGEST = 400
_CELL_LONGEST = 80
_PAGE = 250
_PAGES_MOST = 400
_EVERY_S = 2.0
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


def status(
    module: str | None,
    namespace: str | None,
    operator_namespace: str | None,
    kubeconfig: Path | None,
    output: str,
    *,
    watch: bool,
) -> int:
    """Print how Modules are. Return 0 where all are ready and an operator leads, or if `watch`; else 1.

    Raises:
        ConfigError: the cluster cannot be asked, or there is no such Module.
    """
    if output not in ("table", "json"):
        raise ConfigError(f'output "{output}" is unknown: it is table or json')
    if module and "/" in module and namespace is None:
        namespace, _, module = module.partition("/")
    transport = connect(kubeconfig)
    operator_namespace = operator_namespace or os.environ.get("OPERATOR_NAMESPACE") or None

    def look() -> Seen:
        try:
            return _look(transport, module, namespace, operator_namespace)
        except NotFound:
            raise ConfigError(
                f"{transport.host} knows no Modules: `kmm crds | kubectl apply -f -` makes them known"
            ) from None
        except KmmError as error:
            raise error if isinstance(error, ConfigError) else ConfigError(advice(error, transport.host)) from None

    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(look, output)
        return 0
    seen = look()
    print(json.dumps(_json(seen), indent=2) if output == "json" else "\n".join(_table(seen)))
    return 0 if seen.ready else 1


def _watch(look: Callable[[], Seen], output: str) -> None:
    """Print what is seen, and again whenever it is another, until it is interrupted. Raises as `look`, at first."""
    shown, told = "", _line(look(), output)
    while True:
        if told != shown:
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() and output == "table" else ""
            print(clear + told, flush=True)
            shown = told
        time.sleep(_EVERY_S)
        try:
            told = _line(look(), output)
        except ConfigError as error:
            # It may be back soon: an API server that starts again is no reason to end.
            told = json.dumps({"error": str(error)}) if output == "json" else printable(f"kmm: {error}")


def _line(seen: Seen, output: str) -> str:
    """Return what a change looks like: a table and an empty line, or JSON in one line."""
    return json.dumps(_json(seen)) if output == "json" else "\n".join([*_table(seen), ""])


# ── Looking ───────────────────────────────────────────────────────────────────────────────────────────────────


def _look(transport: Transport, module: str | None, namespace: str | None, operator_namespace: str | None) -> Seen:
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
        if each.get("status") != "True" and each.get("reason") not in of_kernels
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


# ── What to do ────────────────────────────────────────────────────────────────────────────────────────────────


def _remedy(reason: str, module: ModuleSeen) -> str:
    """Return what to do about a reason, in commands for this Module; empty where it is nothing."""
    known = reason_of(reason)
    yours = {"NAMESPACE": shlex.quote(module.namespace), "MODULE": shlex.quote(module.name)}
    return re.sub(r"\b(NAMESPACE|MODULE)\b", lambda match: yours[match[1]], known.remedy) if known else ""


def _notes(module: ModuleSeen) -> Iterator[tuple[str, str, str, str]]:
    """Yield what is worth a word: where it is so, its reason, its message and what to do."""
    by: dict[str, list[KernelSeen]] = {}
    for each in module.kernels:
        by.setdefault(each.reason, []).append(each)
    for reason, kernels in by.items():
        remedy = _remedy(reason, module)
        if reason != Reason.LOADING and (remedy or (kernels[0].message and kernels[0].state != "Settled")):
            where = kernels_named([each.kernel[:_CELL_LONGEST] for each in kernels], _NAMED)
            yield where, reason, kernels[0].message, remedy
    for reason, message in module.others:
        if reason == Reason.DEVICE_PLUGIN_STARTING and module.loaded < module.wanted:
            continue  # it follows the driver
        yield "", reason, message, _remedy(reason, module)


# ── Printing ──────────────────────────────────────────────────────────────────────────────────────────────────


def _json(seen: Seen) -> dict[str, Any]:
    """Return it for machines: docs/status.md lists the keys."""
    return {
        "ready": seen.ready,
        "operators": [
            {
                "namespace": each.namespace or None,
                "state": each.state,
                "holder": each.leader.holder if each.leader else None,
                "since": (each.leader.since or None) if each.leader else None,
                "version": (each.leader.version or None) if each.leader else None,
                "refusedPlugins": [{"name": plugin.name, "reason": plugin.reason} for plugin in each.leader.refused]
                if each.leader
                else [],
                "refusedPluginsNotShown": each.leader.refused_not_shown if each.leader else 0,
                "message": each.message or None,
            }
            for each in seen.operators
        ],
        "modules": [
            {
                "namespace": each.namespace,
                "name": each.name,
                "ready": each.ready,
                "reason": each.reason,
                "message": each.message or None,
                "whatToDo": _remedy(each.reason, each) or None,
                "generation": each.generation,
                "observedGeneration": each.observed,
                "nodes": {"targeted": each.targeted, "wanted": each.wanted, "loaded": each.loaded},
                "devicePlugin": {"available": each.device_plugin[0], "wanted": each.device_plugin[1]}
                if each.device_plugin
                else None,
                "kernels": [
                    {
                        "kernel": kernel.kernel,
                        "nodes": kernel.nodes,
                        "loaded": kernel.loaded,
                        "state": kernel.state,
                        "reason": kernel.reason,
                        "message": kernel.message or None,
                        "whatToDo": _remedy(kernel.reason, each) or None,
                        "image": kernel.image or None,
                        "imageState": kernel.image_state or None,
                        "digest": kernel.digest or None,
                        "attempts": kernel.attempts,
                        "lastFailureTime": kernel.last_failure or None,
                    }
                    for kernel in each.kernels
                ],
                "kernelsNotShown": each.kernels_not_shown,
            }
            for each in seen.modules
        ],
    }


def _table(seen: Seen) -> Iterator[str]:
    for operator in seen.operators:
        yield from _told_of(operator)
    if not seen.operators:
        yield _painted("operator: none has led here yet", "red") + "; `kmm run` starts one"
    if not seen.modules:
        yield "there are no Modules"
        return
    yield ""
    yield from _aligned(_rows(seen.modules))
    for module in seen.modules:
        for where, reason, message, remedy in list(_notes(module))[:_NOTES_SHOWN]:
            told = f"{module.namespace}/{module.name}{', ' if where else ''}{where}: {reason}"
            yield ""
            yield _cut(f"{told}: {message}" if message else told)
            if remedy:
                yield printable(f"  what to do: {remedy}")


def _told_of(operator: OperatorSeen) -> Iterator[str]:
    where = printable(operator.namespace)
    who, leader = f"operator in {where}" if where else "operator", operator.leader
    if operator.state == "Missing":
        yield f"{who}: {_painted('none has led there', 'red')}; `kmm status` without -N looks in all namespaces"
    elif operator.state == "Unreadable":
        yield _cut(f"{who}: not known: {operator.message}")
    elif leader is None:
        yield f"{who}: {_painted('nobody leads', 'red')}: the last one was stopped: look at its Deployment"
    else:
        version = f", kmm {leader.version}" if leader.version else ""
        told = printable(f"{leader.holder[:_CELL_LONGEST]} since {leader.since[:19]}{version}")
        if operator.state == "Leading":
            yield f"{who}: {told}"
        else:
            quiet = _painted("nobody leads", "red")
            since = printable(leader.renewed[:19])
            yield f"{who}: {quiet}: not a word since {since} of {told}: look at its pod and its log"
        for plugin in leader.refused:
            yield printable(f"  plugin {plugin.name} is refused: {plugin.reason}")
        if leader.refused_not_shown:
            yield f"  and {leader.refused_not_shown} more plugins"
        if leader.refused:
            yield "  what to do: docs/reasons.md, or `kmm plugins` where the operator runs"


def _rows(modules: Sequence[ModuleSeen]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield rows, each after the colour of its state."""
    yield "", ("MODULE", "STATE", "LOADED", "DEVICE PLUGIN", "IMAGE", "ATTEMPTS")
    for module in modules:
        plugin = f"{module.device_plugin[0]}/{module.device_plugin[1]}" if module.device_plugin else ""
        state = module.reason if module.ready else f"not ready: {module.reason}"
        title = f"{module.namespace}/{module.name}"
        colour = "green" if module.ready else "yellow" if module.is_under_way else "red"
        yield colour, (title, state, f"{module.loaded}/{module.wanted}", plugin, "", "")
        for each in module.kernels[:_KERNELS_SHOWN]:
            loaded = f"{'?' if each.loaded is None else each.loaded}/{each.nodes}"
            image = "ready" if each.image_state == Reason.IMAGES_READY else each.image_state
            colour = {"Settled": "green", "Failed": "red"}.get(each.state, "yellow")
            yield colour, (f"  {each.kernel}", each.reason, loaded, "", image, str(each.attempts or ""))
        left = module.kernels[_KERNELS_SHOWN:]
        if left or module.kernels_not_shown:
            counted = Counter(each.reason for each in left).most_common(_NAMED)
            some = ", ".join(f"{count} {reason}" for reason, count in counted)
            yield "", (f"  and {len(left) + module.kernels_not_shown} more", some, "", "", "", "")


def _aligned(rows: Iterable[tuple[str, Sequence[str]]]) -> Iterator[str]:
    """Yield rows with their columns aligned."""
    table = [(colour, [_cut(cell, _CELL_LONGEST) for cell in row]) for colour, row in rows]
    widths = [max(map(len, column)) for column in zip(*(row for _, row in table), strict=True)]
    for colour, row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join([cells[0], _painted(cells[1], colour), *cells[2:]]).rstrip()


def _painted(text: str, colour: str) -> str:
    plain = not colour or not sys.stdout.isatty() or "NO_COLOR" in os.environ
    return text if plain else typer.style(text, fg=colour)


def _cut(text: str, longest: int = _LONGEST) -> str:
    """Return a text that a terminal can show: of a long one its beginning, and its end, which often says why."""
    text = printable(text)
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[1 - longest + longest // 2 :]}"
