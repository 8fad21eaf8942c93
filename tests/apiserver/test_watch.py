"""Watches: what they tell, in which order, from when and until when."""

from __future__ import annotations

import time

import pytest
from apiserver.client import PARTIAL, TABLE, eventually
from apiserver.samples import a_module


def told(event):
    return event["type"], event["object"]["metadata"]["name"]


def test_a_life_is_told_in_order(api, maps):
    start = api.get(maps).version
    api.post(maps, {"metadata": {"name": "a"}})
    api.patch(f"{maps}/a", {"data": {"k": "v"}})
    last = api.get(f"{maps}/a").body
    api.delete(f"{maps}/a")
    with api.watch(maps, resourceVersion=start) as events:
        found = [next(events) for _ in range(3)]
    assert [told(each) for each in found] == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in found]
    assert versions == sorted(set(versions))
    assert found[2]["object"]["data"] == {"k": "v"}, "how it was at the end"
    assert versions[2] > int(last["metadata"]["resourceVersion"]), "the version of the deletion"
    assert found[0]["object"]["kind"] == "ConfigMap"


def test_what_happens_later_is_told_too(api, maps):
    with api.watch(maps, resourceVersion=api.get(maps).version) as events:
        for name in ("a", "b"):
            api.post(maps, {"metadata": {"name": name}})
            assert told(next(events)) == ("ADDED", name)


@pytest.mark.parametrize("version", ["", "0"])
def test_without_a_version_it_begins_with_all_there_is(api, maps, version):
    for name in ("a", "b"):
        api.post(maps, {"metadata": {"name": name}})
    eventually(lambda: api.get(f"{maps}/kube-root-ca.crt").code == 200)
    query = {"resourceVersion": version} if version else {}
    with api.watch(maps, **query) as events:
        assert sorted(told(next(events)) for _ in range(3)) == [
            ("ADDED", "a"), ("ADDED", "b"), ("ADDED", "kube-root-ca.crt"),
        ]  # fmt: skip


def test_initial_events_end_with_a_bookmark(api, maps):
    api.post(maps, {"metadata": {"name": "a"}})
    query = {
        "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true",
        "fieldSelector": "metadata.name=a",
    }  # fmt: skip
    with api.watch(maps, **query) as events:
        assert told(next(events)) == ("ADDED", "a")
        mark = next(events)
        assert mark["type"] == "BOOKMARK"
        meta = mark["object"]["metadata"]
        assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(meta["resourceVersion"]) > 0
        api.patch(f"{maps}/a", {"data": {"k": "v"}})
        assert told(next(events)) == ("MODIFIED", "a")


def test_what_comes_to_match_is_added_and_what_ceases_to_is_deleted(api, maps):
    start = api.get(maps).version
    api.post(maps, {"metadata": {"name": "a", "labels": {"l": "no"}}})
    api.patch(f"{maps}/a", {"metadata": {"labels": {"l": "yes"}}, "data": {"k": "1"}})
    api.patch(f"{maps}/a", {"data": {"k": "2"}})
    left = api.patch(f"{maps}/a", {"metadata": {"labels": {"l": "no"}}, "data": {"k": "3"}})
    api.delete(f"{maps}/a")
    api.post(maps, {"metadata": {"name": "b", "labels": {"l": "yes"}}})
    with api.watch(maps, resourceVersion=start, labelSelector="l=yes") as events:
        found = [next(events) for _ in range(4)]
    assert [told(each) for each in found] == [
        ("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b"),
    ]  # fmt: skip
    gone = found[2]["object"]
    assert gone["data"] == {"k": "2"}, "as it was when it last matched"
    assert gone["metadata"]["resourceVersion"] == left.version, "with the version of the change"


def test_one_object_can_be_watched(api, maps):
    start = api.get(maps).version
    api.post(maps, {"metadata": {"name": "a"}})
    api.post(maps, {"metadata": {"name": "b"}})
    with api.watch(maps, resourceVersion=start, fieldSelector="metadata.name=b") as events:
        assert told(next(events)) == ("ADDED", "b")


def test_metadata_alone_can_be_watched(api, maps):
    with api.watch(maps, accept=PARTIAL, resourceVersion=api.get(maps).version) as events:
        api.post(maps, {"metadata": {"name": "a"}, "data": {"k": "v"}})
        event = next(events)
    assert told(event) == ("ADDED", "a")
    assert event["object"]["kind"] == "PartialObjectMetadata"
    assert "data" not in event["object"]


def test_rows_of_a_table_can_be_watched(api, modules):
    with api.watch(modules, accept=TABLE, resourceVersion=api.get(modules).version) as events:
        api.post(modules, a_module())
        event = next(events)
    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "m"


def test_a_watch_ends_when_its_time_is_over_and_says_how_far_it_was(api, maps):
    api.post(maps, {"metadata": {"name": "a"}})
    start = api.get(maps).version
    began = time.monotonic()
    with api.watch(maps, resourceVersion=start, timeoutSeconds=4, allowWatchBookmarks="true") as events:
        found = list(events)
    assert time.monotonic() - began >= 1
    assert {each["type"] for each in found} <= {"BOOKMARK"}
    assert found, "a bookmark before the end"
    assert int(found[-1]["object"]["metadata"]["resourceVersion"]) >= int(start)
    assert found[-1]["object"]["kind"] == "ConfigMap"


def test_a_version_that_is_none_is_refused(api, maps):
    answer = api.get(maps, watch="true", resourceVersion="x")
    assert answer.code == 500
    assert 'resourceVersion: Invalid value: "x"' in answer.message


def test_watches_of_different_namespaces_do_not_mix(api, maps):
    other = api.post("/api/v1/namespaces", {"metadata": {"generateName": "t-"}}).name
    with api.watch(maps, resourceVersion=api.get(maps).version, labelSelector="mine") as events:
        api.post(f"/api/v1/namespaces/{other}/configmaps", {"metadata": {"name": "theirs", "labels": {"mine": ""}}})
        api.post(maps, {"metadata": {"name": "ours", "labels": {"mine": ""}}})
        assert told(next(events)) == ("ADDED", "ours")
    api.delete(f"/api/v1/namespaces/{other}")


def test_a_watch_from_a_forgotten_version_is_told_so(server, api, maps):
    start = api.get(maps).version
    for number in range(3):
        api.post(maps, {"metadata": {"name": f"a{number}"}})
    server.forget()
    eventually(lambda: api.get("/readyz").code == 200)

    def expired():
        with api.watch(maps, resourceVersion=start) as events:
            event = next(events)
        return event if event["type"] == "ERROR" else None

    status = eventually(expired)["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert "too old resource version" in status["message"]
    with api.watch(maps, resourceVersion=api.get(maps).version) as events:
        api.post(maps, {"metadata": {"name": "b"}})
        assert told(next(events)) == ("ADDED", "b")
