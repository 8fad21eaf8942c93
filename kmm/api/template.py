"""Variables in image names and paths, in the shell's substitution syntax as existing manifests use it.

`$VAR`, `${VAR}`, `${VAR-d}` and `${VAR=d}` (d where unset), `${VAR:-d}` and `${VAR:=d}` (d where unset or
empty), `${VAR+d}` (d where set), `${VAR:+d}` (d where set and not empty), `$$` (one dollar sign). Unset is
empty. A `$` before anything else stands for itself. The default may hold variables in turn.
"""

from __future__ import annotations

from collections.abc import Callable

Lookup = Callable[[str], str | None]
"""The value of a variable, or None where it is unset."""

VARIABLES = (
    "KERNEL_FULL_VERSION",
    "KERNEL_VERSION",
    "KERNEL_XYZ",
    "KERNEL_X",
    "KERNEL_Y",
    "KERNEL_Z",
    "MOD_NAME",
    "MOD_NAMESPACE",
)
_DEEPEST = 20


class TemplateError(ValueError):
    """A template that cannot be read; the text says where."""


def expand(template: str, lookup: Lookup) -> str:
    """Replace the variables of `template`. Raises TemplateError for one that is not closed or named."""
    text, end = _expand(template, 0, lookup, depth=0, lazy=True)
    assert end == len(template)  # noqa: S101
    return text


def check(template: str) -> tuple[str, ...]:
    """Return the names of the variables that `template` may use. Raises TemplateError."""
    names: dict[str, None] = {}

    def note(name: str) -> None:
        names[name] = None

    _expand(template, 0, note, depth=0, lazy=False)
    return tuple(names)


def _expand(template: str, start: int, lookup: Lookup, depth: int, *, lazy: bool) -> tuple[str, int]:
    """Expand from `start` to the end, or below the top to the brace that closes; return what and where.

    `lazy`: what a shell would not look at is read, but its variables are not looked up.
    """
    if depth > _DEEPEST:
        raise TemplateError(f"has variables more than {_DEEPEST} deep")
    found: list[str] = []
    at = start
    while at < len(template):
        if depth and template[at] == "}":
            return "".join(found), at
        if template[at] != "$":
            end = at + 1
            while end < len(template) and template[end] not in "$}":
                end += 1
            found.append(template[at:end])
            at = end
            continue
        following = template[at + 1 : at + 2]
        if following == "$":
            found.append("$")
            at += 2
        elif following == "{":
            text, at = _braces(template, at, lookup, depth, lazy=lazy)
            found.append(text)
        else:
            end = _name_end(template, at + 1)
            found.append((lookup(template[at + 1 : end]) or "") if end > at + 1 else "$")
            at = end
    if depth:
        raise TemplateError('has a "${" that is never closed')
    return "".join(found), at


def _braces(template: str, at: int, lookup: Lookup, depth: int, *, lazy: bool) -> tuple[str, int]:
    name_end = _name_end(template, at + 2)
    name = template[at + 2 : name_end]
    if name_end == len(template):
        raise TemplateError(f'has a "${{" at character {at + 1} that is never closed')
    if not name:
        raise TemplateError(f'has a "${{" at character {at + 1} without the name of a variable behind it')
    value = lookup(name)
    if template[name_end] == "}":
        return value or "", name_end + 1
    operator = template[name_end : name_end + 2] if template[name_end] == ":" else template[name_end]
    if operator.lstrip(":") not in ("-", "=", "+") or operator == ":":
        raise TemplateError(
            f'has "{operator}" behind "${{{name[:80]}": only "}}", "-", ":-", "=", ":=", "+" and ":+" can stand there'
        )
    is_set = bool(value) if operator.startswith(":") else value is not None
    taken = is_set if operator.endswith("+") else not is_set
    inner = lookup if taken or not lazy else _nothing
    other, end = _expand(template, name_end + len(operator), inner, depth + 1, lazy=lazy)
    if operator.endswith("+"):
        return (other if is_set else ""), end + 1
    return (other if taken else value or ""), end + 1


def _nothing(_: str) -> None:
    return None


def _name_end(template: str, start: int) -> int:
    end = start
    while end < len(template) and template[end].isascii() and (template[end].isalnum() or template[end] == "_"):
        if end == start and template[end].isdigit():
            break
        end += 1
    return end
