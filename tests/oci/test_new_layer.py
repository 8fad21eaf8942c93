from __future__ import annotations

import gzip
import hashlib
import io
import tarfile

import pytest

from kmm.oci.layers import locate
from kmm.oci.new_layer import NewEntry, write
from kmm.oci.tar import Attributes

FULL = Attributes(
    mode=0o4640,
    uid=3_000_000,
    gid=7,
    user="me",
    group="us",
    mtime="1700000000.25",
    xattrs={"security.selinux": "modules_t:s0\0", "user.x": b"\xff\xfe".decode("utf-8", "surrogateescape")},
)


@pytest.fixture
def made(tmp_path):
    """Write a layer; return what is said of it and its bytes."""

    def make(*entries):
        target = io.BytesIO()
        return write(entries, target), target.getvalue()

    return make


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "a.ko"
    path.write_bytes(b"driver" * 1000)
    return path


def test_what_was_written_is_what_is_read(made, module):
    entries = [
        NewEntry(path="m/n", attributes=Attributes(mode=0o711, mtime="-5")),
        NewEntry(path="m/n/a.ko", attributes=FULL, content=module),
        NewEntry(path="m/a.ko", attributes=FULL, same_as="m/n/a.ko"),
        NewEntry(path="m", attributes=Attributes(mode=0o755)),
        NewEntry(path="m/" + "é" * 200, attributes=Attributes(), content=module),
    ]
    layer, data = made(*entries)
    assert layer.size == len(data)
    assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        # What is above comes first, and a file before what is linked to it.
        assert [(each.name, each.type) for each in archive] == [
            ("m", tarfile.DIRTYPE),
            ("m/n", tarfile.DIRTYPE),
            ("m/n/a.ko", tarfile.REGTYPE),
            ("m/" + "é" * 200, tarfile.REGTYPE),
            ("m/a.ko", tarfile.LNKTYPE),
        ]
        assert [each.mtime for each in archive][:3] == [0, -5, 1700000000.25]
        assert archive.extractfile("m/a.ko").read() == module.read_bytes()

    class Keeper:
        def keep(self, member):
            return member.read(10_000)

        def drop(self, kept):
            pass

    found = {each.path: each for each in locate([lambda: io.BytesIO(data)], ["/m/**"], Keeper()).files}
    assert found["m/n/a.ko"].attributes == FULL
    assert found["m/n/a.ko"].directories["m/n"] == Attributes(mode=0o711, mtime="-5")
    assert found["m/a.ko"].stored == "m/n/a.ko"


def test_the_same_files_make_the_same_bytes(made, module):
    entry = NewEntry(path="m/a.ko", attributes=FULL, content=module)
    assert made(entry) == made(entry)
