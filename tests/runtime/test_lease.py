"""One leader at a time.

The time of a lease goes on only where a test says so: no machine is too slow for it.
"""

from __future__ import annotations

import threading

import pytest
from apiserver.client import Api, eventually

from kmm.embedded.cluster import Cluster
from kmm.embedded.fault import Fault, Kind
from kmm.runtime import lease
from kmm.runtime.lease import Elector, NotLeader, Terms
from kmm.runtime.transport import WRITE_TIMEOUT_S, NotFound, connect

TERMS = Terms(duration_s=15, renew_s=10, retry_s=0.02)
PATH = "/apis/coordination.k8s.io/v1/namespaces/default/leases/kmm"


class Time:
    """The time that leases go by."""

    def __init__(self, cluster):
        self.now_s = 1000.0
        self._cluster = cluster

    def asked(self, name):
        return sum((each.user, each.resource) == (name, "leases") for each in self._cluster.log)

    def goes_on(self, seconds, *names):
        """Let it go on, each second only when these have looked at the lease, or tried to renew it."""
        for _ in range(seconds):
            self.now_s += 1
            before = {name: self.asked(name) for name in names}
            # What was on its way began before it.
            eventually(lambda before=before: all(self.asked(name) >= before[name] + 2 for name in names))


@pytest.fixture
def cluster(tmp_path):
    with Cluster(folder=tmp_path) as made:
        yield made


@pytest.fixture
def time(cluster, monkeypatch):
    made = Time(cluster)
    monkeypatch.setattr(lease, "boot_time_s", lambda: made.now_s)
    return made


@pytest.fixture
def elector(cluster, time):
    made = []

    def make(name, terms=TERMS):
        events = {"won": threading.Event(), "lost": threading.Event()}
        one = Elector(
            connect(cluster.kubeconfig(cluster.token(name))),
            "default",
            "kmm",
            name,
            events["won"].set,
            events["lost"].set,
            terms,
            {"example.com/told": name},
        )
        one.won, one.lost = events["won"], events["lost"]
        one.start()
        made.append(one)
        return one

    yield make
    for one in made:
        one.release()


def holder(cluster):
    api = Api(cluster.url, cluster.ca_file, cluster.admin_token)
    return api.get(PATH).body["spec"]["holderIdentity"]


def test_the_first_leads_and_the_second_waits(cluster, elector, time):
    first = elector("first")
    assert first.won.wait(60)
    second = elector("second")
    time.goes_on(30, "first", "second")
    assert not second.won.is_set(), "longer than the lease: it was renewed"
    assert first.is_leader()
    first.guard()
    with pytest.raises(NotLeader):
        second.guard()
    assert holder(cluster) == "first"


def test_a_leader_that_stops_gives_it_back(cluster, elector):
    first = elector("first")
    assert first.won.wait(60)
    second = elector("second")
    first.release(60)
    assert second.won.wait(60), "it need not wait for its end"
    assert holder(cluster) == "second"
    assert not first.is_leader()


def test_a_leader_that_cannot_renew_stops_before_another_leads(cluster, elector, time):
    first = elector("first")
    assert first.won.wait(60)
    second = elector("second")
    time.goes_on(1, "first", "second")
    cluster.faults.add(Fault(kind=Kind.REFUSE, user="first", code=500, times=None))
    time.goes_on(9, "first", "second")
    assert first.is_leader()
    time.goes_on(2, "second")
    assert first.lost.wait(60)
    with pytest.raises(NotLeader):
        first.guard()
    time.goes_on(2, "second")
    assert not second.won.is_set()
    time.now_s += 5
    assert second.won.wait(60)


def test_a_black_hole_ends_it_in_time(cluster, elector, time):
    first = elector("first")
    assert first.won.wait(60)
    fault = cluster.faults.add(Fault(kind=Kind.HANG, user="first", times=None))
    eventually(lambda: fault.struck)
    second = elector("second")
    time.goes_on(11, "second")
    assert not first.is_leader()
    assert not second.won.is_set()
    time.now_s += 5
    assert second.won.wait(60)
    assert first.lost.wait(60)


def test_an_answer_that_is_lost_is_no_loss_of_the_lease(cluster, elector, time):
    first = elector("first")
    assert first.won.wait(60)
    fault = cluster.faults.add(Fault(kind=Kind.LOSE, user="first", verbs=("update",), times=1))
    eventually(lambda: fault.struck)
    time.goes_on(30, "first")
    assert first.is_leader()
    assert not first.lost.is_set()


def test_time_that_a_machine_slept_through_counts(elector, time):
    first = elector("first", Terms(duration_s=60, renew_s=40, retry_s=30))
    assert first.won.wait(60)
    time.now_s += 41
    with pytest.raises(NotLeader):
        first.guard()


def test_a_renewal_that_is_answered_too_late_does_not_count(cluster, elector, time):
    first = elector("first")
    assert first.won.wait(60)
    fault = cluster.faults.add(Fault(kind=Kind.DELAY, user="first", verbs=("update",), delay_s=1, times=None))
    eventually(lambda: fault.struck)
    time.now_s += 11
    assert first.lost.wait(60), "and nobody goes on as if it had led all the time"
    assert not first.is_leader()


@pytest.mark.parametrize("code", [500, 520])
def test_no_answer_ends_the_seeking(cluster, elector, code):
    cluster.faults.add(Fault(kind=Kind.REFUSE, user="first", code=code, times=3))
    assert elector("first").won.wait(60)


def test_a_lease_that_is_deleted_is_made_again(cluster, elector, time):
    first = elector("first")
    assert first.won.wait(60)
    Api(cluster.url, cluster.ca_file, cluster.admin_token).delete(PATH)
    time.goes_on(30, "first")
    assert first.is_leader()
    assert not first.lost.is_set()
    assert holder(cluster) == "first"


def test_a_lease_tells_of_its_holder_and_keeps_what_others_wrote(cluster, elector):
    api = Api(cluster.url, cluster.ca_file, cluster.admin_token)

    def told():
        return api.get(PATH).body["metadata"].get("annotations")

    first = elector("first")
    assert first.won.wait(60)
    assert told() == {"example.com/told": "first"}
    api.patch(PATH, {"metadata": {"annotations": {"others": "theirs", "example.com/told": "a lie"}}})
    eventually(lambda: told() == {"others": "theirs", "example.com/told": "first"})
    first.release(60)
    assert elector("second").won.wait(60)
    eventually(lambda: told() == {"others": "theirs", "example.com/told": "second"})
    api.delete(PATH)
    eventually(lambda: told() == {"example.com/told": "second"}, "made again")


def test_the_terms_leave_no_room_for_two():
    terms = Terms()
    assert WRITE_TIMEOUT_S + terms.renew_s < terms.duration_s


def test_a_lease_that_ends_while_a_write_is_on_its_way_lets_it_not_arrive(cluster):
    """What froze between the look at the lease and the sending of the body, and thaws."""
    transport = connect(cluster.kubeconfig(cluster.token("operator")))
    looks = []

    def guard():
        looks.append(None)
        if len(looks) > 1:
            raise NotLeader("it is over")

    transport.guard = guard
    body = {"metadata": {"name": "late"}}
    with pytest.raises(NotLeader):
        transport.ask("POST", "/api/v1/namespaces", body)
    transport.guard = lambda: None
    with pytest.raises(NotFound):
        transport.ask("GET", "/api/v1/namespaces/late")
    assert transport.ask("POST", "/api/v1/namespaces", body).status == 201
