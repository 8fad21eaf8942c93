"""One leader at a time."""

from __future__ import annotations

import threading
import time

import pytest
from apiserver.client import Api, eventually

from kmm.embedded.cluster import Cluster
from kmm.embedded.fault import Fault, Kind
from kmm.runtime import lease
from kmm.runtime.lease import Elector, NotLeader, Terms
from kmm.runtime.transport import NotFound, connect

QUICK = Terms(duration_s=2, renew_s=1, retry_s=0.1)
PATH = "/apis/coordination.k8s.io/v1/namespaces/default/leases/kmm"


@pytest.fixture
def cluster(tmp_path):
    with Cluster(folder=tmp_path) as made:
        yield made


@pytest.fixture
def elector(cluster):
    made = []

    def make(name, terms=QUICK):
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


def test_the_first_leads_and_the_second_waits(cluster, elector):
    first = elector("first")
    assert first.won.wait(10)
    second = elector("second")
    time.sleep(3)
    assert not second.won.is_set(), "longer than the lease: it was renewed"
    assert first.is_leader()
    first.guard()
    with pytest.raises(NotLeader):
        second.guard()
    assert holder(cluster) == "first"


def test_a_leader_that_stops_gives_it_back(cluster, elector):
    first = elector("first", Terms(duration_s=60, renew_s=40, retry_s=0.1))
    assert first.won.wait(10)
    second = elector("second", Terms(duration_s=60, renew_s=40, retry_s=0.1))
    first.release()
    assert second.won.wait(10), "it need not wait for its end"
    assert holder(cluster) == "second"
    assert not first.is_leader()


def test_a_leader_that_cannot_renew_stops_before_another_leads(cluster, elector):
    first = elector("first")
    assert first.won.wait(10)
    cluster.faults.add(Fault(kind=Kind.REFUSE, user="first", code=500, times=None))
    second = elector("second")
    assert first.lost.wait(10)
    assert not second.won.is_set() or not first.is_leader()
    assert second.won.wait(10)
    with pytest.raises(NotLeader):
        first.guard()


def test_a_black_hole_ends_it_in_time(cluster, elector):
    first = elector("first")
    assert first.won.wait(10)
    cluster.faults.add(Fault(kind=Kind.HANG, user="first", times=None))
    eventually(lambda: not first.is_leader(), within_s=10)
    assert elector("second").won.wait(15)


def test_an_answer_that_is_lost_is_no_loss_of_the_lease(cluster, elector):
    first = elector("first")
    assert first.won.wait(10)
    cluster.faults.add(Fault(kind=Kind.LOSE, user="first", verbs=("update",), times=1))
    time.sleep(1.5)
    assert first.is_leader()
    assert not first.lost.is_set()


def test_time_that_a_machine_slept_through_counts(elector, monkeypatch):
    first = elector("first", Terms(duration_s=60, renew_s=40, retry_s=30))
    assert first.won.wait(10)
    real = lease.boot_time_s
    monkeypatch.setattr(lease, "boot_time_s", lambda: real() + 41)
    with pytest.raises(NotLeader):
        first.guard()


def test_a_renewal_that_is_answered_too_late_does_not_count(cluster, elector):
    first = elector("first")
    assert first.won.wait(10)
    cluster.faults.add(Fault(kind=Kind.DELAY, user="first", verbs=("update",), delay_s=1.3, times=None))
    assert first.lost.wait(10), "and nobody goes on as if it had led all the time"
    assert not first.is_leader()


@pytest.mark.parametrize("code", [500, 520])
def test_no_answer_ends_the_seeking(cluster, elector, code):
    cluster.faults.add(Fault(kind=Kind.REFUSE, user="first", code=code, times=3))
    assert elector("first").won.wait(10)


def test_a_lease_that_is_deleted_is_made_again(cluster, elector):
    first = elector("first")
    assert first.won.wait(10)
    Api(cluster.url, cluster.ca_file, cluster.admin_token).delete(PATH)
    time.sleep(1.5)
    assert first.is_leader()
    assert not first.lost.is_set()
    assert holder(cluster) == "first"


def test_a_lease_tells_of_its_holder_and_keeps_what_others_wrote(cluster, elector):
    api = Api(cluster.url, cluster.ca_file, cluster.admin_token)

    def told():
        return api.get(PATH).body["metadata"].get("annotations")

    first = elector("first")
    assert first.won.wait(10)
    assert told() == {"example.com/told": "first"}
    api.patch(PATH, {"metadata": {"annotations": {"others": "theirs", "example.com/told": "a lie"}}})
    eventually(lambda: told() == {"others": "theirs", "example.com/told": "first"})
    first.release()
    assert elector("second").won.wait(10)
    eventually(lambda: told() == {"others": "theirs", "example.com/told": "second"})
    api.delete(PATH)
    eventually(lambda: told() == {"example.com/told": "second"}, "made again")


def test_the_terms_leave_no_room_for_two():
    terms = Terms()
    from kmm.runtime.transport import WRITE_TIMEOUT_S  # noqa: PLC0415

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
