"""Which image a driver is built in: the one of its nodes' release, else the one that names its kernel."""

from __future__ import annotations

import pytest
from kmm_driver_toolkit import DriverToolkit

from kmm.contract import BuildArg
from kmm.core.base_images import BaseImageMissingError, BaseImageUndecidedError, base_image_args, newest_first, uses
from kmm.core.rendered import RendererError
from kmm.core.view import Denied, KernelNodes, Listed, Missing, Present, Question, Unknown, View

KERNEL = "5.14.0-427.22.1.el9_4.x86_64"
OLD, NEW = "416.94.202405291527-0", "417.94.202410211619-0"
DOCKERFILE = "ARG DTK_AUTO\nFROM ${DTK_AUTO}"
RELEASE = "/etc/driver-toolkit-release.json"


def os_image(version: str) -> str:
    return f"Red Hat Enterprise Linux CoreOS {version} (Plow)"


def nodes(*os_images: str) -> KernelNodes:
    return KernelNodes(nodes=len(os_images), os_images=frozenset(os_images))


def listed(**more) -> Listed:
    return Listed(**{"by_version": {OLD: "old", NEW: "new"}, "unread": ("new", "old"), **more})


def asked(image: str, access: str = "") -> Question:
    return Question(image=image, access=access, files=(RELEASE,))


def chosen(known, *os_images: str, dockerfile=DOCKERFILE, args=(), kernel=KERNEL, offer=None, **view) -> dict:
    offer = offer or DriverToolkit()
    seen = View(base_images={"DTK_AUTO": known} if known else {}, **view)
    offers = {"DTK_AUTO": lambda: offer}
    return {arg.name: arg.value for arg in base_image_args(dockerfile, args, kernel, nodes(*os_images), seen, offers)}


@pytest.mark.parametrize(
    ("dockerfile", "is_used"),
    [
        (DOCKERFILE, True),
        ("FROM $DTK_AUTO", True),
        ("FROM ${DTK_AUTO:-a}", True),
        ("FROM a\nRUN --mount=from=${DTK_AUTO} x", True),
        ("# FROM ${DTK_AUTO}\nFROM a", False),
        ("  # DTK_AUTO", False),
        ("ARG MY_DTK_AUTO\nARG DTK_AUTO_2", False),
        ("ARG dtk_auto", False),
        ("", False),
    ],
)
def test_a_dockerfile_uses_an_argument_that_it_names_other_than_in_a_comment(dockerfile, is_used):
    assert uses(dockerfile, "DTK_AUTO") is is_used


def test_the_image_is_the_one_of_the_nodes_release():
    assert chosen(listed(), os_image(OLD)) == {"DTK_AUTO": "old"}
    assert chosen(listed(), os_image(NEW)) == {"DTK_AUTO": "new"}


def test_of_several_releases_with_one_kernel_the_newest_that_is_known_is_taken():
    assert chosen(listed(), os_image(NEW), os_image(OLD)) == {"DTK_AUTO": "new"}
    assert chosen(listed(), os_image("418.94.1-0"), os_image(OLD)) == {"DTK_AUTO": "old"}


def test_who_does_not_use_it_or_sets_it_is_left_alone_whatever_is_known():
    for known in (None, Unknown(message="x"), Listed()):
        assert chosen(known, dockerfile="FROM a") == {}
        assert chosen(known, args=(BuildArg(name="DTK_AUTO", value="mine"),)) == {}


@pytest.mark.parametrize("known", [None, Unknown(message="the API server did not say: it is away")])
def test_what_is_not_known_is_never_missing(known):
    with pytest.raises(BaseImageUndecidedError, match="which images driver-toolkit has is not known") as raised:
        chosen(known, os_image(OLD))
    assert raised.value.questions == ()


def test_a_release_without_an_image_names_those_that_there_are_the_newest_first():
    many = {f"416.94.{number}-0": "a" for number in range(100, 112)}
    with pytest.raises(BaseImageMissingError) as raised:
        chosen(listed(by_version=many), os_image("418.94.1-0"))
    said = str(raised.value)
    assert f"no image for 418.94.1-0, which the nodes of the kernel {KERNEL} run" in said
    assert "it has 416.94.111-0, 416.94.110-0, " in said
    assert said.endswith("416.94.102-0 and 2 older ones")


def test_an_empty_list_says_where_it_was_looked_for():
    with pytest.raises(BaseImageMissingError, match="ImageStream openshift/driver-toolkit is not there, or empty"):
        chosen(Listed(), os_image(OLD))


def test_versions_are_ordered_by_their_numbers():
    assert newest_first(dict.fromkeys(("9.6.20250513-0", "416.94.2-0", "416.94.10-0"), "")) == [
        "416.94.10-0",
        "416.94.2-0",
        "9.6.20250513-0",
    ]


RHEL = "Red Hat Enterprise Linux 9.4 (Plow)"


def test_where_the_release_cannot_be_told_one_image_after_the_other_is_asked_for_its_kernels():
    with pytest.raises(BaseImageUndecidedError, match="looked for in 2 of them") as raised:
        chosen(listed(), RHEL, access="a")
    assert raised.value.questions == (asked("new", "a"),)
    with pytest.raises(BaseImageUndecidedError, match="looked for in 1 of them") as raised:
        chosen(listed(unread=("old",)), RHEL, access="a")
    assert raised.value.questions == (asked("old", "a"),)


def test_an_image_that_cannot_be_read_is_in_the_way_of_no_other():
    away = Unknown(message="it is away")
    with pytest.raises(BaseImageUndecidedError, match="in 2 of them: it is away") as raised:
        chosen(listed(), RHEL, answers={asked("new"): away})
    assert raised.value.questions == (asked("old"),)
    with pytest.raises(BaseImageUndecidedError) as raised:
        chosen(listed(), RHEL, answers={asked("new"): away, asked("old"): away})
    assert raised.value.questions == (asked("new"), asked("old"))


@pytest.mark.parametrize("kernel", [KERNEL, f"{KERNEL}+"])
def test_an_image_whose_release_file_names_the_kernel_is_taken_before_all_are_read(kernel):
    known = listed(by_kernel={KERNEL: "old"}, unread=("new",))
    assert chosen(known, RHEL, kernel=kernel) == {"DTK_AUTO": "old"}


def test_the_release_of_the_nodes_counts_more_than_the_kernel():
    assert chosen(listed(by_kernel={KERNEL: "old"}), os_image(NEW)) == {"DTK_AUTO": "new"}
    with pytest.raises(BaseImageMissingError):
        chosen(listed(by_kernel={KERNEL: "old"}), os_image("418.94.1-0"))


@pytest.mark.parametrize("answer", [Unknown(message="it is away"), Denied(message="it is away")])
def test_an_image_that_cannot_be_read_is_asked_again_and_says_why(answer):
    with pytest.raises(BaseImageUndecidedError, match="in 1 of them: it is away") as raised:
        chosen(listed(unread=("new",)), RHEL, answers={asked("new"): answer})
    assert raised.value.questions == (asked("new"),)


@pytest.mark.parametrize("answer", [Missing(), Present(digest="sha256:1")])
def test_an_image_that_is_gone_or_does_not_tell_is_for_no_kernel(answer):
    with pytest.raises(BaseImageMissingError, match='whose nodes say that they run "Red Hat Enterprise Linux'):
        chosen(listed(unread=("new",)), RHEL, answers={asked("new"): answer})


def test_an_image_that_was_gone_long_ago_is_looked_for_again():
    with pytest.raises(BaseImageUndecidedError):
        chosen(listed(unread=("new",)), RHEL, answers={asked("new"): Missing()}, stale=frozenset({asked("new")}))


class Raising(DriverToolkit):
    def os_version(self, os_image):
        raise RuntimeError("a secret")


class Wrong(DriverToolkit):
    def os_version(self, os_image):
        return 5


@pytest.mark.parametrize("offer", [Raising(), Wrong()])
def test_a_plugin_that_fails_is_told_without_its_words(offer):
    with pytest.raises(RendererError) as raised:
        chosen(listed(), RHEL, offer=offer)
    assert "a secret" not in str(raised.value)
