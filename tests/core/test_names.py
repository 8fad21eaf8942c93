from __future__ import annotations

import hashlib
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.api.metadata import is_label_key, is_label_value
from kmm.core import names
from kmm.core.names import DEVICE_PLUGIN, LOADER, daemon_set_name, kernel_label_values, older_labels, task_name

UID = "6f1ed002-ab5f-4b29-8f0c-2a3d6b8c9e10"
KERNELS = st.text("abzAZ059.-_+~é ", max_size=80)


def suffix(kernel: str) -> str:
    return "-" + hashlib.sha256(kernel.encode()).hexdigest()[:8]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MODULE_NAME", "kmm.node.kubernetes.io/module.name"),
        ("KERNEL", "kmm.node.kubernetes.io/kernel-version.full"),
        ("ROLE", "kmm.node.kubernetes.io/role"),
        ("TARGET_KERNEL", "kmm.node.kubernetes.io/target-kernel"),
        ("JOB_TYPE", "kmm.node.kubernetes.io/job-type"),
        ("LAST_HASH", "kmm.node.kubernetes.io/last-hash"),
        ("APPLIED_GENERATION", "kmm.node.kubernetes.io/applied-generation"),
        ("LOADER", "module-loader"),
        ("DEVICE_PLUGIN", "device-plugin"),
    ],
)
def test_labels_that_users_depend_on_are_kept_letter_for_letter(name, expected):
    assert getattr(names, name) == expected


def test_ready_labels_name_the_namespace_and_the_module():
    assert names.ready_label("n", "m.x") == "kmm.node.kubernetes.io/n.m.x.ready"
    assert names.device_plugin_ready_label("n", "m.x") == "kmm.node.kubernetes.io/n.m.x.device-plugin-ready"


def test_the_older_labels_have_no_namespace():
    assert older_labels("m") == ("kmm.node.kubernetes.io/m.ready", "kmm.node.kubernetes.io/m.device-plugin-ready")


def test_a_module_with_a_dot_has_no_older_labels_since_they_could_spell_anothers():
    assert names.ready_label("n", "m") == f"{names.PREFIX}n.m.ready"
    assert older_labels("n.m") is None


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (names.ready_label("n", "m"), True),
        (names.device_plugin_ready_label("n", "m"), True),
        *((label, True) for label in older_labels("m") or ()),
        (names.KERNEL, False),
        (names.MODULE_NAME, False),
        (f"{names.PREFIX}version-module.n.m", False),
        ("beta.kmm.node.kubernetes.io/version-module-loader.n.m", False),
        ("example.com/n.m.ready", False),
        ("kmmXnode.kubernetes.io/n.m.ready", False),
        (f"x{names.PREFIX}n.m.ready", False),
        (f"{names.PREFIX}n.m.ready.not", False),
        (f"{names.PREFIX}unready", False),
    ],
)
def test_a_ready_label_is_told_from_every_other_label(label, expected):
    assert names.is_ready_label(label) is expected


@pytest.mark.parametrize(
    ("kernel", "value"),
    [
        ("6.1.0-18-amd64", "6.1.0-18-amd64"),
        ("6.1.0+", "6.1.0"),
        ("6.1.0++", "6.1.0"),
        ("6.1.0+deb12-amd64", "6.1.0_deb12-amd64"),
        ("6.1.0~rc1", "6.1.0_rc1"),
        ("_6.1.0-_.", "6.1.0"),
        ("6.1.0é", "6.1.0"),
        ("6" * 63, "6" * 63),
        ("6" * 63 + "+", "6" * 63),
    ],
)
def test_the_label_value_of_a_kernel_is_safe_without_a_trailing_plus_and_trimmed(kernel, value):
    assert kernel_label_values([kernel]) == {kernel: value}


def test_a_long_label_value_is_cut_and_ends_in_a_hash_of_the_verbatim_kernel():
    kernel = "6.1.0-" + "x" * 58 + "+"
    value = ("6.1.0-" + "x" * 58)[:54] + suffix(kernel)
    assert kernel_label_values([kernel]) == {kernel: value}
    assert len(value) == 63


def test_kernels_with_the_same_label_value_each_get_a_hash_of_their_own_and_others_do_not():
    assert kernel_label_values(["6.1.0", "6.1.0+", "6.2.0+"]) == {
        "6.1.0": "6.1.0" + suffix("6.1.0"),
        "6.1.0+": "6.1.0" + suffix("6.1.0+"),
        "6.2.0+": "6.2.0",
    }


def test_the_same_kernel_twice_collides_with_nothing():
    assert kernel_label_values(["6.1.0", "6.1.0"]) == {"6.1.0": "6.1.0"}


@pytest.mark.parametrize("kernel", ["+", "...", "", "é"])
def test_a_kernel_of_which_nothing_is_left_is_a_hash(kernel):
    assert kernel_label_values([kernel]) == {kernel: suffix(kernel).removeprefix("-")}


@given(st.sets(KERNELS, max_size=8))
def test_kernels_of_a_cluster_have_valid_label_values_no_two_the_same_in_any_order(kernels):
    values = kernel_label_values(kernels)
    assert set(values) == kernels
    assert len(set(values.values())) == len(kernels)
    assert all(value and is_label_value(value) for value in values.values())
    assert kernel_label_values(sorted(kernels, reverse=True)) == values


def test_the_names_of_daemon_sets_never_change_between_releases():
    assert daemon_set_name("m", UID, LOADER, "6.1.0", None) == "m-37d9dee285"
    assert daemon_set_name("m", UID, DEVICE_PLUGIN, "", None) == "m-device-plugin-6a09574a49"


def test_the_names_of_daemon_sets_are_the_same_in_every_process():
    code = f"from kmm.core.names import *; print(daemon_set_name('m', {UID!r}, LOADER, '6.1.0', None))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == daemon_set_name("m", UID, LOADER, "6.1.0", None)


def test_the_name_of_a_daemon_set_differs_with_all_that_it_is_for():
    made = {
        daemon_set_name("m", UID, LOADER, "6.1.0", None),
        daemon_set_name("m", "another-uid", LOADER, "6.1.0", None),
        daemon_set_name("m", UID, DEVICE_PLUGIN, "6.1.0", None),
        daemon_set_name("m", UID, LOADER, "6.1.0+", None),
        daemon_set_name("m", UID, LOADER, "6.1.0", "1"),
        daemon_set_name("m", UID, LOADER, "6.1.0", "2"),
    }
    assert len({name.rpartition("-")[2] for name in made}) == 6


@pytest.mark.parametrize(
    ("module", "kept"),
    [
        ("m", "m"),
        ("m" * 40, "m" * 40),
        ("m" * 253, "m" * 40),
        ("m" * 39 + "-x", "m" * 39),
        ("m" * 38 + ".-x", "m" * 38),
        ("m.x", "m.x"),
    ],
)
def test_at_most_40_characters_of_the_modules_name_stand_before_the_hash(module, kept):
    assert re.fullmatch(rf"{re.escape(kept)}-[0-9a-f]{{10}}", daemon_set_name(module, UID, LOADER, "6", None))
    plugin = daemon_set_name(module, UID, DEVICE_PLUGIN, "", None)
    assert re.fullmatch(rf"{re.escape(kept)}-device-plugin-[0-9a-f]{{10}}", plugin)


@pytest.mark.parametrize("job_type", ["build", "sign"])
def test_the_name_of_a_task_says_its_kind_and_fits_63_characters(job_type):
    name = task_name("m" * 253, job_type, "inputs", 12)
    assert re.fullmatch(rf"m{{40}}-{job_type}-[0-9a-f]{{10}}", name)
    assert len(name) <= 63


def test_the_name_of_a_task_differs_with_its_inputs_and_its_attempt_only():
    made = [task_name("m", "build", *each) for each in (("a", 1), ("a", 2), ("b", 1), ("a", 1))]
    assert len(set(made)) == 3
    assert made[0] == made[3]


@given(
    st.from_regex(r"[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?){0,3}", fullmatch=True)
)
def test_every_name_is_one_that_kubernetes_takes(module):
    subdomain = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    for name in (
        daemon_set_name(module, UID, LOADER, "6.1.0", None),
        daemon_set_name(module, UID, DEVICE_PLUGIN, "", None),
        task_name(module, "build", "inputs", 1),
    ):
        assert re.fullmatch(subdomain, name)


def test_the_hash_of_a_value_does_not_depend_on_the_order_of_its_keys():
    assert names.digest({"a": 1, "b": [1, 2]}) == names.digest({"b": [1, 2], "a": 1})
    assert names.digest({"b": [2, 1], "a": 1}) != names.digest({"b": [1, 2], "a": 1})
    assert names.digest("ab", "c") != names.digest("a", "bc")
    assert len(names.digest("a", length=10)) == 10


def test_the_labels_of_the_longest_allowed_module_are_valid_keys():
    name = "m" * (63 - len("n..device-plugin-ready"))
    assert is_label_key(names.device_plugin_ready_label("n", name))
    assert is_label_key(names.ready_label("n", name))


def test_a_kernel_that_spells_what_another_one_is_cut_to_gets_another_label():
    first = kernel_label_values({"6.1", "6.1+"})["6.1"]
    labels = kernel_label_values({"6.1", "6.1+", first})
    assert len(set(labels.values())) == 3
