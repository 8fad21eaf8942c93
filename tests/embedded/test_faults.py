"""What goes wrong on request, and what then is true."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
import urllib3
from apiserver.client import Api, eventually
from apiserver.samples import core

from kmm.embedded.cluster import Cluster
from kmm.embedded.fault import Fault, Kind
from kmm.embedded.program import Exit

MAPS = core("default", "configmaps")


@pytest.mark.parametrize(
    ("code", "reason"), [(409, "Conflict"), (410, "Expired"), (429, "TooManyRequests"), (500, "InternalError")]
)
def test_a_refused_request_does_nothing(start, code, reason):
    cluster, api = start()
    cluster.faults.add(Fault(kind=Kind.REFUSE, verbs=("create",), resource="configmaps", code=code))
    answer = api.post(MAPS, {"metadata": {"name": "a"}})
    assert (answer.code, answer.body["reason"]) == (code, reason)
    assert api.get(f"{MAPS}/a").code == 404
    assert api.post(MAPS, {"metadata": {"name": "a"}}).code == 201, "once is once"


def test_too_many_requests_say_when_to_come_again(start):
    cluster, api = start()
    cluster.faults.add(Fault(kind=Kind.REFUSE, code=429, retry_after_s=7))
    http = urllib3.PoolManager(ca_certs=str(cluster.ca_file))
    headers = {"Authorization": f"Bearer {cluster.admin_token}"}
    answer = http.request("GET", cluster.url + MAPS, headers=headers, retries=False)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert json.loads(answer.data)["details"] == {"retryAfterSeconds": 7}
    assert api.get(MAPS).code == 200


def test_a_fault_strikes_whom_and_when_it_is_to(start):
    cluster, api = start()
    other = Api(cluster.url, cluster.ca_file, cluster.token("operator"))
    cluster.faults.add(Fault(kind=Kind.REFUSE, user="operator", name="a", skip=1, times=2, code=500))
    assert [other.get(f"{MAPS}/a").code for _ in range(4)] == [404, 500, 500, 404]
    assert other.get(f"{MAPS}/b").code == 404
    assert api.get(f"{MAPS}/a").code == 404
    always = cluster.faults.add(Fault(kind=Kind.REFUSE, times=None))
    assert {api.get(MAPS).code for _ in range(5)} == {500}
    assert always.struck == 5
    cluster.faults.clear()
    assert api.get(MAPS).code == 200


def test_a_lost_answer_leaves_what_was_done(start):
    cluster, api = start()
    cluster.faults.add(Fault(kind=Kind.LOSE, verbs=("create",)))
    with pytest.raises(urllib3.exceptions.ProtocolError):
        api.post(MAPS, {"metadata": {"name": "a"}})
    assert api.get(f"{MAPS}/a").code == 200


def test_a_black_hole_answers_nothing_and_does_nothing(start):
    cluster, api = start()
    cluster.faults.add(Fault(kind=Kind.HANG, verbs=("create",)))
    http = urllib3.PoolManager(ca_certs=str(cluster.ca_file))
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        http.request(
            "POST",
            cluster.url + MAPS,
            body=b'{"metadata":{"name":"a"}}',
            headers={"Authorization": f"Bearer {cluster.admin_token}", "Content-Type": "application/json"},
            timeout=0.5,
            retries=False,
        )
    assert api.get(f"{MAPS}/a").code == 404


def test_a_slow_request_is_done_later(start):
    cluster, api = start()
    cluster.faults.add(Fault(kind=Kind.DELAY, verbs=("create",), delay_s=0.4))
    began = time.monotonic()
    assert api.post(MAPS, {"metadata": {"name": "a"}}).code == 201
    assert time.monotonic() - began >= 0.4


def test_a_watch_can_end_in_the_middle_of_a_line(start):
    cluster, api = start()
    start_version = api.get(MAPS).version
    cluster.faults.add(Fault(kind=Kind.CUT, resource="configmaps"))
    api.post(MAPS, {"metadata": {"name": "a"}})
    answer = urllib3.PoolManager(ca_certs=str(cluster.ca_file)).request(
        "GET",
        f"{cluster.url}{MAPS}?watch=true&resourceVersion={start_version}",
        headers={"Authorization": f"Bearer {cluster.admin_token}"},
        preload_content=False,
        retries=False,
    )
    got = b""
    chunks = answer.stream(1024)
    with pytest.raises(urllib3.exceptions.ProtocolError):  # noqa: PT012 -- it is the loop that ends so
        for chunk in chunks:
            got += chunk
    assert got.startswith(b'{"type":"ADDED"')
    assert not got.endswith(b"\n")
    with api.watch(MAPS, resourceVersion=start_version) as events:
        assert next(events)["object"]["metadata"]["name"] == "a", "and it can be resumed"


def test_a_watch_can_lag_behind_what_is_read(start):
    cluster, api = start()
    cluster.faults.add(Fault(kind=Kind.LAG, resource="configmaps", delay_s=0.5))
    with api.watch(MAPS, resourceVersion=api.get(MAPS).version) as events:
        began = time.monotonic()
        api.post(MAPS, {"metadata": {"name": "a"}})
        assert api.get(f"{MAPS}/a").code == 200
        next(events)
        assert time.monotonic() - began >= 0.2


def test_a_restart_keeps_what_is_stored_and_ends_what_is_open(start):
    cluster, api = start()
    before = api.post(MAPS, {"metadata": {"name": "a"}})
    ended = threading.Event()

    def watch():
        try:
            with api.watch(MAPS, resourceVersion=before.version) as events:
                list(events)
        except urllib3.exceptions.HTTPError:
            pass
        ended.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    eventually(lambda: any(each.verb == "watch" for each in cluster.log))
    url = cluster.url
    cluster.restart()
    assert cluster.url == url
    assert ended.wait(30)
    watcher.join()
    again = eventually(lambda: Api(url, cluster.ca_file, cluster.admin_token).get(f"{MAPS}/a"))
    assert again.version == before.version
    with api.watch(MAPS, resourceVersion=before.version) as events:
        api.post(MAPS, {"metadata": {"name": "b"}})
        assert next(events)["object"]["metadata"]["name"] == "b"


def test_every_request_is_on_record(start):
    cluster, _ = start()
    operator = Api(cluster.url, cluster.ca_file, cluster.token("operator", "system:serviceaccounts"))
    operator.post(MAPS, {"metadata": {"name": "a"}})
    operator.get(f"{MAPS}/a")
    operator.get(MAPS)
    operator.patch(f"{MAPS}/a", {})
    operator.put(f"{MAPS}/b", {"metadata": {"name": "b"}})
    operator.delete(f"{MAPS}/a")
    operator.delete(MAPS, labelSelector="a")
    operator.get("/apis")
    said = [(each.verb, each.resource, each.name, each.code) for each in cluster.log if each.user == "operator"]
    assert said == [
        ("create", "configmaps", "", 201),
        ("get", "configmaps", "a", 200),
        ("list", "configmaps", "", 200),
        ("patch", "configmaps", "a", 200),
        ("update", "configmaps", "b", 404),
        ("delete", "configmaps", "a", 200),
        ("deletecollection", "configmaps", "", 200),
        ("get", "/apis", "", 200),
    ]


def test_a_token_can_come_while_it_runs(start):
    cluster, _ = start()
    assert Api(cluster.url, cluster.ca_file, cluster.token("late")).get(MAPS).code == 200


def test_it_speaks_plain_http_too(start):
    cluster, api = start(tls=False)
    assert cluster.url.startswith("http://")
    assert api.get(MAPS).code == 200


def test_old_history_is_forgotten(start):
    _, api = start(history=5)
    version = api.get(MAPS).version
    for number in range(7):
        api.post(MAPS, {"metadata": {"name": f"a{number}"}})
    with api.watch(MAPS, resourceVersion=version, allowWatchBookmarks="true") as events:
        told = list(events)
    assert [(each["type"], each["object"].get("code")) for each in told] == [("ERROR", 410)], (
        "and no bookmark after it"
    )


def test_a_bookmark_is_never_ahead_of_what_was_told(start):
    """A slow reader: while its lines are written, more happens."""
    _, api = start(bookmark_s=0.05)
    version = api.get(MAPS).version
    many = 40
    with api.watch(MAPS, resourceVersion=version, allowWatchBookmarks="true") as events:
        done = threading.Event()

        def write():
            for number in range(many):
                api.post(MAPS, {"metadata": {"name": f"a{number}"}, "data": {"k": "x" * 200_000}})
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert done.wait(60)
        writer.join()
        newest, told = 0, []
        for event in events:
            number = int(event["object"]["metadata"]["resourceVersion"])
            if event["type"] == "BOOKMARK":
                newest = max(newest, number)
            else:
                assert number > newest, "it was bookmarked before it was told"
                told.append(event["object"]["metadata"]["name"])
            if len(told) == many:
                break
    assert told == [f"a{number}" for number in range(many)]


def test_watches_end_with_their_clients(start):
    cluster, api = start()
    begun = len(cluster.call(asyncio.all_tasks))
    for _ in range(20):
        with api.watch(MAPS, resourceVersion=api.get(MAPS).version) as events:
            api.post(MAPS, {"metadata": {"generateName": "a"}})
            next(events)
    eventually(lambda: len(cluster.call(asyncio.all_tasks)) <= begun + 5, "their tasks are gone")


def test_a_refused_watch_is_on_record(start):
    cluster, api = start()
    cluster.faults.add(Fault(kind=Kind.REFUSE, verbs=("watch",), code=429))
    assert api.get(MAPS, watch="true").code == 429
    assert [(each.verb, each.code) for each in cluster.log if each.verb == "watch"] == [("watch", 429)]


def test_the_clusters_own_thread_does_not_wait_for_itself(start):
    raised = []

    async def program(_):
        try:
            cluster.add_node("late", "6")
        except RuntimeError as error:
            raised.append(str(error))
        return Exit()

    cluster, api = start(program=program)
    spec = {"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]}
    api.post(core("default", "pods"), {"metadata": {"name": "p"}, "spec": spec})
    eventually(lambda: raised)
    assert "ask it by HTTP" in raised[0]


def test_a_cluster_that_cannot_start_leaves_nothing(tmp_path):
    before = set(threading.enumerate())
    cluster = Cluster(host="203.0.113.1", folder=tmp_path)
    with pytest.raises(OSError, match=r"203\.0\.113\.1"):
        cluster.__enter__()
    assert set(threading.enumerate()) <= before


def test_bookmarks_come_as_often_as_asked(start):
    cluster, api = start(bookmark_s=0.1)
    with api.watch(MAPS, resourceVersion=api.get(MAPS).version, allowWatchBookmarks="true") as events:
        cluster.add_node("n9", "6")
        wanted = int(api.get("/api/v1/nodes/n9").version)
        found = next(each for each in events if int(each["object"]["metadata"]["resourceVersion"]) >= wanted)
        assert found["type"] == "BOOKMARK"


def test_pages_of_a_forgotten_moment_are_expired(start):
    cluster, api = start()
    for name in "abc":
        api.post(MAPS, {"metadata": {"name": name}})
    token = api.get(MAPS, limit=1).body["metadata"]["continue"]
    api.post(MAPS, {"metadata": {"name": "d"}})
    cluster.compact()
    answer = api.get(MAPS, limit=1, continue_=token)
    assert (answer.code, answer.body["reason"]) == (410, "Expired")
    assert "The provided continue parameter is too old" in answer.message


def test_nothing_is_left_running_when_it_stops(start):
    before = set(threading.enumerate())
    cluster, api = start()
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "c"}]}
    api.post(core("default", "pods"), {"metadata": {"name": "p"}, "spec": spec})
    eventually(lambda: api.get(core("default", "pods") + "/p").body["status"]["phase"] == "Running")
    assert not set(threading.enumerate()) <= before
    cluster.__exit__(None, None, None)
    assert set(threading.enumerate()) <= before
    cluster.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "boom"}, "boom"),
        ({"verbs": "get"}, "verbs has to be a tuple"),
        ({"verbs": ("GET",)}, "verbs has to be a tuple"),
        ({"resource": "Node"}, "resource is a plural in lower case"),
        ({"code": 200}, "code has to be an error's"),
        ({"code": "429"}, "code has to be an error's"),
        ({"kind": Kind.DELAY}, "needs delay_s"),
        ({"times": "3"}, "whole numbers"),
    ],
)
def test_a_fault_that_would_never_strike_is_refused(wrong, said):
    with pytest.raises((ValueError, TypeError), match=said):
        Fault(**{"kind": Kind.REFUSE, **wrong})


def test_it_says_how_it_is_to_be_used(start, tmp_path):
    cluster = Cluster(folder=str(tmp_path / "x"))
    for use in (lambda: cluster.url, lambda: cluster.add_node("n", "6"), cluster.restart, cluster.kubeconfig):
        with pytest.raises(RuntimeError, match="use it inside `with Cluster"):
            use()
    for wrong in ({"program": "modprobe"}, {"pull": True}):  # before it makes a folder
        with pytest.raises(TypeError, match="has to be a function"):
            Cluster(**wrong)
    running, _ = start()
    with pytest.raises(RuntimeError, match="entered once"):
        running.__enter__()
    with pytest.raises(ValueError, match="no such token"):
        running.kubeconfig("wrong")


def test_a_node_comes_back_with_another_kernel(start):
    cluster, api = start()
    cluster.change_kernel("n1", "6.9.0")
    assert api.get("/api/v1/nodes/n1").body["status"]["nodeInfo"]["kernelVersion"] == "6.9.0"
