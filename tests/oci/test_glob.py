from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.oci import glob


@pytest.mark.parametrize(
    ("pattern", "fit", "others"),
    [
        ("*.ko", ["a.ko", ".ko"], ["a/b.ko", "a.ko.xz", "a.KO"]),
        ("a/?.ko", ["a/b.ko"], ["a/bb.ko", "a/.ko", "b/a.ko"]),
        ("[ab].ko", ["a.ko"], ["c.ko", "ab.ko"]),
        ("[!ab].ko", ["c.ko"], ["a.ko"]),
        ("**/*.ko", ["a.ko", "a/b.ko", "a/b/c.ko"], ["a", "a.ko/b"]),
        ("a/**/b", ["a/b", "a/c/b", "a/b/b", "a/c/d/b"], ["b", "a", "a/b/c", "c/a/b"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a", ""]),
        ("**", ["a", "a/b"], [""]),
        ("**/**/a", ["a", "b/a", "b/c/a"], ["b"]),
        ("a**b", ["ab", "acb"], ["a/b"]),
        ("[", ["["], ["a"]),
    ],
)
def test_a_pattern_fits_whole_paths_part_by_part(pattern, fit, others):
    parts = pattern.split("/")
    assert [each for each in (*fit, *others) if glob.fits(each, parts)] == fit


@pytest.mark.parametrize(
    ("pattern", "holds", "others"),
    [
        ("*.ko", [""], ["a", "a.ko"]),
        ("a/*.ko", ["", "a"], ["b", "a/b"]),
        ("**/*.ko", ["", "a", "a/b", "a.ko"], []),
        ("a/**", ["", "a", "a/b"], ["b"]),
        ("a/**/b/c", ["", "a", "a/b", "a/b/c", "a/x"], ["b"]),
    ],
)
def test_which_directories_may_hold_something_is_known(pattern, holds, others):
    parts = pattern.split("/")
    assert [each for each in (*holds, *others) if glob.may_hold(each, parts)] == holds


def test_the_directories_that_are_named_are_told_from_what_is_a_pattern():
    assert glob.split("opt/lib/*/x/*.ko") == ("opt/lib", ("*", "x", "*.ko"))
    assert glob.split("**/*.ko") == ("", ("**", "*.ko"))
    assert glob.split("opt/x.ko") == ("opt/x.ko", ())


@pytest.mark.parametrize("name", ["6.1.0+deb", "a[1]*", "?", "plain", "[!a]"])
def test_what_is_escaped_fits_itself_alone(name):
    escaped = glob.escape(name)
    assert glob.fits(name, [escaped])
    assert not glob.fits(f"{name}x", [escaped])
    assert glob.is_glob(escaped) is (escaped != name)


PATHS = ["/".join(parts) for n in (1, 2, 3) for parts in itertools.product("ab", repeat=n)]


@given(st.lists(st.sampled_from(["a", "b", "*", "?", "**"]), min_size=1, max_size=5))
def test_it_fits_what_a_regular_expression_of_it_fits(pattern):
    one = {"*": "[^/]+", "?": "[^/]"}
    # Each part with the slash before it, so that ** may be none.
    regex = re.compile("".join("(/[^/]+)*" if part == "**" else f"/{one.get(part, part)}" for part in pattern))
    for path in PATHS:
        assert glob.fits(path, pattern) == bool(regex.fullmatch(f"/{path}"))
        if glob.fits(path, pattern):
            above = path.split("/")[:-1]
            assert all(glob.may_hold("/".join(above[:n]), pattern) for n in range(len(above) + 1))


def test_no_pattern_takes_long():
    assert not glob.fits("a" * 4000, ["*a" * 200 + "b"])
    assert not glob.fits("/".join("a" * 2000), ["**", "a"] * 50 + ["b"])
