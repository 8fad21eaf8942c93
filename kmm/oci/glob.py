"""Patterns of paths: `*`, `?` and `[…]` within a name, `**` for any number of directories. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache

ANY = "**"
_SPECIAL = re.compile(r"[*?[]")
_ESCAPED = re.compile(r"([*?[])")


def is_glob(path: str) -> bool:
    """Say whether `path` is a pattern, and not the name of one file."""
    return _SPECIAL.search(path) is not None


def escape(text: str) -> str:
    """Return the pattern that fits `text` alone."""
    return _ESCAPED.sub(r"[\1]", text)


def split(pattern: str) -> tuple[str, tuple[str, ...]]:
    """Return the directory that all that fits is in, as `a/b`, and what is a pattern, by its parts.

    `pattern`: without `.` and `..`.
    """
    parts = pattern.split("/")
    first = next((number for number, part in enumerate(parts) if is_glob(part)), len(parts))
    return "/".join(parts[:first]), tuple(parts[first:])


def fits(path: str, pattern: Sequence[str]) -> bool:
    """Say whether a path (relative, as `a/b`) fits a pattern, by its parts."""
    return bool(path) and len(pattern) in _reached(path, pattern)


def may_hold(path: str, pattern: Sequence[str]) -> bool:
    """Say whether something below `path` may fit."""
    return not path or any(number < len(pattern) for number in _reached(path, pattern))


def _reached(path: str, pattern: Sequence[str]) -> set[int]:
    """Return how many parts of the pattern may be behind, when the path is."""
    at = _past_any({0}, pattern)
    for part in path.split("/"):
        ahead: set[int] = set()
        for number in at:
            if number == len(pattern):
                continue
            if pattern[number] == ANY:
                ahead.add(number)
            elif _compiled(pattern[number]).match(part):
                ahead.add(number + 1)
        at = _past_any(ahead, pattern)
        if not at:
            break
    return at


def _past_any(at: set[int], pattern: Sequence[str]) -> set[int]:
    """`**` is no directory as well."""
    found = set(at)
    for number in sorted(at):
        ahead = number
        while ahead < len(pattern) and pattern[ahead] == ANY:
            ahead += 1
            found.add(ahead)
    return found


@lru_cache(maxsize=256)
def _compiled(part: str) -> re.Pattern[str]:
    # Its `*` are possessive, so that no name takes long. What is no pattern after all fits itself.
    return re.compile(fnmatch.translate(part))
