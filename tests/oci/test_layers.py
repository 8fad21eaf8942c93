from __future__ import annotations

import gzip
import io
import sys
import tarfile
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.oci.layers import LayerError, Limits, find

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DIRECTORY, LINK, HARD, DEVICE = "directory", "link", "hard", "device"
TYPES = {DIRECTORY: tarfile.DIRTYPE, LINK: tarfile.SYMTYPE, HARD: tarfile.LNKTYPE, DEVICE: tarfile.CHRTYPE}


def tar(*entries, form=tarfile.PAX_FORMAT):
    """Make a layer: (path, contents), (path, type) or (path, type, target)."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=form) as archive:
        for name, *said in entries:
            member = tarfile.TarInfo(name)
            content = said[0] if isinstance(said[0], bytes) else b""
            if isinstance(said[0], str):
                member.type, member.linkname = TYPES[said[0]], (said[1] if len(said) > 1 else "")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


class Layers:
    """Openers of layers, the lowest first, that note how often each was opened and how much of it was read."""

    def __init__(self, *layers):
        self.opened = [0] * len(layers)
        self.read = [0] * len(layers)
        self.openers = [self.opener(number, layer) for number, layer in enumerate(layers)]

    def opener(self, number, layer):
        @contextmanager
        def opens():
            self.opened[number] += 1
            stream = io.BytesIO(layer)
            try:
                yield stream
            finally:
                self.read[number] = stream.tell()

        return opens


def look(paths, *layers, **limits):
    asked = [paths] if isinstance(paths, str) else paths
    return find(Layers(*layers).openers, asked, Limits(**limits))


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lambda layer: gzip.compress(layer[:700]) + gzip.compress(layer[700:])]
)
def test_a_file_is_found_in_layers_packed_in_any_way(pack):
    layer = pack(tar(("opt", DIRECTORY), ("opt/x.ko", b"driver" * 1000), ("opt/y", b"")))
    assert look(["/opt/x.ko", "/opt/y", "/opt", "/none"], layer) == {"/opt/x.ko": b"driver" * 1000, "/opt/y": b""}


@pytest.mark.parametrize("name", ["opt/x", "./opt/x", "/opt/x", "opt//x", "a/../opt/./x", "../../opt/x"])
@pytest.mark.parametrize("asked", ["/opt/x", "opt/x", "//opt/./x", "/opt/a/../x"])
def test_paths_are_the_same_however_they_are_written(name, asked):
    assert look(asked, tar((name, b"1"))) == {asked: b"1"}


def test_the_topmost_layer_wins_and_no_layer_below_is_opened():
    layers = Layers(tar(("x", b"low")), tar(("x", b"high")))
    assert find(layers.openers, ["/x"]) == {"/x": b"high"}
    assert layers.opened == [0, 1]


def test_every_layer_is_read_once_for_all_files():
    layers = Layers(tar(("a", b"1")), tar(("b", b"2")), tar(("c", b"3")))
    assert find(layers.openers, ["/a", "/b", "/c", "/d"]) == {"/a": b"1", "/b": b"2", "/c": b"3"}
    assert layers.opened == [1, 1, 1]


def test_of_several_entries_in_one_layer_the_last_counts():
    assert look("/x", tar(("x", b"1"), ("x", b"2"))) == {"/x": b"2"}
    assert look("/x", tar(("x", b"1"), ("./x", LINK, "y"), ("y", b"2"))) == {"/x": b"2"}
    assert look("/x", tar(("x", LINK, "y"), ("x", b"1"))) == {"/x": b"1"}
    assert look("/x", tar(("x", b"1"), ("x", DIRECTORY))) == {}
    assert look("/a/x", tar(("a", DIRECTORY), ("a/x", b"1"), ("a", b"file"))) == {}
    assert look("/a/x", tar(("a", b"file"), ("a", DIRECTORY), ("a/x", b"1"))) == {"/a/x": b"1"}


@pytest.mark.parametrize(
    "upper",
    [
        [("a/b/.wh.x", b"")],
        [("a/.wh.b", b"")],
        [(".wh.a", b"")],
        [("a/b/.wh..wh..opq", b"")],
        [("a/.wh..wh..opq", b"")],
        [(".wh..wh..opq", b"")],
        [("./.wh.a", b"")],
        [("a", b"a file now")],
        [("a/b", DEVICE)],
        [("a/b/x", DIRECTORY)],
        [("a/b/x", DEVICE)],
    ],
)
def test_what_a_layer_hides_or_replaces_is_not_there(upper):
    lower = tar(("a", DIRECTORY), ("a/b", DIRECTORY), ("a/b/x", b"1"))
    assert look("/a/b/x", lower, tar(*upper)) == {}
    assert look("/a/b/x", lower, tar(*upper), tar(("a/b/x", b"2"))) == {"/a/b/x": b"2"}


@pytest.mark.parametrize("other", ["a/b/.wh.y", "a/.wh.bb", ".wh.b", "c/.wh..wh..opq", "a/b/x/.wh..wh..opq"])
def test_a_whiteout_hides_nothing_else(other):
    assert look("/a/b/x", tar(("a/b/x", b"1")), tar((other, b""))) == {"/a/b/x": b"1"}


def test_a_whiteout_hides_nothing_of_its_own_layer():
    assert look("/a/x", tar(("a/x", b"1"), ("a/.wh.x", b""), ("a/.wh..wh..opq", b""), (".wh.a", b""))) == {
        "/a/x": b"1"
    }


@pytest.mark.parametrize(
    ("path", "layers", "expected"),
    [
        ("/x", [[("x", LINK, "y"), ("y", b"1")]], b"1"),
        ("/x", [[("y", b"1"), ("x", LINK, "/y")]], b"1"),
        ("/a/x", [[("a/x", LINK, "../b/y"), ("b/y", b"1")]], b"1"),
        ("/a/x", [[("a/x", LINK, "../../../../b"), ("b", b"1")]], b"1"),
        ("/x", [[("y", b"1")], [("x", LINK, "y")]], b"1"),
        ("/x", [[("x", LINK, "y")], [("y", b"1")]], b"1"),
        ("/x", [[("x", LINK, "y"), ("y", b"low")], [("y", b"high")]], b"high"),
        ("/x", [[("x", LINK, "y"), ("y", b"low")], [(".wh.y", b"")]], None),
        ("/lib/m/x", [[("lib", LINK, "usr/lib")], [("usr/lib/m/x", b"1")]], b"1"),
        ("/lib/m/x", [[("lib", LINK, "/usr/lib"), ("usr/lib/m", LINK, "n"), ("usr/lib/n/x", b"1")]], b"1"),
        # A directory of its own replaces the link of a lower layer.
        ("/lib/x", [[("lib", LINK, "usr/lib"), ("usr/lib/x", b"1")], [("lib", DIRECTORY)]], None),
        # Stored through the link of its own layer, as an archive that was made by hand may have it.
        ("/lib/x", [[("lib", LINK, "usr/lib"), ("lib/x", b"1")]], b"1"),
        ("/usr/lib/x", [[("lib", LINK, "usr/lib"), ("lib/x", b"1")]], b"1"),
        ("/usr/lib/x", [[("usr/lib/x", b"1")], [("lib", LINK, "/usr/lib"), ("lib/.wh.x", b"")]], None),
        ("/l/x", [[("l", LINK, "lib"), ("lib", LINK, "usr/lib"), ("l/x", b"1")]], b"1"),
        ("/l/x", [[("lib", LINK, "usr/lib"), ("l", LINK, "lib"), ("usr", LINK, "u"), ("l/x", b"1")]], b"1"),
        ("/usr/lib/x", [[("lib", LINK, "usr/lib"), ("lib", DIRECTORY), ("lib/x", b"1")]], None),
        ("/x", [[("lib", LINK, "usr/lib"), ("lib/y", b"1"), ("x", HARD, "lib/y")]], b"1"),
        ("/lib/x", [[("lib/x", b"1"), ("lib", LINK, "usr/lib")]], None),
        ("/x", [[("x", LINK, "x")]], None),
        ("/x", [[("x", LINK, "y"), ("y", LINK, "x")]], None),
        ("/x", [[("x", LINK, "x/x")]], None),
        ("/x", [[("x", LINK, "")]], None),
        ("/x", [[("x", LINK, "../../etc/passwd")]], None),
        ("/x", [[(f"{n}", LINK, f"{n + 1}") for n in range(50)] + [("x", LINK, "0"), ("50", b"1")]], None),
        ("/x", [[(f"{n}", LINK, f"{n + 1}") for n in range(30)] + [("x", LINK, "0"), ("30", b"1")]], b"1"),
    ],
)
def test_links_are_followed_inside_the_image_across_layers_and_not_for_ever(path, layers, expected):
    found = look(path, *(tar(*entries) for entries in layers))
    assert found == ({} if expected is None else {path: expected})


LIB = [("usr", DIRECTORY), ("usr/lib", DIRECTORY), ("lib", LINK, "usr/lib"), ("usr/lib/m/x", b"low")]


@pytest.mark.parametrize(
    ("path", "upper"),
    [
        ("/lib/m/x", [("lib/m/y", b"1")]),
        ("/lib/m/x", [("lib/m", DIRECTORY)]),
        ("/usr/lib/m/x", [("lib/m/x", b"1")]),
        ("/usr/lib/m/x", [("lib/m/.wh.x", b"")]),
        ("/usr/lib/m/x", [("lib/.wh.m", b"")]),
    ],
)
def test_what_is_stored_through_a_link_of_a_lower_layer_is_refused_as_runtimes_do_not_agree(path, upper):
    for between in ([], [("other", b"1")]):
        with pytest.raises(LayerError, match="runtimes do not agree where they are"):
            look(path, tar(*LIB), tar(*between), tar(*upper))


@pytest.mark.parametrize(
    ("path", "uppers", "expected"),
    [
        # The same wherever it is.
        ("/lib/m/x", [[("lib/m/x", b"new")]], b"new"),
        ("/lib/m/x", [[("lib/m/.wh.x", b"")]], None),
        # A directory in place of the link.
        ("/lib/m/x", [[("lib", DIRECTORY), ("lib/m/y", b"1")]], None),
        ("/usr/lib/m/x", [[("lib", DIRECTORY), ("lib/m/x", b"1")]], b"low"),
        ("/usr/lib/m/x", [[("lib", DIRECTORY)], [("lib/m/x", b"1")]], b"low"),
        ("/usr/lib/m/x", [[("lib/m/x", b"1"), ("lib", LINK, "other")]], b"low"),
        # Nothing that is looked for.
        ("/opt/x", [[("lib/m/x", b"1")], [("opt/x", b"2")], [("lib/m/x", b"3")]], b"2"),
        ("/etc/x", [[("lib/m/x", b"1")]], None),
    ],
)
def test_what_runtimes_agree_about_is_found(path, uppers, expected):
    found = look(path, tar(*LIB), *(tar(*entries) for entries in uppers))
    assert found == ({} if expected is None else {path: expected})


@pytest.mark.parametrize(
    ("layer", "limits", "said"),
    [
        ([("a", LINK, "b"), ("b", LINK, "a"), ("a/x", b"1")], {}, "links that lead in circles"),
        ([(f"{n}", LINK, "x") for n in range(9)], {"text": 10}, "more links where something is looked for"),
        ([(f"{n}/a", b"") for n in range(9)], {"hiding": 10}, "more than 10 directories and links"),
    ],
)
def test_links_and_directories_are_bounded(layer, limits, said):
    with pytest.raises(LayerError, match=said):
        look(["/x/y", "/a/y"], tar(*layer), **limits)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([[("y", b"1"), ("x", HARD, "y")]], b"1"),
        ([[("y", b"1"), ("x", HARD, "./y")]], b"1"),
        ([[("y", b"1")], [("x", HARD, "y")]], b"1"),
        # It is what its target was when its layer was made.
        ([[("y", b"1")], [("x", HARD, "y")], [("y", b"2")]], b"1"),
        ([[("y", b"1"), ("x", HARD, "y")], [(".wh.y", b"")]], b"1"),
        ([[("x", HARD, "x")]], None),
        ([[("x", b"1")], [("x", HARD, "x")]], b"1"),
        ([[("x", HARD, "y"), ("y", HARD, "x")]], None),
        ([[("y", LINK, "z"), ("x", HARD, "y"), ("z", b"1")]], b"1"),
    ],
)
def test_hard_links_are_what_their_target_was(layers, expected):
    assert look("/x", *(tar(*entries) for entries in layers)) == ({} if expected is None else {"/x": expected})


LONG = "/".join(["directory" * 5] * 8)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("name", [LONG, "é" * 60, "a" * 99 + "/b", "a" * 150])
def test_long_names_and_links_are_read_in_every_form(form, name):
    layer = tar(("other", b"0" * 1000), ("x", LINK, name), (name, b"1"), form=form)
    assert look(["/x", f"/{name}"], layer) == {"/x": b"1", f"/{name}": b"1"}


def test_names_in_the_ustar_form_are_read():
    name = "d" * 90 + "/" + "e" * 90
    assert look(f"/{name}", tar((name, b"1"), form=tarfile.USTAR_FORMAT)) == {f"/{name}": b"1"}


def header(name, size, flag=b"0", *, magic=b"ustar\x0000"):
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 1 << 33 else b"%011o\0" % size
    block[156:157] = flag
    block[257:265] = magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records):
    data = b"".join(b"%d %s\n" % (len(r) + len(str(len(r) + 4)) + 2, r) for r in records)
    return header(b"pax", len(data), b"x") + data + bytes(-len(data) % 512)


def packed_zeros(size):
    return gzip.compress(header(b"zeros", size) + bytes(size) + bytes(1024), 9)


@pytest.mark.parametrize(
    ("layer", "limits", "said"),
    [
        (header(b"x", 5)[:400], {}, "breaks off"),
        (header(b"x", 5000) + b"1", {}, "breaks off"),
        (header(b"y", 5000) + b"1", {}, "breaks off"),
        (gzip.compress(tar(("x", b"1" * 5000)))[:-20], {}, "breaks off"),
        (gzip.compress(tar(("x", b"1" * 5000)))[:40] + b"\xff" * 60, {}, "gzip"),
        (b"\x1f\x8b\xff", {}, "breaks off"),
        (b"\x1f\x8b\xff" + bytes(50), {}, "gzip"),
        (b"<html>" + b"x" * 1000, {}, "is no tar archive"),
        (b"BZh9" + bytes(600), {}, "bzip2"),
        (b"\xfd7zXZ\0" + bytes(600), {}, "with xz"),
        (header(b"x", 1 << 62), {}, "impossible size"),
        (header(b"x", (1 << 88) - 1), {}, "impossible size"),
        (header(b"x", 1 << 40), {}, "a file that is wanted and larger than 64 MiB"),
        (header(b"y", 1 << 40) + bytes(100_000), {"total": 64 << 10}, "unpacks to more than 64 KiB"),
        (packed_zeros(20 << 20), {"total": 1 << 20}, "unpacks to more than 1 MiB"),
        (header(b"pax", 1 << 30, b"x") + bytes(4096), {}, "a header of more than 1 MiB"),
        (header(b"pax", 1 << 30, b"L") + bytes(4096), {}, "a header of more than 1 MiB"),
        (pax(b"path=x")[:512] + b"999 path=x\n" + bytes(501), {}, "a header that is broken"),
        (pax(b"path") + header(b"x", 0), {}, "a header that is broken"),
        (pax(b"size=-1") + header(b"x", 0), {}, "impossible size"),
        (pax(b"size=" + b"9" * 5000) + header(b"x", 0), {}, "impossible size"),
        (pax(b"GNU.sparse.major=1", b"GNU.sparse.name=x") + header(b"y", 0), {}, "sparse"),
        (header(b"x", 0, b"S"), {}, "sparse"),
        (tar(*[(f"{n}", b"") for n in range(20)]), {"entries": 10}, "more than 10 entries"),
        (header(b"k", 0, b"g") * 20, {"entries": 10}, "more than 10 entries"),
        (tar(("x", b"1" * 2000)), {"file": 1024}, "larger than 1 KiB"),
        (tar(("x", b"1" * 2000), ("y", b"1" * 2000)), {"files": 3000}, "together larger than 2 KiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_broken_or_a_bomb_is_one_clear_error(layer, limits, said):
    with pytest.raises(LayerError, match=said):
        look(["/x", "/y"] if "files" in limits else "/x", layer, **limits)


def test_zstd_is_read_and_what_is_damaged_is_told():
    layer = zstd.compress(tar(("x", b"1")))
    assert look("/x", layer) == {"/x": b"1"}
    assert look("/x", zstd.compress(tar(("x", b"1"))[:700]) + zstd.compress(tar(("x", b"1"))[700:])) == {"/x": b"1"}
    for damaged, said in ((layer[:-9], "breaks off"), (layer[:9] + b"\xff" * 40, "is not the zstd")):
        with pytest.raises(LayerError, match=said):
            look("/x", damaged)
    large = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    with pytest.raises(LayerError, match="is not the zstd"):
        look("/x", large.compress(bytes(1 << 20)) + large.flush())


def test_where_zstd_cannot_be_read_that_is_told(monkeypatch):
    monkeypatch.delattr(sys.modules[zstd.__name__.rpartition(".")[0]], "zstd")
    monkeypatch.setitem(sys.modules, zstd.__name__, None)
    with pytest.raises(LayerError, match=r"zstd, which needs Python 3\.14 or backports\.zstd"):
        look("/x", zstd.compress(tar(("x", b"1"))))


def test_layers_that_are_read_again_and_again_count_each_time():
    layer = tar(*[(f"{n}", LINK, f"{n + 1}") for n in range(30)], ("x", LINK, "0"), ("big", b"0" * 100_000))
    with pytest.raises(LayerError, match="unpacks to more than"):
        look("/x", layer, total=1_000_000)


def test_a_header_for_all_entries_and_one_for_the_next_are_told_apart():
    everywhere = header(b"g", 15, b"g") + b"15 path=global\n" + bytes(497)
    layer = everywhere + pax(b"path=x") + header(b"a", 1) + b"1" + bytes(511) + header(b"b", 1) + b"2" + bytes(511)
    assert look(["/x", "/global", "/a", "/b"], layer) == {"/x": b"1", "/global": b"2"}


def test_a_layer_without_an_end_and_an_empty_one_are_read():
    assert look("/x", header(b"x", 1) + b"1" + bytes(511)) == {"/x": b"1"}
    assert look("/x", tar(("x", b"1")), b"", tar()) == {"/x": b"1"}
    assert look("/x") == {}
    assert look([], b"broken") == {}


@pytest.mark.parametrize("path", ["", "/", "..", "/a\0b", "/" + "a" * 5000])
def test_what_no_file_can_be_called_is_not_there(path):
    assert look(path, tar(("a", b"1"))) == {}


NAMES = st.sampled_from(
    ["a", "a/b", "a/b/c", "./a", "/a/b", "a/../a", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", "..", "x/a"]
)
ENTRIES = st.lists(st.tuples(NAMES, st.sampled_from([b"1", b"", DIRECTORY, LINK, HARD, DEVICE]), NAMES), max_size=6)


@given(st.lists(ENTRIES, max_size=4))
def test_no_image_raises_anything_but_its_error_and_what_is_found_is_contents(images):
    made = [tar(*[entry[:2] if isinstance(entry[1], bytes) else entry for entry in entries]) for entries in images]
    found = {}
    with suppress(LayerError):  # stored through a link
        found = look(["/a", "/a/b", "/a/b/c"], *made)
    assert set(found.values()) <= {b"1", b""}


@given(st.binary(max_size=1200), st.integers(0, 1023), st.booleans())
def test_no_bytes_raise_anything_but_its_error(noise, at, whole):
    layer = tar(("a/b", b"1"), ("x", LINK, "a/b"))
    for damaged in (
        noise if whole else layer[:at] + noise + layer[at + len(noise) :],
        gzip.compress(layer)[: at % 90] + noise,
    ):
        try:
            look(["/x", "/a/b"], damaged, total=1 << 20)
        except LayerError:
            continue


def test_a_layer_in_which_something_was_found_is_read_to_its_end():
    layers = Layers(tar(("x", b"1"), ("y", b"0" * 100_000)))
    find(layers.openers, ["/x"])
    assert layers.read[0] > 100_000
