"""The plugin contract as data, and what a change of it asks for: docs/contract.json is the one last released.

A version that CHANGELOG.md names below the heading of a release is released. Until there is one, the first is being
made, and docs/contract.json is what it is so far.

What is described: what stands in `kmm.contract`, `kmm.hookspecs`, `kmm.job` and `kmm.errors` under a public name, and
the fixtures and rules of `kmm.conformance`. docs/plugin-contract.md says what may become of it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Any

from _pytest.fixtures import FixtureFunctionDefinition

from kmm import conformance, contract, errors, hookspecs, job
from kmm.conformance.contract import OVERRIDABLE, rules

VERSION = "version"
_NOT_DESCRIBED = "CONTRACT_VERSION"

Entry = Mapping[str, Any]
"""`is`: what kind of thing; `shape`: what of it must stay; `parts`: by name, each with a `type`, which must stay."""


def describe() -> dict[str, Any]:
    """Return the contract as it is: its version, and an entry for each public name."""
    entries = {
        f"{module.__name__}.{name}": entry
        for module in (contract, hookspecs, job, errors)
        for name, entry in _of_module(module)
    }
    for name in conformance.__all__:
        entries |= _of_suite(getattr(conformance, name))
    return {VERSION: contract.CONTRACT_VERSION, **dict(sorted(entries.items()))}


def written(description: Mapping[str, Any]) -> str:
    """Return a description as text: a line for each part, so that a difference is read easily."""
    entries = ",\n".join(f"{json.dumps(name)}: {_written(each)}" for name, each in description.items())
    return f"{{\n{entries}\n}}\n"


def _written(entry: Any) -> str:
    if not isinstance(entry, Mapping) or not entry.get("parts"):
        return json.dumps(entry)
    head = json.dumps({key: entry[key] for key in entry if key != "parts"}).removesuffix("}")
    parts = ",\n".join(f"  {json.dumps(name)}: {json.dumps(part)}" for name, part in entry["parts"].items())
    return f'{head}, "parts": {{\n{parts}\n}}}}'


def fixtures(suite: type) -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield those of a class of rules that a plugin's own tests may have otherwise."""
    for base in reversed(suite.__mro__):
        for name, member in vars(base).items():
            of_offers = name == "offer" and suite is conformance.PluginContract
            if name in OVERRIDABLE and not of_offers and isinstance(member, FixtureFunctionDefinition):
                yield name, member._get_wrapped_function()  # noqa: SLF001 -- what says it


def _of_module(module: ModuleType) -> Iterator[tuple[str, Entry]]:
    aliases = {name for name, said in inspect.get_annotations(module).items() if said == "TypeAlias"}
    for name, each in vars(module).items():
        if name.startswith("_") or name == _NOT_DESCRIBED:
            continue
        if isinstance(each, type) and each.__module__ == module.__name__:
            yield from _of_class(name, each)
        elif inspect.isfunction(each) and each.__module__ == module.__name__:
            yield name, _of_function(each, "hook" if module is hookspecs else "function")
        elif isinstance(each, type) and name in getattr(module, "__all__", ()):
            yield name, {"is": "name", "shape": f"{each.__module__}.{each.__name__}"}
        elif name in aliases or (name.isupper() and not isinstance(each, type)):
            yield name, {"is": "constant", "shape": repr(each)}


def _of_class(name: str, each: type) -> Iterator[tuple[str, Entry]]:
    bases = ", ".join(base.__name__ for base in each.__bases__)
    if issubclass(each, Enum):
        yield name, {"is": "enum", "shape": bases, "parts": {one.name: {"type": repr(one.value)} for one in each}}
    elif getattr(each, "_is_protocol", False):
        yield name, {"is": "protocol", "shape": bases, "parts": dict(_of_members(each))}
    elif dataclasses.is_dataclass(each):
        yield (
            name,
            {"is": "value", "shape": "", "parts": {one.name: _of_field(one) for one in dataclasses.fields(each)}},
        )
    else:
        made = dict(_parameters(each.__init__)) if "__init__" in vars(each) else {}
        yield name, {"is": "class", "shape": bases, "parts": made}
    if not getattr(each, "_is_protocol", False):
        for of, member in vars(each).items():
            if of.startswith("_"):
                continue
            if inspect.isfunction(member):
                yield f"{name}.{of}", _of_function(member, "function")
            elif isinstance(member, property) and member.fget:
                yield f"{name}.{of}", _of_function(member.fget, "property")


def _of_members(protocol: type) -> Iterator[tuple[str, Entry]]:
    for name, member in vars(protocol).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property) and member.fget:
            yield name, {"type": str(inspect.signature(member.fget).return_annotation)}
        elif inspect.isfunction(member):
            yield name, {"type": str(inspect.signature(member)).replace("'", "")}


def _of_field(field: dataclasses.Field[Any]) -> Entry:
    if field.default is not dataclasses.MISSING:
        return {"type": str(field.type), "default": repr(field.default)}
    if field.default_factory is not dataclasses.MISSING:
        return {"type": str(field.type), "default": repr(field.default_factory())}
    return {"type": str(field.type)}


def _of_function(function: Callable[..., object], what: str) -> Entry:
    shape = str(inspect.signature(function).return_annotation)
    return {"is": what, "shape": shape, "parts": dict(_parameters(function))}


def _parameters(function: Callable[..., object]) -> Iterator[tuple[str, Entry]]:
    for name, each in inspect.signature(function).parameters.items():
        if name == "self":
            continue
        stars = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        said = {"type": str(each.annotation)}
        if stars or each.default is not each.empty:
            said["default"] = "" if stars else repr(each.default)
        if each.kind is each.KEYWORD_ONLY:
            said["by"] = "keyword"
        yield stars + name, said


def _of_suite(suite: type) -> dict[str, Entry]:
    name = f"{conformance.__name__}.{suite.__name__}"
    given = {each: {"type": str(inspect.signature(made).return_annotation)} for each, made in fixtures(suite)}
    return {
        name: {"is": "fixtures", "shape": "", "parts": given},
        f"{name} rules": {"is": "rules", "shape": "", "parts": {each: {"type": "rule"} for each in rules(suite)}},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became otherwise. `breaks`: plugins that keep to the description before it may not live with it."""

    what: str
    breaks: bool


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[Change]:
    """Return what is otherwise in the second of two descriptions, but for the version."""
    old, new = ({name: each for name, each in side.items() if name != VERSION} for side in (before, after))
    found = [Change(what=f"{name} is gone", breaks=old[name]["is"] != "rules") for name in old if name not in new]
    found += [Change(what=f"{name} is new", breaks=False) for name in new if name not in old]
    for name in old:
        if name in new:
            found += _changes(name, old[name], new[name])
    return found


def _changes(name: str, old: Entry, new: Entry) -> Iterator[Change]:
    for key in ("is", "shape"):
        if old[key] != new[key]:
            yield Change(what=f"{name} was {old[key] or 'nothing'} and is {new[key] or 'nothing'}", breaks=True)
    what, was, now = new["is"], old.get("parts", {}), new.get("parts", {})
    for part in was:
        if part not in now:
            yield Change(what=f"{name}: {part} is gone", breaks=what != "rules")
        elif was[part] != now[part]:
            yield _part_changed(f"{name}: {part}", was[part], now[part])
    for part in now:
        if part not in was:
            # Who implements a protocol lacks it; who calls, or makes a value, does not say it. A hook, a rule and a
            # fixture are asked for by those who know them.
            lacked = what == "protocol" or (what in ("value", "function", "class") and "default" not in now[part])
            yield Change(what=f"{name}: {part} is new{' and must be there' if lacked else ''}", breaks=lacked)
    if what in ("function", "class"):
        first, then = (_positions(each) for each in (was, now))
        if set(first) <= set(then) and first != then[: len(first)]:
            yield Change(what=f"{name}: its parameters are in another order", breaks=True)


def _part_changed(name: str, was: Entry, now: Entry) -> Change:
    for key in ("type", "by"):
        if was.get(key) != now.get(key):
            return Change(what=f"{name} was {was.get(key, 'free')} and is {now.get(key, 'free')}", breaks=True)
    before, after = was.get("default", "required"), now.get("default", "required")
    return Change(what=f"{name}: its default was {before} and is {after}", breaks="default" not in now)


def _positions(parts: Mapping[str, Entry]) -> list[str]:
    return [name for name, part in parts.items() if part.get("by") != "keyword" and not name.startswith("*")]


def faults(before: Mapping[str, Any], after: Mapping[str, Any], changelog: str) -> Sequence[str]:
    """Return what the contract lacks to be what it is: what, and what to do.

    `before`: as docs/contract.json has it; `after`: as the code has it.
    """
    told, version = before[VERSION], after[VERSION]
    major, minor = _numbers(told)
    # While the first is being made, nobody relies on what it was yesterday.
    binding = is_released(told, changelog)
    changes = compare(before, after) if binding else ()
    breaking = [each.what for each in changes if each.breaks]
    found = []
    if binding and _numbers(version) < (major, minor):
        found.append(f"CONTRACT_VERSION went back from {told} to {version}")
    if breaking and _numbers(version)[0] <= major:
        found.append(
            f"plugins made for contract {told} may not live with this:{_listed(breaking)}\n"
            "Keep what was there beside what is new, and let it warn (docs/plugin-contract.md). Where it cannot be "
            f'kept, it is contract {major + 1}.0: CONTRACT_VERSION and ENTRY_POINT_GROUP "kmm.v{major + 1}" in '
            "kmm/contract.py."
        )
    elif changes and version == told:
        found.append(
            f"contract {told} has changed:{_listed([each.what for each in changes])}\n"
            f'Set CONTRACT_VERSION to "{major}.{minor + 1}" in kmm/contract.py, write into CHANGELOG.md what plugins '
            f'may do now, with the words "contract {major}.{minor + 1}".'
        )
    if not _names(version, changelog):
        found.append(f'CHANGELOG.md has no "contract {version}": write there what changed for plugins')
    group = after.get(f"{contract.__name__}.ENTRY_POINT_GROUP", {}).get("shape")
    if group and group != repr(f"kmm.v{_numbers(version)[0]}"):
        found.append(f"the entry-point group {group} is not that of contract {version}")
    return found


def to_be_written(before: Mapping[str, Any], after: Mapping[str, Any], changelog: str) -> Mapping[str, Any]:
    """Return which of two descriptions docs/contract.json has to be: the first as long as the second, which is being
    made, has to be judged by it.
    """
    kept = is_released(before[VERSION], changelog) and not is_released(after[VERSION], changelog)
    return before if kept else after


def is_released(version: str, changelog: str) -> bool:
    """Whether the CHANGELOG names a version of the contract below the heading of a release."""
    _, *sections = re.split(r"^## +", changelog, flags=re.MULTILINE)
    return any(_names(version, each) for each in sections if not each.lower().startswith("unreleased"))


def _names(version: str, changelog: str) -> bool:
    return bool(re.search(rf"contract {re.escape(version)}(?!\d)", changelog))


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _listed(what: Sequence[str]) -> str:
    return "".join(f"\n  {each}" for each in what)
