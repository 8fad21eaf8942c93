"""kmm.oci.layers.locate: files with all that is said of them, by name and by pattern."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oci.test_layers import DEVICE, DIRECTORY, HARD, LINK, Layers, header, pax, tar
from oci.test_layers_model import CHANGES, Files, normal

from kmm.oci.layers import LayerError, Limits, locate
from kmm.oci.tar import CHUNK, Attributes


class Kept:
    """Keeps contents, and knows which were dropped."""

    def __init__(self):
        self.all, self.dropped = [], []

    def keep(self, member):
        self.all.append(bytearray())
        while piece := member.read(CHUNK):
            self.all[-1] += piece
        return self.all[-1]

    def drop(self, kept):
        assert any(each is kept for each in self.all)
        assert not any(each is kept for each in self.dropped)
        self.dropped.append(kept)


def seek(wanted, *layers, **limits):
    """Return what is found, after a look at what was kept and is not held any more."""
    kept = Kept()
    asked = [wanted] if isinstance(wanted, str) else wanted
    found = locate(Layers(*layers).openers, asked, kept, Limits(**limits))
    held = {id(each.content) for each in found.files}
    assert {id(each) for each in kept.all} - {id(each) for each in kept.dropped} == held
    return found


def files(wanted, *layers, **limits):
    return {each.path: bytes(each.content) for each in seek(wanted, *layers, **limits).files}


@pytest.mark.parametrize(
    ("pattern", "layers", "expected"),
    [
        ("/m/*.ko", [[("m/a.ko", b"1"), ("m/b", b"2"), ("m/c/d.ko", b"3")]], {"m/a.ko": b"1"}),
        (
            "/m/**/*.ko",
            [[("m/a.ko", b"1"), ("m/c/d.ko", b"3"), ("n/a.ko", b"4")]],
            {"m/a.ko": b"1", "m/c/d.ko": b"3"},
        ),
        ("/m/*.ko", [[("m/a.ko", b"1"), ("m/b.ko", b"2")], [("m/a.ko", b"3")]], {"m/a.ko": b"3", "m/b.ko": b"2"}),
        ("/m/*.ko", [[("m/a.ko", b"1"), ("m/b.ko", b"2")], [("m/.wh.a.ko", b"")]], {"m/b.ko": b"2"}),
        ("/m/**/*.ko", [[("m/c/a.ko", b"1")], [("m/.wh.c", b"")]], {}),
        ("/m/**/*.ko", [[("m/c/a.ko", b"1")], [("m/c/.wh..wh..opq", b""), ("m/c/b.ko", b"2")]], {"m/c/b.ko": b"2"}),
        ("/m/*.ko", [[("m/a.ko", b"1")], [("m/.wh..wh..opq", b"")]], {}),
        ("/m/*.ko", [[("m/a.ko", b"1")], [(".wh..wh..opq", b"")]], {}),
        ("/m/*.ko", [[("m/a.ko", b"1")], [(".wh.m", b"")], [("m/b.ko", b"2")]], {"m/b.ko": b"2"}),
        ("/m/**/*.ko", [[("m/c/a.ko", b"1")], [("m/c", b"a file now")]], {}),
        ("/m/**/*.ko", [[("m/c/a.ko", b"1")], [("m/c", DEVICE)]], {}),
        ("/m/*.ko", [[("m/a.ko", b"1")], [("m/a.ko", DIRECTORY)]], {}),
        ("/m/*.ko", [[("m/a.ko", b"1"), ("m/a.ko", b"2")]], {"m/a.ko": b"2"}),
        ("/m/**/*.ko", [[("m/c/a.ko", b"1"), ("m/c", b"a file now")]], {}),
        ("/m/*.ko", [[("m", b"1")], [("m", DIRECTORY), ("m/a.ko", b"2")]], {"m/a.ko": b"2"}),
        # Links: to the directory, from a file, from one that fits to one that does not and the other way.
        ("/lib/*.ko", [[("lib", LINK, "usr/lib"), ("usr/lib/a.ko", b"1")]], {"usr/lib/a.ko": b"1"}),
        ("/lib/*.ko", [[("lib", LINK, "usr/lib")], [("usr/lib/a.ko", b"1")]], {"usr/lib/a.ko": b"1"}),
        ("/lib/*.ko", [[("lib", LINK, "usr/lib"), ("usr/lib/a.ko", b"1")], [("lib", DIRECTORY)]], {}),
        ("/l/*.ko", [[("l", LINK, "/"), ("a.ko", b"1")]], {"a.ko": b"1"}),
        ("/l/*.ko", [[("l", LINK, "l")]], {}),
        ("/m/*.ko", [[("m/a.ko", LINK, "../x"), ("x", b"1")]], {"x": b"1"}),
        ("/m/*.ko", [[("m/a.ko", LINK, "b.ko"), ("m/b.ko", b"1")]], {"m/b.ko": b"1"}),
        ("/m/*.ko", [[("m/a.ko", LINK, "none"), ("m/b.ko", LINK, "b.ko")]], {}),
        ("/m/*.ko", [[("x", b"1"), ("m/a.ko", HARD, "x")]], {"m/a.ko": b"1"}),
        ("/m/*.ko", [[("m/b.ko", b"1"), ("m/a.ko", HARD, "m/b.ko")]], {"m/a.ko": b"1", "m/b.ko": b"1"}),
        ("/m/*.ko", [[("m/a.ko", b"1")], [("m/a.ko", HARD, "m/a.ko")]], {"m/a.ko": b"1"}),
        ("/m/**/*.ko", [[("m/l", LINK, "../n"), ("n/a.ko", b"1")]], {}),  # not entered
        ("/**", [[("a", b"1"), ("b/c", b"2")], [(".wh.a", b"")]], {"b/c": b"2"}),
        # Stored through a link of its own layer.
        ("/lib/*.ko", [[("lib", LINK, "usr/lib"), ("lib/a.ko", b"1")]], {"usr/lib/a.ko": b"1"}),
        ("/m/**/*.ko", [[("m/l", LINK, "/m/n"), ("m/l/a.ko", b"1")]], {"m/n/a.ko": b"1"}),
        (
            "/**/*.ko",
            [[("l", LINK, "/"), ("l/a.ko", b"1"), ("l/b.ko", HARD, "/l/a.ko")]],
            {"a.ko": b"1", "b.ko": b"1"},
        ),
        ("/m/*.ko", [[("m/a.ko", b"1")], [("w", LINK, "m"), ("w/.wh.a.ko", b"")]], {}),
    ],
)
def test_what_fits_a_pattern_is_found(pattern, layers, expected):
    assert files(pattern, *(tar(*entries) for entries in layers)) == expected


@pytest.mark.parametrize("pattern", ["/lib/m/**", "/usr/lib/*/*.ko", "/**/*.ko", "/usr/**"])
def test_what_fits_a_pattern_and_may_be_behind_a_link_of_a_lower_layer_is_refused(pattern):
    lower = tar(("usr/lib/m/a.ko", b"1"), ("lib", LINK, "usr/lib"))
    for entry in (("lib/m/a.ko", b"2"), ("lib/m/.wh.a.ko", b"")):
        with pytest.raises(LayerError, match="runtimes do not agree"):
            seek(pattern, lower, tar(entry))
        assert files(pattern, lower, tar(("lib", DIRECTORY), entry)).get("usr/lib/m/a.ko") != b"2"


def test_names_and_patterns_together_are_read_once_and_each_file_is_there_once():
    layers = Layers(tar(("m/a.ko", b"1")), tar(("m/b.ko", b"2"), ("l", LINK, "m/b.ko")))
    found = locate(layers.openers, ["/m/*.ko", "/m/b.ko", "/m/**", "/l"], kept := Kept())
    assert [each.path for each in found.files] == ["m/a.ko", "m/b.ko"]
    assert found.missing == ()
    assert layers.opened == [1, 2]  # the upper one again: the link starts from the top
    assert len(kept.all) - len(kept.dropped) == 2


def test_a_name_stops_at_its_layer_and_a_pattern_does_not():
    layers = Layers(tar(("m/a.ko", b"1")), tar(("m/b.ko", b"2")))
    locate(layers.openers, ["/m/b.ko"], Kept())
    assert layers.opened == [0, 1]
    layers = Layers(tar(("m/a.ko", b"1")), tar(("m/b.ko", b"2"), ("m/.wh..wh..opq", b"")))
    locate(layers.openers, ["/m/*.ko"], Kept())
    assert layers.opened == [0, 1]


def member(name, kind=tarfile.REGTYPE, content=b"", **fields):
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, len(content)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, content


def archive(*members):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as made:
        for each, content in members:
            made.addfile(each, io.BytesIO(content))
    return written.getvalue()


def test_what_a_file_has_beside_its_contents_is_told():
    xattrs = {"SCHILY.xattr.security.selinux": "system_u:object_r:modules_object_t:s0\0", "comment": "no"}
    file = member(
        "m/a.ko",
        content=b"1",
        mode=0o640,
        uid=3_000_000,
        gid=7,
        uname="me",
        gname="us",
        mtime=1700000000.25,
        pax_headers=xattrs,
    )
    (found,) = seek("/m/a.ko", archive(file)).files
    assert found.attributes == Attributes(
        mode=0o640,
        uid=3_000_000,
        gid=7,
        user="me",
        group="us",
        mtime="1700000000.25",
        xattrs={"security.selinux": "system_u:object_r:modules_object_t:s0\0"},
    )
    assert (found.layer, found.stored, found.size) == (0, "m/a.ko", 1)


@pytest.mark.parametrize("wanted", ["/m/n/a.ko", "/m/**/*.ko", "/m/n/*.ko"])
def test_the_directories_above_are_those_of_its_layer_and_above(wanted):
    low = archive(member("m", tarfile.DIRTYPE, mode=0o700), member("m/n", tarfile.DIRTYPE, mode=0o711))
    middle = archive(member("m/n", tarfile.DIRTYPE, mode=0o750), member("m/n/a.ko", content=b"1"))
    high = archive(member("m/n", tarfile.DIRTYPE, mode=0o755), member("m/o", tarfile.DIRTYPE))
    (found,) = seek(wanted, low, middle, high).files
    assert {path: each.mode for path, each in found.directories.items()} == {"m/n": 0o755}
    (found,) = seek(wanted, low, middle).files
    assert {path: each.mode for path, each in found.directories.items()} == {"m/n": 0o750}


def test_a_hard_link_is_where_it_is_and_knows_its_file():
    layer = tar(("m", DIRECTORY), ("n", DIRECTORY), ("n/b.ko", b"1"), ("m/a.ko", HARD, "n/b.ko"))
    for wanted in (["/m/a.ko"], ["/m/*.ko"], ["/m/*.ko", "/n/*.ko"]):
        found = seek(wanted, layer).files[0]
        assert (found.path, found.stored, [*found.directories]) == ("m/a.ko", "n/b.ko", ["m"])
    # What a link leads to is what is there now, a hard link what was there then.
    layers = [tar(("z", b"1"), ("y", LINK, "z"), ("x", HARD, "y"), ("w", HARD, "z")), tar(("z", b"2"))]
    assert files("/x", *layers) == {"z": b"2"}
    assert files("/w", *layers) == {"w": b"1"}


def test_what_is_missing_is_told_with_what_is_near():
    layers = [
        tar(("lib/modules/5/acme.ko", b"1"), ("gone/acme.ko", b"1"), ("usr/bin/acme", b"2"), ("lib/x.ko.xz", b"3")),
        tar((".wh.gone", b""), ("m/b.ko", b"2")),
    ]
    found = seek(["/m/acme.ko", "/m/b.ko", "/n/*.ko"], *layers)
    assert [each.path for each in found.files] == ["m/b.ko"]
    assert found.missing == ("/m/acme.ko", "/n/*.ko")
    assert set(found.nearby) == {"lib/modules/5/acme.ko", "lib/x.ko.xz", "m/b.ko"}


def test_a_hard_link_that_says_a_size_hides_nothing_after_it():
    layer = header(b"a.ko", 0) + header(b"b.ko", 600, b"1") + header(b"c.ko", 0) + bytes(1024)
    assert "c.ko" in files("/*.ko", layer)


def test_the_directories_of_what_is_found_are_bounded():
    with pytest.raises(LayerError, match="has an entry in more than 256 directories"):
        seek(["/**/*.ko"], tar(("a/" * 256 + "m.ko", b"")))
    long = [(f"{number}/" + f"{'d' * 50}/" * 70 + "m.ko", b"") for number in range(9)]
    assert len(files(["/**/*.ko"], tar(*long[:1]))) == 1
    with pytest.raises(LayerError, match="MiB of names"):
        seek(["/**/*.ko"], tar(*long), text=1 << 20)


def test_names_that_are_near_are_bounded():
    layer = tar(*[(f"m/{n}.ko", b"") for n in range(5_100)], ("m/" + "a" * 600 + ".ko", b""))
    assert len(seek("/none.ko", layer).nearby) == 5_000


@pytest.mark.parametrize("name", ["../a.ko", "m/../../a.ko", "m/../a.ko", "..", "m/.."])
def test_an_entry_that_leads_out_of_its_directory_is_refused(name):
    for wanted in ("/a.ko", "/**", "/m/*"):
        with pytest.raises(LayerError, match=r"leads out of its directory, by \.\."):
            seek(wanted, tar(("m/b.ko", b"1"), (name, b"2")))


@pytest.mark.parametrize("target", ["../../etc/shadow", "m/../../etc/shadow", "/../etc/shadow", "m/../b.ko", ".."])
def test_a_hard_link_that_leads_out_of_its_directory_is_refused(target):
    for wanted in ("/a.ko", "/**", "/other"):
        with pytest.raises(LayerError, match=r"has a hard link that leads out of its directory, by \.\."):
            seek(wanted, tar(("b.ko", b"1"), ("etc/shadow", b"2"), ("a.ko", HARD, target)))


def test_what_begins_with_a_slash_is_in_the_image_as_builders_have_it():
    # kaniko writes the targets of hard links so, older tools the paths.
    layer = tar(("/", DIRECTORY), ("/m/b.ko", b"1"), ("m/a.ko", HARD, "/m/b.ko"), ("m/l.ko", LINK, "/m/b.ko"))
    assert files("/m/*.ko", layer) == {"m/a.ko": b"1", "m/b.ko": b"1"}
    assert files("/m/a.ko", layer) == {"m/a.ko": b"1"}


@pytest.mark.parametrize("target", ["../../../../etc/passwd", "/etc/passwd", "/../etc/passwd", "m/../../etc/passwd"])
def test_a_link_leads_to_the_images_own_file_and_never_out(target):
    image = tar(("a.ko", LINK, target), ("etc/passwd", b"the image's"))
    assert files("/a.ko", image) == files("/*.ko", image) == {"etc/passwd": b"the image's"}
    assert files("/a.ko", tar(("a.ko", LINK, target))) == {}


@pytest.mark.parametrize(
    ("layer", "limits", "said"),
    [
        (tar(*[(f"m/{n}", b"") for n in range(20)]), {"hiding": 10}, "more than 10 entries where a pattern"),
        (tar(*[(f"m/{'a' * 80}{n}.ko", b"") for n in range(20)]), {"text": 1024}, "more than 1 KiB of names"),
        (tar(("m/a.ko", b"1" * 2000)), {"file": 1024}, "a file that is wanted and larger than 1 KiB"),
        (tar(("m/a.ko", b"1" * 2000), ("m/b.ko", b"1" * 2000)), {"files": 3000}, "together larger than 2 KiB"),
        (header(b"m/a.ko", 1 << 40), {}, "larger than 64 MiB"),
        (header(b"m/a.ko", 0, b"S"), {}, "sparse"),
        (
            gzip.compress(header(b"zeros", 20 << 20) + bytes(20 << 20)),
            {"total": 1 << 20},
            "unpacks to more than 1 MiB",
        ),
        (header(b"m/a.ko", 5000) + b"1", {}, "breaks off"),
        (gzip.compress(tar(("m/a.ko", b"1" * 5000)))[:-20], {}, "breaks off"),
        (pax(b"size=99999") + header(b"m/a.ko", 1) + bytes(512), {}, "breaks off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_broken_or_a_bomb_is_refused(layer, limits, said):
    with pytest.raises(LayerError, match=said):
        seek("/m/**/*.ko" if "hiding" in limits else "/m/*.ko", layer, **limits)


@settings(max_examples=250)
@given(st.lists(CHANGES, max_size=14), st.sampled_from(["/**", "/a/**", "/*", "/?/b", "/b/c/*"]))
def test_what_fits_is_what_the_file_system_has(changes, pattern):
    there, made = Files(), []
    for number, change in enumerate(changes):
        if entries := there.change(change, number):
            made.append(tar(*entries))
    base, rest = {"/a/**": ("a", 9), "/b/c/*": ("b/c", 1)}.get(pattern, ("", {"/*": 1}.get(pattern, 9)))
    folder = real(there, base)
    expected = set()
    for path in () if folder is None else there.below(folder):
        inner = path[len(folder) + 1 :] if folder else path
        fits = inner.count("/") < rest and (pattern != "/?/b" or inner in ("a/b", "b/b", "c/b"))
        if path and fits and (place := settled(there, path)):
            expected.add(place)
    assert {each.path for each in seek(pattern, *made).files} == expected
    assert files(pattern, *made) == {path: there.at[path] for path in expected}


def real(there, path, links=0):
    """Return the path of a directory without links, or None."""
    done = ""
    for number, part in enumerate(path.split("/") if path else ()):
        done = f"{done}/{part}".lstrip("/")
        found = there.at.get(done, b"")
        if isinstance(found, str):
            base = "" if found.startswith("/") else done.rpartition("/")[0]
            rest = path.split("/")[number + 1 :]
            return real(there, normal("/".join([base, found, *rest])), links + 1) if links < 40 else None
        if done not in there.at or found is not None:
            return None
    return done


def settled(there, path, links=0):
    """Return the path of the file that is at a path, perhaps through links; or None."""
    parent, _, base = path.rpartition("/")
    folder = real(there, parent)
    if folder is None or links > 40:
        return None
    place = f"{folder}/{base}".lstrip("/")
    found = there.at.get(place)
    if isinstance(found, str):
        start = "" if found.startswith("/") else folder
        target = normal(f"{start}/{found}")
        return settled(there, target, links + 1) if target else None
    return place if isinstance(found, bytes) else None


@given(st.binary(max_size=1200), st.integers(0, 1023), st.booleans())
def test_no_bytes_raise_anything_but_its_error(noise, at, whole):
    layer = tar(("a/b.ko", b"1"), ("x", LINK, "a/b.ko"))
    for damaged in (
        noise if whole else layer[:at] + noise + layer[at + len(noise) :],
        gzip.compress(layer)[:90] + noise,
    ):
        try:
            files(["/x", "/**/*.ko"], damaged, total=1 << 20)
        except LayerError:
            continue
