"""Modules as files hold them: found whole, whatever is at their end and however they are compressed."""

from __future__ import annotations

import hashlib
import io
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signing.golden import MODULE, golden, module
from signing.test_appended import header
from signing.test_compression import pack

from kmm.signing import appended
from kmm.signing.appended import encode
from kmm.signing.compression import CHUNK, Compression
from kmm.signing.errors import CompressionError, ModuleError, SignatureError
from kmm.signing.module import read, strip, write

SIZES = [18, 3000, appended.SIZE_MOST, CHUNK + appended.SIZE_MOST, CHUNK + appended.SIZE_MOST + 1, 3 * CHUNK + 5]


@pytest.mark.parametrize("how", Compression, ids=lambda how: how.name)
@pytest.mark.parametrize("size", SIZES)
def test_a_module_is_found_below_its_signatures(how, size):
    whole = module(size)
    for count in range(3):
        packed = pack(whole + encode(b"CMS") * count, how)
        found = read(io.BytesIO(packed), "sha256")
        assert (found.compression, found.size, len(found.signatures)) == (how, size, count)
        assert found.digest == hashlib.sha256(whole).digest()


def test_a_signature_below_the_last_is_a_part_of_the_module_where_that_is_asked_for():
    found = read(io.BytesIO(MODULE + encode(b"a") + encode(b"b")), "sha512", strip_most=1)
    assert [each.body for each in found.signatures] == [b"b"]
    assert found.digest == hashlib.sha512(MODULE + encode(b"a")).digest()


@pytest.mark.parametrize("how", Compression, ids=lambda how: how.name)
def test_what_is_written_is_the_module_with_the_new_signature_at_its_end(how):
    source = io.BytesIO(pack(MODULE + encode(b"old"), how))
    target = io.BytesIO()
    write(source, read(source, "sha256"), encode(b"new"), target)
    assert target.getvalue() == pack(MODULE + encode(b"new"), how)


@pytest.mark.parametrize("how", Compression, ids=lambda how: how.name)
def test_a_stripped_module_is_as_it_was_before_it_was_signed(how):
    target = io.BytesIO()
    assert strip(io.BytesIO(pack(MODULE + golden("self-sha256.signature") * 2, how)), target) == 2
    assert target.getvalue() == pack(MODULE, how)
    again = io.BytesIO()
    assert strip(target, again) == 0
    assert again.getvalue() == target.getvalue()


@pytest.mark.parametrize("how", Compression, ids=lambda how: how.name)
def test_what_is_changed_in_between_is_not_written_as_if_it_were_the_same(how):
    source = io.BytesIO(pack(MODULE, how))
    contents = read(source, "sha256")
    for other in (pack(MODULE[:-1], how), b""):
        with pytest.raises(ModuleError, match="was changed while it was read"):
            write(io.BytesIO(other), contents, b"", io.BytesIO())
    larger = io.BytesIO(pack(MODULE * 500, how))
    with pytest.raises(ModuleError, match=r"is larger than|was changed"):
        write(larger, contents, b"", io.BytesIO())


def test_a_module_of_a_big_endian_machine_is_one():
    whole = module(100, big_endian=True)
    assert read(io.BytesIO(whole), "sha256").size == 100


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no ELF file"),
        (b"\x7fELF", "is no ELF file"),
        (b"#!/bin/sh\n" * 10, "is no ELF file"),
        (encode(b"CMS"), "is no ELF file"),
        (MODULE[:16] + b"\3\0" + MODULE[18:], "ELF file of another kind"),
        (MODULE[:16] + b"\0\1" + MODULE[18:], "ELF file of another kind"),
        (pack(b"text", Compression.XZ), "is no ELF file"),
    ],
    ids=range(7),
)
def test_what_is_no_module_is_told(data, said):
    with pytest.raises(ModuleError, match=said):
        read(io.BytesIO(data), "sha256")


def test_broken_signatures_and_too_many_are_told():
    with pytest.raises(SignatureError, match="or than itself"):
        read(io.BytesIO(MODULE + header(len(MODULE) + 1)), "sha256")
    with pytest.raises(SignatureError, match="longer than 256 KiB"):
        read(io.BytesIO(module(CHUNK * 2) + encode(bytes(300_000))), "sha256")


def test_a_limit_holds_for_what_is_unpacked():
    packed = pack(module(CHUNK * 3), Compression.ZSTD)
    assert read(io.BytesIO(packed), "sha256", limit=CHUNK * 3).size == CHUNK * 3
    with pytest.raises(CompressionError, match="is larger than"):
        read(io.BytesIO(packed), "sha256", limit=CHUNK * 3 - 1)


@pytest.mark.parametrize("how", [Compression.NONE, Compression.GZIP, Compression.XZ, Compression.ZSTD])
def test_memory_does_not_depend_on_the_size(how, tmp_path):
    path = tmp_path / "module.ko"
    path.write_bytes(pack(module(100) + bytes(40_000_000), how))
    tracemalloc.start()
    with path.open("rb", buffering=0) as source, Path(os.devnull).open("wb") as target:
        write(source, read(source, "sha256"), b"signature", target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


@settings(max_examples=60)
@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=3), st.sampled_from(Compression))
def test_a_module_with_any_end_is_found_or_refused(noise, bodies, how):
    whole = MODULE[:100] + noise + b"."
    packed = pack(whole + b"".join(map(encode, bodies)), how)
    found = read(io.BytesIO(packed), "sha256")
    assert found.size == len(whole)
    assert found.digest == hashlib.sha256(whole).digest()
    damaged = packed[: len(packed) // 2] + noise + packed[len(packed) // 2 + len(noise) :]
    try:
        read(io.BytesIO(damaged), "sha256", limit=100_000)
    except ModuleError:
        return


@pytest.mark.parametrize("how", Compression, ids=lambda how: how.name)
def test_a_module_that_comes_in_small_pieces_is_found(how):
    class Slow(io.BytesIO):
        def read(self, size=-1, /):
            return super().read(min(size, 7))

    whole = module(400_000)
    found = read(Slow(pack(whole + encode(b"CMS"), how)), "sha256")
    assert (found.size, found.digest, len(found.signatures)) == (400_000, hashlib.sha256(whole).digest(), 1)
    with pytest.raises(ModuleError, match="is no ELF file"):
        read(Slow(pack(b"text" * 100_000, how)), "sha256")
