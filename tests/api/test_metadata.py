from __future__ import annotations

import pytest

from kmm.api.metadata import is_label_key, is_label_value, is_namespace


@pytest.mark.parametrize(
    ("value", "possible"),
    [
        ("", True),
        ("a", True),
        ("A.b_c-1", True),
        ("-a", False),
        ("a-", False),
        ("a b", False),
        ("x" * 63, True),
        ("x" * 64, False),
        ("a\n", False),
    ],
)
def test_label_values(value, possible):
    assert is_label_value(value) == possible


@pytest.mark.parametrize(
    ("key", "possible"),
    [
        ("a", True),
        ("a.b/c_D", True),
        ("", False),
        ("a/", False),
        ("/a", False),
        ("A/b", False),
        ("a/b/c", False),
        ("x" * 64, False),
        ("a." * 127 + "/b", False),
    ],
)
def test_label_keys(key, possible):
    assert is_label_key(key) == possible


@pytest.mark.parametrize(
    ("name", "possible"), [("a-1", True), ("a.b", False), ("A", False), ("x" * 64, False), ("", False)]
)
def test_namespaces(name, possible):
    assert is_namespace(name) == possible
