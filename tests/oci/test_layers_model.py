"""Layers made by changing a file system, as builders make them: what is found is what that file system has."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from oci.test_layers import DIRECTORY, HARD, LINK, look, tar

PARTS = ("a", "b", "c")
PATHS = ["/".join(parts) for n in (1, 2, 3) for parts in itertools.product(PARTS, repeat=n)]
TARGETS = ["a", "b/c", "/a/b", "../b", "../../c", "/", "c/../a", "."]
CHANGES = st.tuples(
    st.sampled_from(["file", "link", "hard", "directory", "remove", "empty"]),
    st.sampled_from(PATHS),
    st.sampled_from(TARGETS),
    st.integers(0, 11),
)


class Files:
    """A file system: from each path to a directory (None), a link (its target) or a file (its contents)."""

    def __init__(self):
        self.at = {"": None}

    def below(self, path):
        return [each for each in self.at if each.startswith(f"{path}/" if path else "")]

    def change(self, change, number):
        """Make a change, and return the entries of a layer that say so; none where it cannot be made."""
        kind, path, target, pick = change
        other = ""
        there = sorted(each for each in self.at if each)
        if kind in ("remove", "empty", "hard"):
            of = {"remove": object, "empty": type(None), "hard": bytes}[kind]
            fit = [each for each in there if isinstance(self.at[each], of)]
            if not fit:
                return []
            other = fit[pick % len(fit)]
            path = path if kind == "hard" else other
        # Builders write the directories above what they write.
        parent, _, base = path.rpartition("/")
        above = ["/".join(parent.split("/")[: n + 1]) for n in range(parent.count("/") + bool(parent))]
        if any(self.at.get(each) is not None for each in above):
            return []
        self.at |= dict.fromkeys(above)
        above = [(each, DIRECTORY) for each in above]
        if kind == "empty":
            for each in self.below(path):
                del self.at[each]
            return [*above, (path, DIRECTORY), (f"{path}/.wh..wh..opq", b"")]
        if kind == "remove":
            self.drop(path)
            return [*above, (f"{parent}/.wh.{base}".lstrip("/"), b"")]
        if kind == "hard" and other == path:
            return []
        content = b"%d" % number
        made = {"file": content, "link": target, "hard": self.at.get(other), "directory": None}[kind]
        if not (kind == "directory" and self.at.get(path, "") is None):
            self.drop(path)
            self.at[path] = made
        entry = {"file": (path, content), "link": (path, LINK, target), "hard": (path, HARD, other)}
        return [*above, entry.get(kind, (path, DIRECTORY))]

    def drop(self, path):
        for each in [*self.below(path), path]:
            self.at.pop(each, None)

    def read(self, path, links=0):
        """Return what is in the file at `path`, through links whose `..` is taken by its letters; or None."""
        prefix = ""
        parts = path.split("/")
        for number, part in enumerate(parts):
            prefix = f"{prefix}/{part}".lstrip("/")
            found = self.at.get(prefix, b"")
            last = number == len(parts) - 1
            if isinstance(found, str):
                base = "" if found.startswith("/") else prefix.rpartition("/")[0]
                whole = normal("/".join([base, found, *parts[number + 1 :]]))
                return self.read(whole, links + 1) if links < 40 and whole else None
            if prefix not in self.at or (found is not None and not last):
                return None
            if last:
                return found
        return None


def normal(path):
    parts = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


@settings(max_examples=250)
@given(st.lists(CHANGES, max_size=14))
def test_what_is_found_is_what_the_file_system_has(changes):
    # A layer for each change: what builders put into one layer never says two things of one path.
    files, made = Files(), []
    for number, change in enumerate(changes):
        entries = files.change(change, number)
        if entries:
            made.append(tar(*entries))
    expected = {f"/{path}": content for path in PATHS if (content := files.read(path)) is not None}
    assert look([f"/{path}" for path in PATHS], *made) == expected
