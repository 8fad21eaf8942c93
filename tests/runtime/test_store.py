from __future__ import annotations

import threading

import pytest

from kmm.runtime.store import Item, Store


def item(version, value="v", *, uid="u", name="a", namespace="n"):
    return Item(namespace, name, uid, version, value)


@pytest.fixture
def store():
    made = Store(threading.RLock(), value=lambda each: each.value)
    made.told = []
    made.heard.append(lambda before, after: made.told.append((before and before.version, after and after.version)))
    return made


def test_what_changes_is_told_once(store):
    store.put(item(1))
    store.put(item(1))
    store.put(item(2, "w"))
    store.drop("n", "a", "u")
    store.drop("n", "a", "u")
    assert store.told == [(None, 1), (1, 2), (2, None)]


def test_what_changes_nothing_that_is_used_is_not_told(store):
    store.put(item(1))
    store.put(item(2))
    assert store.told == [(None, 1)]
    assert store.get("n", "a").version == 2


def test_an_older_word_is_ignored(store):
    store.put(item(5, "our own write"))
    store.put(item(3, "a late event"))
    assert store.get("n", "a").value == "our own write"


def test_what_was_deleted_does_not_come_back(store):
    store.put(item(1))
    store.drop("n", "a", "u")
    store.put(item(2))
    assert store.get("n", "a") is None
    store.put(item(3, uid="another"))
    assert store.get("n", "a").uid == "another"


def test_an_older_object_of_the_same_name_does_not_replace_a_newer_one(store):
    store.put(item(9, uid="new"))
    store.put(item(4, uid="old"))
    assert store.get("n", "a").uid == "new"
    store.drop("n", "a", "old")
    assert store.get("n", "a").uid == "new"


def test_a_whole_list_takes_away_what_it_lacks_but_not_what_is_newer(store):
    store.put(item(1, uid="gone", name="gone"))
    store.put(item(2, uid="there", name="there"))
    store.put(item(9, uid="ours", name="ours"))  # made while the list was read
    store.keep_only({"there"}, 5)
    assert {each.name for each in store.items()} == {"there", "ours"}


def test_indexes_follow(store):
    store.put(item(1, "x"))
    store.put(item(1, "x", uid="u2", name="b"))
    assert {each.name for each in store.by("value", "x")} == {"a", "b"}
    store.put(item(2, "y"))
    assert {each.name for each in store.by("value", "x")} == {"b"}
    assert store.values("value") == {"x", "y"}
    store.drop("n", "b", "u2")
    assert store.values("value") == {"y"}
    assert store.by_uid("u2") is None
    assert store.by_uid("u").name == "a"
