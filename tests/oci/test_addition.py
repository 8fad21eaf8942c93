from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.embedded.image import image, index
from kmm.oci import manifest
from kmm.oci.addition import add_to_configuration, add_to_manifest, labels_of, replace_in_index
from kmm.oci.manifest import ManifestError, digest_of
from kmm.oci.new_layer import NewLayer

LAYER = NewLayer(digest="sha256:" + "1" * 64, diff_id="sha256:" + "2" * 64, size=7)
SAID = {"a": "1"}


def configured(body, layers=1, **fields):
    """Return a configuration with one more layer on top, as JSON."""
    parsed = manifest.parse(image([b"%d" % n for n in range(layers)]).manifest)
    said = {"created_by": "us", "comment": "why", "labels": {}, **fields}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads(add_to_configuration(data, parsed, LAYER, **said))


BASE = {"rootfs": {"type": "layers", "diff_ids": ["x"]}, "os": "linux", "architecture": "arm64", "variant": "v8"}


def test_a_configuration_gets_the_layer_and_keeps_all_else():
    more = {"config": {"Cmd": ["a"]}, "os.version": "1", "new": {"a": [1]}}
    assert configured({**BASE, **more}) == {
        **BASE,
        **more,
        "rootfs": {"type": "layers", "diff_ids": ["x", LAYER.diff_id]},
    }


def test_history_is_told_where_there_is_one_at_the_time_of_the_image():
    told = {"created_by": "us", "comment": "why"}
    old = {"created_by": "COPY", "empty_layer": False}
    assert "history" not in configured(BASE)
    assert configured({**BASE, "history": [old]})["history"] == [old, told]
    made = configured({**BASE, "created": "2020-01-01T00:00:00Z", "history": [old]})
    assert made["created"] == "2020-01-01T00:00:00Z"
    assert made["history"] == [old, {"created": "2020-01-01T00:00:00Z", **told}]


@pytest.mark.parametrize("history", [[], None])
def test_a_history_of_no_layer_stays_one_as_it_would_be_that_of_another(history):
    assert configured({**BASE, "history": history})["history"] == history


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_what_is_no_number_in_json_is_refused_and_not_written(number):
    made = image([b"0"])
    with pytest.raises(ManifestError, match="a configuration that is no JSON object"):
        configured(json.dumps({**BASE, "a": 0}).replace(": 0", f": [{number}]").encode())
    data = made.manifest.replace(b"{", b'{"a": ' + number.encode() + b", ", 1)
    with pytest.raises(ManifestError, match="a manifest that is no JSON object"):
        add_to_manifest(data, manifest.parse(made.manifest), b"", LAYER, annotations={})
    with pytest.raises(ManifestError, match="an index that is no JSON object"):
        replace_in_index(data, {}, without=frozenset(), annotations={})


def test_numbers_are_kept():
    numbers = [9007199254740993, 1.5, -0.0, 1e300]
    assert configured({**BASE, "a": numbers})["a"] == numbers


@pytest.mark.parametrize("config", [None, {}, {"Labels": None}, {"Labels": {"b": "2", "a": "0"}, "Cmd": []}])
def test_labels_are_added_where_they_are_wanted(config):
    known = (config or {}).get("Labels") or {}
    made = configured({**BASE, "config": config}, labels=SAID)
    assert made["config"]["Labels"] == {**known, **SAID}
    assert configured({**BASE, "config": config})["config"] == config
    assert labels_of(json.dumps(made).encode()) == {**known, **SAID}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "a configuration that is no JSON object"),
        (b"[]", "a configuration that is no JSON object"),
        (b"[" * 100_000, "a configuration that is no JSON object"),
        (b" " * (5 << 20), "a configuration larger than 4 MiB"),
        ({}, "does not have its layers"),
        ({"rootfs": []}, "does not have its layers"),
        ({"rootfs": {"diff_ids": {}}}, "does not have its layers"),
        ({"rootfs": {"diff_ids": []}}, "does not have its layers"),
        ({"rootfs": {"diff_ids": ["a", "b"]}}, "does not have its layers"),
        ({**BASE, "history": {"a": 1}}, "whose history is none"),
        ({**BASE, "history": [1]}, "whose history is none"),
    ],
)
def test_what_is_no_configuration_of_the_image_is_refused(body, said):
    with pytest.raises(ManifestError, match=said):
        configured(body)


def test_more_layers_than_runtimes_take_are_refused():
    assert len(configured({"rootfs": {"diff_ids": ["x"] * 126}}, 126)["rootfs"]["diff_ids"]) == 127
    with pytest.raises(ManifestError, match="there cannot be more than 127"):
        configured({"rootfs": {"diff_ids": ["x"] * 127}}, 127)


@pytest.mark.parametrize("docker", [False, True])
def test_a_manifest_gets_the_layer_in_its_own_media_type(docker):
    made = image([b"1"], docker=docker, annotations={"b": "2"})
    before = json.loads(made.manifest)
    data = add_to_manifest(made.manifest, manifest.parse(made.manifest), b"new", LAYER, annotations=SAID)
    after = json.loads(data)
    assert after["mediaType"] == before["mediaType"] == manifest.parse(data).media_type
    assert after["config"] == {"mediaType": before["config"]["mediaType"], "digest": digest_of(b"new"), "size": 3}
    assert after["layers"] == [
        *before["layers"],
        {
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"
            if docker
            else "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": LAYER.digest,
            "size": 7,
        },
    ]
    assert after["annotations"] == ({"b": "2"} if docker else {"b": "2", "a": "1"})


@pytest.mark.parametrize("docker", [False, True])
def test_an_index_has_others_in_their_places(docker):
    digests = ["sha256:" + each * 64 for each in "345"]
    entries = {f"arm/v{n}": (digest, 9, "x") for n, digest in enumerate(digests)}
    made = index(entries, docker=docker)
    body = json.loads(made.manifest)
    body["manifests"][0]["data"] = "old"
    data = replace_in_index(
        json.dumps(body).encode(), {digests[0]: b"new"}, without=frozenset(digests[1:2]), annotations=SAID
    )
    after = json.loads(data)
    platform = {"architecture": "arm", "os": "linux", "variant": "v0"}
    assert after["manifests"] == [
        {"mediaType": "x", "digest": digest_of(b"new"), "size": 3, "platform": platform},
        body["manifests"][2],
    ]
    assert manifest.parse(data).media_type == made.media_type
    assert after["annotations"] == SAID


@given(
    st.binary(max_size=40) | st.builds(lambda value: json.dumps({"config": {"Labels": value}}).encode(), st.text())
)
def test_labels_of_anything_are_read(data):
    assert labels_of(data) == {}
