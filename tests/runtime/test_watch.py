"""A store is kept like the cluster, whatever happens on the way."""

from __future__ import annotations

import threading

import pytest
from apiserver.client import Api, eventually
from apiserver.samples import core

from kmm.embedded.cluster import Cluster
from kmm.embedded.fault import Fault, Kind
from kmm.runtime.store import Store
from kmm.runtime.transport import connect
from kmm.runtime.watch import Source, Watch

MAPS = core("default", "configmaps")


@pytest.fixture
def cluster(tmp_path):
    with Cluster(folder=tmp_path, bookmark_s=0.2) as made:
        yield made


@pytest.fixture
def api(cluster):
    return Api(cluster.url, cluster.ca_file, cluster.admin_token)


@pytest.fixture
def follow(cluster):
    watches = []

    def begin(**more):
        store = Store(threading.RLock())
        failures = []
        source = Source(path=MAPS, trim=lambda body: body.get("data"), **more)
        watch = Watch(connect(cluster.kubeconfig()), source, store, lambda *said: failures.append(said))
        watch.start()
        watches.append(watch)
        assert store.synced.wait(90)
        return store, failures

    yield begin
    for watch in watches:
        watch.stop()
    for watch in watches:
        watch.join(60)
        assert not watch._thread.is_alive()


def same(api, store):
    there = {each["metadata"]["name"]: each.get("data") for each in api.get(MAPS).body["items"]}
    return {each.name: each.value for each in store.items()} == there


def test_it_begins_with_all_pages_and_follows(api, follow, monkeypatch):
    monkeypatch.setattr("kmm.runtime.watch.PAGE", 3)
    for number in range(8):
        api.post(MAPS, {"metadata": {"name": f"a{number}"}, "data": {"k": "v"}})
    store, failures = follow()
    assert same(api, store)
    api.patch(f"{MAPS}/a1", {"data": {"k": "w"}})
    api.delete(f"{MAPS}/a2")
    api.post(MAPS, {"metadata": {"name": "late"}})
    eventually(lambda: same(api, store))
    assert not failures


def test_what_comes_while_it_rests_is_read_together(api, follow, monkeypatch):
    """An event is a chunk, and a read gives one: to rest after each of them would never catch up."""
    monkeypatch.setattr("kmm.runtime.watch._COALESCE_S", 1.0)
    store, failures = follow()
    for number in range(100):
        api.post(MAPS, {"metadata": {"name": f"a{number}"}})
    eventually(lambda: same(api, store))
    assert not failures


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=Kind.CUT, resource="configmaps", times=3),
        Fault(kind=Kind.REFUSE, verbs=("watch",), code=500, times=3),
        Fault(kind=Kind.REFUSE, verbs=("watch",), code=429, retry_after_s=1, times=1),
        Fault(kind=Kind.REFUSE, verbs=("watch",), code=410, times=2),
        Fault(kind=Kind.REFUSE, verbs=("list",), code=500, times=2),
        Fault(kind=Kind.LAG, resource="configmaps", delay_s=0.2, times=None),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.code}",
)
def test_whatever_goes_wrong_it_comes_to_be_right(cluster, api, follow, fault):
    cluster.faults.add(fault)
    store, _ = follow()
    for number in range(5):
        api.post(MAPS, {"metadata": {"name": f"a{number}"}, "data": {"k": str(number)}})
    api.delete(f"{MAPS}/a3")
    eventually(lambda: same(api, store))


def test_it_goes_on_after_a_restart_without_listing_again(cluster, api, follow):
    store, _ = follow()
    api.post(MAPS, {"metadata": {"name": "a"}})
    eventually(lambda: same(api, store))
    lists = sum(each.verb == "list" for each in cluster.log)
    cluster.restart()
    again = Api(cluster.url, cluster.ca_file, cluster.admin_token)
    again.post(MAPS, {"metadata": {"name": "b"}})
    eventually(lambda: store.get("default", "b"))
    assert sum(each.verb == "list" for each in cluster.log) == lists


def test_what_is_forgotten_is_listed_again(cluster, api, follow):
    store, failures = follow()
    cluster.faults.add(Fault(kind=Kind.REFUSE, verbs=("watch",), code=500, times=2))
    api.post(MAPS, {"metadata": {"name": "a"}})
    api.post(MAPS, {"metadata": {"name": "b"}})
    cluster.compact()
    cluster.restart()
    again = Api(cluster.url, cluster.ca_file, cluster.admin_token)
    again.delete(f"{MAPS}/a")
    eventually(lambda: same(again, store))
    assert failures


def test_bookmarks_keep_it_from_falling_behind(cluster, api, follow, monkeypatch):
    heard = []
    real = Watch._hear

    def hear(self, line):
        found = real(self, line)
        heard.append(int(found))
        return found

    monkeypatch.setattr(Watch, "_hear", hear)
    store, _ = follow(selector="l=yes")
    for number in range(5):
        api.post(MAPS, {"metadata": {"name": f"other{number}"}})
    newest = int(api.get(MAPS).version)
    eventually(lambda: heard and heard[-1] >= newest, "a bookmark tells of what it does not watch")
    lists = sum(each.verb == "list" for each in cluster.log)
    cluster.compact()
    cluster.restart()
    again = Api(cluster.url, cluster.ca_file, cluster.admin_token)
    again.post(MAPS, {"metadata": {"name": "a", "labels": {"l": "yes"}}})
    eventually(lambda: store.get("default", "a"))
    assert sum(each.verb == "list" for each in cluster.log) == lists, "it could be resumed"


def test_metadata_alone_is_enough(api, follow):
    store, _ = follow(metadata_only=True)
    api.post(MAPS, {"metadata": {"name": "a"}, "data": {"k": "secret"}})
    eventually(lambda: store.get("default", "a"))
    assert store.get("default", "a").value is None
