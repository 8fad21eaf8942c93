"""Which image a release has, and which release a node runs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kmm_driver_toolkit import DriverToolkit, kmm_base_images

from kmm.conformance import BaseImagesContract
from kmm.contract import BaseImages, Settings, SettingsError

# As in tests/conftest.py, which is not there where these tests run alone.
SAME = settings(deadline=None, derandomize=True, database=None)
TOOLKIT = DriverToolkit()


def stream(*tags, status=()):
    return {"spec": {"tags": list(tags)}, "status": {"tags": list(status)}}


def tag(version, image="quay.io/toolkit@sha256:1", kind="DockerImage"):
    return {"name": version, "from": {"kind": kind, "name": image}}


def test_every_tag_but_latest_is_a_release():
    assert TOOLKIT.images(stream(tag("416.94.1-0", "a"), tag("latest", "b"), tag("417.94.2-0", "c"))) == {
        "416.94.1-0": "a",
        "417.94.2-0": "c",
    }


def test_a_tag_that_names_no_image_is_what_it_was_last_seen_to_be():
    seen = {"tag": "416.94.1-0", "items": [{"dockerImageReference": "new"}, {"dockerImageReference": "old"}]}
    assert TOOLKIT.images(stream(tag("416.94.1-0", "x:y", kind="ImageStreamTag"), status=[seen])) == {
        "416.94.1-0": "new"
    }
    assert TOOLKIT.images(stream(tag("416.94.1-0", "wanted"), status=[seen])) == {"416.94.1-0": "wanted"}


def test_without_the_image_stream_there_are_none():
    assert TOOLKIT.images(None) == {}


@pytest.mark.parametrize(
    ("os_image", "version"),
    [
        ("Red Hat Enterprise Linux CoreOS 414.92.202310210434-0 (Plow)", "414.92.202310210434-0"),
        ("Red Hat Enterprise Linux CoreOS 416.94.202405291527-0", "416.94.202405291527-0"),
        ("Red Hat Enterprise Linux CoreOS 9.6.20250513-0 (Plow)", "9.6.20250513-0"),
        ("CentOS Stream CoreOS 417.9.202409182219-0", "417.9.202409182219-0"),
        ("Fedora CoreOS 38.20230609.3.0", "38.20230609.3.0"),
        ("Red Hat Enterprise Linux 9.4 (Plow)", ""),
        ("Debian GNU/Linux 12 (bookworm)", ""),
        ("CoreOS 416.94.1-0; reboot", ""),
        ("CoreOS 4", ""),
        ("", ""),
        ("CoreOS " + "1." * 5000, ""),
    ],
)
def test_the_release_of_a_node_is_in_what_it_says_of_its_system(os_image, version):
    assert TOOLKIT.os_version(os_image) == version


def test_a_release_file_names_the_kernel_and_the_one_for_real_time():
    said = {"KERNEL_VERSION": "5.14.0-1", "RT_KERNEL_VERSION": "5.14.0-1+rt", "RHEL_VERSION": "9.4"}
    assert TOOLKIT.kernels(json.dumps(said).encode()) == ["5.14.0-1", "5.14.0-1+rt"]


@pytest.mark.parametrize("release", [b"", b"{", b"[]", b"1", b"\xff", b'{"KERNEL_VERSION": 5}', b"[" * 100_000])
def test_what_is_no_release_file_names_no_kernel(release):
    assert list(TOOLKIT.kernels(release)) == []


@SAME
@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3) | st.sampled_from(("DockerImage", "latest")),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(("spec", "status", "tags", "from", "kind", "name", "tag", "items")), inner, max_size=4
            )
        ),
    )
)
def test_any_json_is_read(part):
    for listing in ({"spec": part, "status": part}, {"spec": {"tags": part}, "status": {"tags": part}}):
        found = TOOLKIT.images(listing)
        assert all(isinstance(each, str) for pair in found.items() for each in pair)
        assert "latest" not in found


def test_it_is_offered_and_has_no_options():
    (offer,) = kmm_base_images(Settings())
    assert isinstance(offer, BaseImages)
    with pytest.raises(SettingsError, match='unknown option "namespace"'):
        kmm_base_images(Settings(options={"namespace": "x"}))


class TestConformance(BaseImagesContract):
    @pytest.fixture
    def plugin(self):
        return "driver-toolkit"

    @pytest.fixture
    def listing(self):
        seen = {"tag": "417.94.2-0", "items": [{"dockerImageReference": "quay.io/toolkit@sha256:2"}]}
        failed = {"tag": "418.94.1-0", "items": None, "conditions": [{"type": "ImportSuccess", "status": "False"}]}
        named = tag("417.94.2-0", kind="ImageStreamTag")
        return stream(tag("416.94.1-0"), tag("latest"), named, status=[seen, failed])
