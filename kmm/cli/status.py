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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from kmm.admission import printable
from kmm.cli.seen import KernelSeen, ModuleSeen, OperatorSeen, Seen, look
from kmm.core.reasons import Reason, reason_of
from kmm.core.status import kernels_named
from kmm.errors import ConfigError, KmmError
from kmm.runtime.advice import advice
from kmm.runtime.transport import NotFound, connect

_KERNELS_SHOWN = 8
_NOTES_SHOWN = 8
_NAMED = 3
_LONGEST = 400
_CELL_LONGEST = 80
_EVERY_S = 2.0


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

    def seen() -> Seen:
        try:
            return look(transport, module, namespace, operator_namespace)
        except NotFound:
            raise ConfigError(
                f"{transport.host} knows no Modules: `kmm crds | kubectl apply -f -` makes them known"
            ) from None
        except KmmError as error:
            raise error if isinstance(error, ConfigError) else ConfigError(advice(error, transport.host)) from None

    if watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(seen, output)
        return 0
    found = seen()
    print(json.dumps(_json(found), indent=2) if output == "json" else "\n".join(_table(found)))
    return 0 if found.ready else 1


def _watch(seen: Callable[[], Seen], output: str) -> None:
    """Print what is seen, and again whenever it is another, until it is interrupted. Raises as `seen`, at first."""
    shown, told = "", _line(seen(), output)
    while True:
        if told != shown:
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() and output == "table" else ""
            print(clear + told, flush=True)
            shown = told
        time.sleep(_EVERY_S)
        try:
            told = _line(seen(), output)
        except ConfigError as error:
            # It may be back soon: an API server that starts again is no reason to end.
            told = json.dumps({"error": str(error)}) if output == "json" else printable(f"kmm: {error}")


def _line(seen: Seen, output: str) -> str:
    """Return what a change looks like: a table and an empty line, or JSON in one line."""
    return json.dumps(_json(seen)) if output == "json" else "\n".join([*_table(seen), ""])


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
