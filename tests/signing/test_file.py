"""Signing files: what is there is the old one or the new one, whole, and nothing is left lying about."""

from __future__ import annotations

import os
import stat

import pytest
from signing.golden import MODULE, golden

from kmm.signing import file
from kmm.signing.errors import ModuleError
from kmm.signing.file import opened, sign
from kmm.signing.signer import Signer

SIGNED = MODULE + golden("self-sha256.signature")


def names(folder):
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "acme.ko"
    made.write_bytes(MODULE)
    made.chmod(0o640)
    return made


def test_a_file_is_signed_in_place_and_keeps_its_mode(path, signer):
    assert sign(path, signer).replaced == 0
    assert path.read_bytes() == SIGNED
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sign(path, signer).replaced == 1
    assert path.read_bytes() == SIGNED
    assert names(path.parent) == ["acme.ko"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(path, signer):
    os.chown(path, 4711, 4712)
    sign(path, signer)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (4711, 4712, 0o640)


def test_an_owner_that_cannot_be_kept_leaves_the_file_as_it_was(path, signer, monkeypatch):
    stated, old = os.fstat, path.stat()

    def of_another(descriptor):
        found = stated(descriptor)
        return found if found.st_ino == old.st_ino else os.stat_result((*found[:4], found.st_uid + 1, *found[5:]))

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(file.os, "fstat", of_another)
    monkeypatch.setattr(file.os, "fchown", refuse)
    with pytest.raises(PermissionError):
        sign(path, signer)
    assert (path.read_bytes(), names(path.parent)) == (MODULE, ["acme.ko"])


def test_who_reads_the_file_meanwhile_reads_the_old_one_to_its_end(path, signer):
    with path.open("rb") as reader:
        first = reader.read(10)
        sign(path, signer)
        assert first + reader.read() == MODULE


def test_a_link_stays_one_and_what_it_leads_to_is_signed(path, signer):
    link = path.parent / "weak.ko"
    link.symlink_to("acme.ko")
    sign(link, signer)
    assert link.is_symlink()
    assert path.read_bytes() == SIGNED


def test_another_place_for_what_is_signed_leaves_the_source_alone(path, signer, tmp_path):
    target = tmp_path / "signed.ko"
    sign(path, signer, target)
    assert (path.read_bytes(), target.read_bytes()) == (MODULE, SIGNED)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    with pytest.raises(OSError, match=r"directory|Directory"):
        sign(path, signer, tmp_path / "none" / "signed.ko")
    with pytest.raises(OSError, match=r"directory|Directory"):
        sign(path, signer, tmp_path)
    assert names(tmp_path) == ["acme.ko", "signed.ko"]


def test_what_is_no_regular_file_is_refused_and_nobody_waits(tmp_path, signer):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", ".", "/dev/null"):
        with pytest.raises(ModuleError, match="is no regular file"):
            sign(tmp_path / name, signer)
    for name in ("none", "loop"):
        with pytest.raises(OSError, match=r"No such file|symbolic links"):
            sign(tmp_path / name, signer)
    with pytest.raises(ModuleError, match="is no regular file"), opened(tmp_path / "pipe"):
        pass
    assert names(tmp_path) == ["loop", "pipe"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ModuleError("is bad")]
)
def test_what_goes_wrong_leaves_all_as_it_was(path, signer, monkeypatch, error):
    def fail(source, target, *, limit):
        target.write(b"half of it")
        raise error

    monkeypatch.setattr(signer, "sign", fail)
    with pytest.raises(type(error)):
        sign(path, signer)
    assert (path.read_bytes(), names(path.parent)) == (MODULE, ["acme.ko"])


def test_a_file_that_somebody_writes_meanwhile_is_not_replaced(path, keys, certificates):
    def while_it_is_changed(digest, hash_name):
        with path.open("ab") as stream:
            stream.write(b"more")
        return keys["self"](digest, hash_name)

    signer = Signer(certificates["self"], while_it_is_changed)
    path.write_bytes(MODULE)
    with pytest.raises(ModuleError, match="was changed while it was read"):
        sign(path, signer)
    assert (path.read_bytes(), names(path.parent)) == (MODULE + b"more", ["acme.ko"])
