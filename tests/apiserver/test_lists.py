"""Lists: selectors, pages, forms."""

from __future__ import annotations

import pytest
from apiserver.client import PARTIAL, PARTIAL_LIST, TABLE
from apiserver.samples import a_module, core


def names(answer):
    return [each["metadata"]["name"] for each in answer.body["items"]]


@pytest.fixture
def secrets(api, namespace):
    path = core(namespace, "secrets")
    for name, labels, kind in (
        ("a", {"tier": "front", "x/y": "1"}, "example.com/one"),
        ("b", {"tier": "back"}, "example.com/one"),
        ("c", {"tier": ""}, "example.com/two"),
        ("d", {}, "example.com/two"),
    ):
        assert api.post(path, {"metadata": {"name": name, "labels": labels}, "type": kind}).code == 201
    return path


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("tier=front", "a"),
        ("tier==back", "b"),
        ("tier!=front", "bcd"),
        ("tier in (front, back)", "ab"),
        ("tier notin (front)", "bcd"),
        ("tier", "abc"),
        ("!tier", "d"),
        ("tier=", "c"),
        ("tier in (front,back),x/y", "a"),
        ("tier,!x/y", "bc"),
        ("x/y=1", "a"),
        ("", "abcd"),
    ],
)
def test_objects_are_selected_by_labels(api, secrets, selector, found):
    assert names(api.get(secrets, labelSelector=selector)) == list(found)


@pytest.mark.parametrize("selector", ["a b", "a in b", "a=(b)", "=b", "a in (b", "a,,b"])
def test_a_label_selector_that_is_none_is_a_bad_request(api, secrets, selector):
    assert api.get(secrets, labelSelector=selector).code == 400


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("metadata.name=a", "a"),
        ("metadata.name!=a", "bcd"),
        ("type=example.com/two", "cd"),
        ("type=example.com/one,metadata.name==b", "b"),
        ("metadata.name=nothing", ""),
    ],
)
def test_objects_are_selected_by_fields(api, secrets, selector, found):
    assert names(api.get(secrets, fieldSelector=selector)) == list(found)


def test_a_field_that_cannot_be_selected_is_said(api, secrets, modules):
    answer = api.get(secrets, fieldSelector="data.k=v")
    assert (answer.code, answer.body["reason"]) == (400, "BadRequest")
    assert "field label not supported: data.k" in answer.message
    api.post(modules, a_module())
    assert names(api.get(modules, fieldSelector="metadata.name=m")) == ["m"]
    assert api.get(modules, fieldSelector="spec.selector=x").code == 400


def test_pages_are_of_one_moment(api, secrets):
    first = api.get(secrets, limit=2)
    assert names(first) == ["a", "b"]
    assert first.body["metadata"]["remainingItemCount"] == 2
    api.post(secrets, {"metadata": {"name": "bb"}})
    api.delete(f"{secrets}/c")
    second = api.get(secrets, limit=2, continue_=first.body["metadata"]["continue"])
    assert names(second) == ["c", "d"]
    assert "continue" not in second.body["metadata"]
    assert second.version == first.version
    assert names(api.get(secrets)) == ["a", "b", "bb", "d"]


def test_a_page_can_be_asked_for_again(api, secrets):
    token = api.get(secrets, limit=3).body["metadata"]["continue"]
    assert [names(api.get(secrets, limit=3, continue_=token)) for _ in range(2)] == [["d"], ["d"]]


def test_pages_can_be_selected(api, secrets):
    first = api.get(secrets, limit=1, labelSelector="tier")
    found = names(first)
    token = first.body["metadata"]["continue"]
    assert "remainingItemCount" not in first.body["metadata"], "it is not known beforehand"
    while token:
        page = api.get(secrets, limit=1, labelSelector="tier", continue_=token)
        found += names(page)
        token = page.body["metadata"].get("continue")
    assert found == ["a", "b", "c"]


def test_a_token_that_is_none_is_refused(api, secrets):
    assert api.get(secrets, limit=1, continue_="nonsense").code in (400, 410)


def test_a_list_tells_its_version_and_a_watch_goes_on_from_it(api, secrets):
    listed = api.get(secrets)
    api.post(secrets, {"metadata": {"name": "e"}})
    with api.watch(secrets, resourceVersion=listed.version) as events:
        event = next(events)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "e")


def test_a_list_from_the_future_is_refused(api, secrets):
    answer = api.get(secrets, resourceVersion=str(int(api.get(secrets).version) + 1_000_000))
    assert (answer.code, answer.body["reason"]) == (504, "Timeout")
    assert "Too large resource version" in answer.message


def test_all_namespaces_are_listed_in_order(api, secrets, namespace):
    found = [
        (each["metadata"]["namespace"], each["metadata"]["name"]) for each in api.get("/api/v1/secrets").body["items"]
    ]
    assert found == sorted(found)
    assert {(namespace, name) for name in "abcd"} <= set(found)


def test_items_say_their_kind_only_where_they_are_custom(api, secrets, modules):
    listed = api.get(secrets).body
    assert (listed["kind"], listed["apiVersion"]) == ("SecretList", "v1")
    assert "kind" not in listed["items"][0]
    api.post(modules, a_module())
    listed = api.get(modules).body
    assert (listed["kind"], listed["items"][0]["kind"]) == ("ModuleList", "Module")
    assert listed["items"][0]["apiVersion"] == listed["apiVersion"] == "kmm.sigs.x-k8s.io/v1beta1"


def test_metadata_can_be_had_alone(api, secrets):
    one = api.get(f"{secrets}/a", accept=PARTIAL).body
    assert (one["kind"], one["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    assert one["metadata"]["name"] == "a"
    assert "type" not in one
    every = api.get(secrets, accept=PARTIAL_LIST).body
    assert every["kind"] == "PartialObjectMetadataList"
    assert [each["metadata"]["name"] for each in every["items"]] == list("abcd")
    assert "type" not in every["items"][0]
    none = api.get(secrets, accept=PARTIAL_LIST, labelSelector="nothing=here").body
    assert none["items"] is None, "and not an empty list"
    assert api.get(secrets, labelSelector="nothing=here").body["items"] == []


def test_the_first_form_that_is_known_is_taken(api, secrets):
    kubectl = f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
    assert api.get(secrets, accept=kubectl).body["kind"] == "Table"
    assert api.get(secrets, accept="application/vnd.unknown,application/json").body["kind"] == "SecretList"
    assert api.get(secrets, accept="*/*").body["kind"] == "SecretList"
