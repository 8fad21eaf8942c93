from __future__ import annotations

import contextlib
import io
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kmm.api.manifest import DEPTH_MOST, SIZE_MOST, VALUES_MOST, ManifestError, documents, read_limited


def value(text: str):
    (document,) = documents(text.encode())
    return document.value


def error(data: bytes | str) -> str:
    with pytest.raises(ManifestError) as raised:
        documents(data if isinstance(data, bytes) else data.encode())
    message = str(raised.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_documents_know_the_line_they_begin_on_and_empty_ones_are_left_out():
    found = documents(b"# nothing\n---\na: 1\n---\n---\n\nb: 2\n")
    assert [(each.value, each.line) for each in found] == [({"a": 1}, 3), ({"b": 2}, 7)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 6.1", 6.1),
        ("a: '6.1'", "6.1"),
        ("a: yes", True),
        ("a: Off", False),
        ("a: ~", None),
        ("a:", None),
        ("a: 0x1f", 31),
        ("a: 017", 15),
        ("a: 08", "08"),
        ("a: 1_000", 1000),
        ("a: 1e3", 1000.0),
        ("a: 6.1.0", "6.1.0"),
        ("a: 2024-13-45", "2024-13-45"),
        ("a: 2024-01-01", "2024-01-01"),
        ("a: 22:22", "22:22"),
        ("a: =", "="),
        ("a: y", True),
        ("a: N", False),
        ("a: !!str 5", "5"),
    ],
)
def test_scalars_are_what_kubectl_makes_of_them(text, expected):
    assert value(text) == {"a": expected}


def test_keys_are_always_strings():
    expected = {"16": "a", "true": "b", "6.1": "c", "~": "d"}
    assert value("{0x10: a, yes: b, 6.1: c, ~: d}") == expected


def test_aliases_and_merge_keys_stand_for_what_they_name():
    text = "a: &a {x: 1, z: 2}\nb: {<<: *a, z: 3}\nc: {<<: [{z: 5}, *a]}\nd: *a"
    assert value(text)["b"] == {"x": 1, "z": 3}
    assert value(text)["c"] == {"x": 1, "z": 5}
    assert value(text)["d"] == {"x": 1, "z": 2}


def test_a_stream_of_json_documents_is_read():
    found = documents(b'{"a": 1}\n\n{"b": 2} [3]')
    assert [(each.value, each.line) for each in found] == [({"a": 1}, 1), ({"b": 2}, 3), ([3], 3)]


def test_many_keys_and_one_of_them_twice_is_found_in_linear_time():
    keys = ",".join(f'"k{index}":0' for index in range(45_000))
    assert 'has the key "k44999" twice' in error("{" + keys + ',"k44999":1}')


def test_json_and_yaml_with_braces_are_both_read():
    assert value('{"a": [1, "b"]}') == value("{a: [1, b]}") == {"a": [1, "b"]}
    assert value("\ufeff{a: b}") == {"a": "b"}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "is empty"),
        ("# only a comment\n---\n", "is empty"),
        (bytes(range(128, 256)), "is not UTF-8 text (line 1 has byte 0x80): save it as UTF-8"),
        ("a: b\nc: Grüße".encode("latin-1"), "is not UTF-8 text (line 2 has byte 0xfc)"),
        ("a: b".encode("utf-16"), "is UTF-16 text"),
        ("a: b".encode("utf-16-le"), "is UTF-16 text"),
        ('a: "\\d"', "put a text with backslashes, such as a regexp, in single quotes"),
        ("a:\n  b: 'c\n\nd: e\n", "that begins on line 2"),
        ("---\na\n" * 1001, "more than 1,000 documents"),
        ("{}" * 1001, "more than 1,000 documents"),
        (b"a\x01", "is not YAML"),
        (b"\x00\x01", "is UTF-16 text, or none"),
        ("a: b: c", "is not YAML: mapping values are not allowed in this context on line 1"),
        ("a:\n\tb: c", "indented with spaces, not with tabs"),
        ("a: 1\nb: 2\na: 3", 'has the key "a" a second time in one object, on line 3'),
        ('{"a": 1, "a": 2}', 'has the key "a" twice in one object'),
        ("a: .nan", "on line 1 that JSON cannot write"),
        ('{"a": Infinity}', "that JSON cannot write"),
        ("a: " + "9" * 5000, "does not fit into 64 bits"),
        ('{"a": ' + "9" * 5000 + "}", "does not fit into 64 bits"),
        ('{"a": 1e999}', "that JSON cannot write"),
        ("a: !!python/object/apply:os.system [reboot]", "which no manifest needs"),
        ("a: !!binary aGk=", "which no manifest needs"),
        ("a: !mine x", "which no manifest needs"),
        ("[a]: b", "a key on line 1 that is not a string"),
        ("a: &a [*a]", "refers to itself on line 1"),
        ("a: *nowhere", "is not YAML: found undefined alias on line 1"),
        ("{<<: [1]}", 'has "<<" on line 1 before something that is not an object'),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ("[" * 1_000_000, f"nested more than {DEPTH_MOST} deep"),
        ("- " * 1000 + "a", f"nested more than {DEPTH_MOST} deep"),
        ('{"a":' * 1000 + "1" + "}" * 1000, f"nested more than {DEPTH_MOST} deep"),
        ("- a\n" * (VALUES_MOST + 1), f"more than {VALUES_MOST:,} values"),
        ("[" + "1," * VALUES_MOST + "1]", f"more than {VALUES_MOST:,} values"),
        (json.dumps(dict.fromkeys(map(str, range(VALUES_MOST + 1)))), f"more than {VALUES_MOST:,} values"),
    ],
    ids=lambda each: repr(each)[:40],
)
def test_what_is_no_manifest_is_one_clear_line(data, said):
    assert said in error(data)


@pytest.mark.parametrize("bomb", ["[*{0}, *{0}, *{0}, *{0}, *{0}, *{0}]", "{{<<: [*{0}, *{0}, *{0}, *{0}, *{0}]}}"])
def test_a_bomb_of_aliases_is_refused_before_it_goes_off(bomb):
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {bomb.format(f'a{n - 1}')}" for n in range(1, 30)]
    assert "aliases count as what they stand for" in error("\n".join(lines))


def test_more_than_the_limit_is_never_read(tmp_path):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            return len(buffer)

    large = tmp_path / "large.yaml"
    with large.open("wb") as stream:
        stream.truncate(1 << 40)
    with large.open("rb") as stream, pytest.raises(ManifestError, match="larger than 3 MiB"):
        read_limited(stream)
    with pytest.raises(ManifestError, match="larger than 3 MiB"):
        read_limited(io.BufferedReader(Endless()))
    large.write_bytes(b" " * SIZE_MOST)
    with large.open("rb") as stream:
        assert len(read_limited(stream)) == SIZE_MOST


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text("abc: -#'\"\n{}[]0.1é", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1: ", max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("ab1:~ ", min_size=1, max_size=4), json_values, min_size=1, max_size=3))
def test_what_json_and_yaml_write_is_read_back(data):
    (from_json,) = documents(json.dumps(data).encode())
    (from_yaml,) = documents(yaml.safe_dump(data, default_flow_style=False).encode())
    assert from_json.value == from_yaml.value == data


@given(st.binary(max_size=200) | st.text("-: {}[]&*<!|>%@`'\"#,?\n\t a1.~", max_size=60).map(str.encode))
def test_junk_is_documents_or_a_manifest_error_and_never_anything_else(data):
    with contextlib.suppress(ManifestError):
        assert documents(data)
