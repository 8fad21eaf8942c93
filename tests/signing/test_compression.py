"""Compressed modules: what kernels unpack is written, and what is read stays within its limits."""

from __future__ import annotations

import gzip
import io
import lzma
import random
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.signing import compression
from kmm.signing.compression import Compression, detect, packed, unpacked
from kmm.signing.errors import CompressionError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED = (Compression.GZIP, Compression.XZ, Compression.ZSTD)
_NOISE = random.Random(0).randbytes(200_000)  # noqa: S311
DATA = bytes(1_000_000) + _NOISE + b"kernel module " * 100_000


def pack(data, how, pieces=1):
    step = -(-len(data) // pieces) or 1
    return b"".join(packed((data[at : at + step] for at in range(0, len(data), step)), how, len(data)))


def unpack(data, how=None, limit=10_000_000):
    stream = io.BytesIO(data)
    return b"".join(unpacked(stream, how or detect(stream), limit))


@pytest.mark.parametrize("how", Compression, ids=lambda how: how.name)
@pytest.mark.parametrize("size", [0, 1, 100, 300_000, len(DATA)])
def test_what_is_packed_is_unpacked(how, size):
    made = pack(DATA[:size], how, 3)
    assert detect(io.BytesIO(made)) is how
    assert unpack(made) == DATA[:size]
    assert made == pack(DATA[:size], how, 3)


def test_what_the_usual_tools_write_is_read():
    assert unpack(gzip.compress(DATA)) == DATA
    assert unpack(lzma.compress(DATA, preset=9)) == DATA
    assert unpack(zstd.compress(DATA, 19)) == DATA
    assert {gzip.decompress(pack(DATA, Compression.GZIP)), lzma.decompress(pack(DATA, Compression.XZ))} == {DATA}
    assert zstd.decompress(pack(DATA, Compression.ZSTD)) == DATA


def test_gzip_has_neither_a_name_nor_a_time():
    # The kernel passes over ten octets, and a name; nothing else that may stand there.
    assert pack(DATA, Compression.GZIP)[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\x03"


def test_xz_has_the_check_and_the_dictionary_that_the_kernel_has():
    made = pack(DATA, Compression.XZ)
    assert made[:8] == b"\xfd7zXZ\0\0\x01"  # CRC32
    assert made[12:17] == b"\x02\0\x21\x01\x10"  # one filter, LZMA2, with 1 MiB


def test_zstd_says_how_large_it_is():
    info = zstd.get_frame_info(pack(DATA, Compression.ZSTD, 5))
    assert info.decompressed_size == len(DATA)


@pytest.mark.parametrize("how", PACKED, ids=lambda how: how.name)
def test_what_breaks_off_is_damaged_or_goes_on_is_refused(how):
    made = pack(DATA[900_000:1_200_000], how)
    for cut in (7, len(made) // 2, len(made) - 1):
        with pytest.raises(CompressionError, match=r"breaks off|damaged"):
            unpack(made[:cut], how)
    damaged = bytearray(made)
    damaged[len(made) // 2] ^= 0xFF
    with pytest.raises(CompressionError, match=f"is not the {how.name.lower()} that it begins as|breaks off"):
        unpack(bytes(damaged))
    for more in (b"\0", made, b"x" * 500_000):
        with pytest.raises(CompressionError, match="something after"):
            unpack(made + more)


@pytest.mark.parametrize("how", PACKED, ids=lambda how: how.name)
def test_a_bomb_is_refused_at_the_limit(how):
    made = pack(bytes(100_000_000), how) if how is not Compression.XZ else lzma.compress(bytes(100_000_000), preset=0)
    assert len(made) < 1_000_000
    tracemalloc.start()
    with pytest.raises(CompressionError, match="is larger than 30,000,000 bytes, unpacked"):
        for _ in unpacked(io.BytesIO(made), how, 30_000_000):
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_plain_one_over_the_limit_is_refused_too():
    assert unpack(DATA, limit=len(DATA)) == DATA
    with pytest.raises(CompressionError, match=r"is larger than 2,599,999 bytes$"):
        unpack(DATA, limit=len(DATA) - 1)


def test_a_window_that_costs_too_much_memory_is_refused():
    large = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    with pytest.raises(CompressionError, match="window over 64 MiB"):
        unpack(large.compress(DATA) + large.flush())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 128 << 20}]
    with pytest.raises(CompressionError, match="window over 64 MiB"):
        unpack(lzma.compress(DATA[:100], filters=filters))
    assert unpack(lzma.compress(DATA[:100], preset=9)) == DATA[:100]


def test_a_python_that_lacks_zstd_says_what_to_install(monkeypatch):
    made = pack(b"x", Compression.ZSTD)
    package = sys.modules[zstd.__name__.rpartition(".")[0]]
    monkeypatch.delattr(package, "zstd")
    monkeypatch.setitem(sys.modules, zstd.__name__, None)
    for each in (lambda: unpack(made), lambda: pack(b"x", Compression.ZSTD)):
        with pytest.raises(CompressionError, match=r"pip install 'kmm-operator\[signing\]'"):
            each()


def test_a_stream_that_gives_little_at_a_time_is_read():
    class Slow(io.BytesIO):
        def read(self, size=-1, /):
            return super().read(min(size, 1000))

    for how in PACKED:
        assert b"".join(unpacked(Slow(pack(DATA, how)), how)) == DATA


@given(st.binary(max_size=200), st.sampled_from(PACKED), st.integers(0, 60))
def test_no_bytes_raise_anything_but_its_error(noise, how, at):
    whole = pack(b"a module" * 10, how)
    for damaged in (whole[:at] + noise, noise, whole[:at] + noise + whole[at + len(noise) :]):
        try:
            assert len(unpack(damaged, how, 100_000)) <= 100_000
        except CompressionError:
            continue


def test_deflate_whose_output_waits_at_the_end_of_its_input_is_read_whole():
    # All input is taken before all output fits: what is left comes without more input.
    data = bytes(compression.CHUNK * 3 + 17)
    assert unpack(zlib.compress(data, 9, wbits=31)) == data
