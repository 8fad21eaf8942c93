"""Paths inside an image, as `a/b`: without `.`, `..` and a slash in front. Pure."""

from __future__ import annotations

from kmm.oci.tar import PATH_LONGEST


def normal(path: str) -> str:
    """Return a path without `.` and `..`; what leads out of the root stays in it. Empty: the root, or no path."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    found = "/".join(parts)
    return "" if len(found) > PATH_LONGEST or "\0" in found else found


def prefixes(path: str) -> list[str]:
    """Return `a`, `a/b`, `a/b/c`."""
    parts = path.split("/")
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def beside(link: str, target: str, rest: str = "") -> str:
    """Return where a link at the path `link` leads to, and `rest` below it."""
    base = "" if target.startswith("/") else link.rpartition("/")[0]
    return normal(f"{base}/{target}{rest}")
