from __future__ import annotations

import os

import pytest
from oci.served import USER
from oci.test_upload import CONTENT, fault

from kmm.contract import Unavailable
from kmm.embedded.registry_fault import Trouble
from kmm.oci.manifest import Descriptor, digest_of
from kmm.oci.transfer import Place, transfer

DESCRIPTOR = Descriptor(media_type="", digest=digest_of(CONTENT), size=len(CONTENT))


def place(served, repository):
    return Place(client=served.client(USER), repository=repository)


def read(served, repository, descriptor=DESCRIPTOR):
    with served.client(USER).blob(repository, descriptor) as blob:
        return b"".join(blob)


@pytest.fixture
def other(serve):
    """Another registry."""
    return serve()


@pytest.fixture
def source(served):
    served.client(USER).upload("from", CONTENT)
    return place(served, "from")


def test_in_one_repository_nothing_is_asked(served, source):
    before = len(served.registry.log)
    assert transfer(source, place(served, "from"), DESCRIPTOR) is False
    assert served.requests(before) == []


def test_in_one_registry_it_is_mounted_by_one_request(served, source):
    before = len(served.registry.log)
    assert transfer(source, place(served, "to"), DESCRIPTOR) is False
    assert served.requests(before) == [("POST", "upload", 201)]
    assert read(served, "to") == CONTENT


def test_to_another_registry_it_is_sent_once(served, other, session, source):
    other.session = session
    assert transfer(source, place(other, "to"), DESCRIPTOR) is True
    assert read(other, "to") == CONTENT
    before = len(served.registry.log)
    assert transfer(source, place(other, "to"), DESCRIPTOR) is False
    assert served.requests(before) == []


@pytest.mark.parametrize("size", [0, 1, 70_000])
def test_any_size_is_sent(served, other, source, size):
    content = os.urandom(size)
    descriptor = Descriptor(media_type="", digest=served.client(USER).upload("from", content), size=size)
    assert transfer(source, place(other, "to"), descriptor) is True
    assert read(other, "to", descriptor) == content


def test_what_breaks_off_at_either_end_is_taken_up_again(served, other, source):
    fault(served, Trouble.INTERRUPT, on=("blob",), after_bytes=300_000)
    fault(other, Trouble.INTERRUPT, on=("upload",), after_bytes=500_000)
    assert transfer(source, place(other, "to"), DESCRIPTOR) is True
    assert read(other, "to") == CONTENT


def test_a_blob_that_is_not_what_it_should_be_does_not_arrive(served, other, source):
    lying = Descriptor(media_type="", digest="sha256:" + "0" * 64, size=len(CONTENT))
    with pytest.raises(Unavailable):
        transfer(source, place(other, "to"), lying)
    short = Descriptor(media_type="", digest=DESCRIPTOR.digest, size=len(CONTENT) - 1)
    with pytest.raises(Unavailable, match="larger than its manifest says"):
        transfer(source, place(other, "to"), short)
    assert not other.client(USER).has_blob("to", DESCRIPTOR.digest)
    assert [entry.method for entry in other.registry.log if entry.method == "DELETE"] == ["DELETE"] * 2
