from __future__ import annotations

import pytest

from kmm.contract import Unavailable
from kmm.embedded.registry_fault import RegistryFault, Trouble
from kmm.oci.blob import RESUMES_MOST
from kmm.oci.manifest import Descriptor, digest_of

CONTENT = bytes(range(256)) * 4000  # 1 MB
BLOB = Descriptor(media_type="", digest=digest_of(CONTENT), size=len(CONTENT))


@pytest.fixture
def uploaded(served):
    served.client().upload("a", CONTENT)
    return served


def read(served, **options):
    with served.client(**options).blob("a", BLOB) as blob:
        return b"".join(blob)


def fault(served, kind, **filters):
    served.registry.faults.add(RegistryFault(kind=kind, on=("blob",), **filters))


def test_a_blob_is_read_as_it_comes_and_its_connection_is_used_again(uploaded, session):
    assert read(uploaded) == CONTENT
    assert read(uploaded) == CONTENT
    (pool,) = session.connections._pools.values()
    assert pool.connection_from_url(uploaded.registry.url).num_connections == 1


@pytest.mark.parametrize("times", [1, RESUMES_MOST])
def test_a_blob_that_breaks_off_is_taken_up_where_it_ended(uploaded, times):
    fault(uploaded, Trouble.CUT, after_bytes=300_000, times=times)
    assert read(uploaded) == CONTENT
    assert [entry.kind for entry in uploaded.registry.log].count("blob") == times + 1


def test_a_blob_that_breaks_off_again_and_again_is_given_up(uploaded):
    fault(uploaded, Trouble.CUT, after_bytes=1000, times=None)
    with pytest.raises(Unavailable, match="broke off"):
        read(uploaded)


@pytest.mark.parametrize(
    ("kind", "filters", "said"),
    [
        (Trouble.CORRUPT, {}, "sent a blob that does not have the digest it should"),
        (Trouble.FLOOD, {}, "larger than its manifest says"),
        (Trouble.TRUNCATE, {"after_bytes": 1000}, "broke off a blob"),
        (Trouble.PAGE, {"code": 404}, "lacks a blob"),
        (Trouble.REFUSE, {"code": 500}, "answered 500"),
    ],
)
def test_a_blob_that_is_not_what_its_descriptor_says_is_unavailable(uploaded, kind, filters, said):
    fault(uploaded, kind, times=None, **filters)
    with pytest.raises(Unavailable, match=said):
        read(uploaded)


def test_the_last_piece_of_a_wrong_blob_is_never_given(uploaded):
    smaller = Descriptor(media_type="", digest=BLOB.digest, size=BLOB.size - 1)
    got = bytearray()
    with (
        uploaded.client().blob("a", smaller) as blob,
        pytest.raises(Unavailable, match="larger than its manifest says"),
    ):
        got.extend(piece[0] for piece in blob)
    assert len(got) < 1000


@pytest.mark.parametrize("kind", [Trouble.HANG, Trouble.DRIP])
def test_a_blob_that_takes_too_long_is_given_up(uploaded, kind):
    fault(uploaded, kind, times=None, **({"delay_s": 1} if kind is Trouble.DRIP else {}))
    with pytest.raises(Unavailable, match=r"did not answer in 0\.5 s"):
        read(uploaded, deadline_s=0.5)


def test_a_blob_may_be_closed_before_its_end(uploaded):
    with uploaded.client().blob("a", BLOB) as blob:
        assert blob.read(10) == CONTENT[:10]
    assert blob.read(10) == b""


def test_a_blob_that_is_elsewhere_is_read_there(uploaded):
    fault(uploaded, Trouble.REDIRECT)
    fault(uploaded, Trouble.CUT, after_bytes=1000)
    assert read(uploaded) == CONTENT
