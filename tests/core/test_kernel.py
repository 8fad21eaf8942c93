from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.contract import ModuleRef
from kmm.core.kernel import candidates, expand, tag_safe
from kmm.errors import SpecError

MODULE = ModuleRef(namespace="n", name="m")
KERNEL = "6.1.0-18+deb12~1-amd64+"


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("6.1.0", ("6.1.0",)),
        ("6.1.0+", ("6.1.0+", "6.1.0")),
        ("6.1.0++", ("6.1.0++", "6.1.0+")),
        ("6.1.0+x", ("6.1.0+x",)),
        ("+6.1.0", ("+6.1.0",)),
    ],
)
def test_a_kernel_is_matched_verbatim_and_then_without_one_trailing_plus(kernel, expected):
    assert candidates(kernel) == expected


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("6.1.0-18_x.Y", "6.1.0-18_x.Y"),
        ("6.1.0+", "6.1.0"),
        ("6.1.0++", "6.1.0_"),
        ("6.1.0+deb12~1", "6.1.0_deb12_1"),
        ("6.1,0:/@é\n", "6.1_0_____"),
    ],
)
def test_a_kernel_in_an_image_name_is_tag_safe_and_without_a_trailing_plus(kernel, expected):
    assert tag_safe(kernel) == expected


@given(st.text(max_size=40))
def test_a_tag_safe_kernel_has_no_other_character_than_a_tag_may_have(kernel):
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._")
    assert set(tag_safe(kernel)) <= allowed
    assert len(tag_safe(kernel)) == len(kernel.removesuffix("+"))


@pytest.mark.parametrize(
    ("variable", "kernel", "expected"),
    [
        ("KERNEL_FULL_VERSION", KERNEL, KERNEL),
        ("KERNEL_VERSION", KERNEL, KERNEL),
        ("KERNEL_XYZ", KERNEL, "6.1.0"),
        ("KERNEL_X", KERNEL, "6"),
        ("KERNEL_Y", KERNEL, "1"),
        ("KERNEL_Z", KERNEL, "0"),
        ("KERNEL_XYZ", "6,1-rc2.3", "6.1.rc2"),
        ("KERNEL_Z", "6,1-rc2.3", "rc2"),
        ("KERNEL_XYZ", "5.14.0-427.el9", "5.14.0"),
        ("MOD_NAME", KERNEL, "m"),
        ("MOD_NAMESPACE", KERNEL, "n"),
        ("PATH", KERNEL, ""),
        ("KERNEL_W", KERNEL, ""),
        ("kernel_version", KERNEL, ""),
    ],
)
def test_a_variable_has_its_value_and_any_other_is_unset(variable, kernel, expected):
    assert expand(f"<${variable}>", MODULE, kernel) == f"<{expected}>"
    assert expand(f"<${{{variable}}}>", MODULE, kernel) == f"<{expected}>"
    if not expected:
        assert expand(f"${{{variable}-unset}}", MODULE, kernel) == "unset"


def test_the_kernel_is_tag_safe_in_image_names_and_verbatim_elsewhere():
    template = "$KERNEL_FULL_VERSION $KERNEL_VERSION"
    assert expand(template, MODULE, KERNEL) == f"{KERNEL} {KERNEL}"
    safe = "6.1.0-18_deb12_1-amd64"
    assert expand(template, MODULE, KERNEL, in_image=True) == f"{safe} {safe}"
    assert expand("$KERNEL_XYZ:$KERNEL_Z", MODULE, "6.1.0+", in_image=True) == "6.1.0:0"
    assert expand("$KERNEL_XYZ:$KERNEL_Z", MODULE, "6.1.0~1", in_image=True) == "6.1.0_1:0_1"


def test_variables_are_substituted_as_a_shell_would():
    template = "$$X ${UNSET:-${MOD_NAME}} ${MOD_NAME:+is $MOD_NAMESPACE} ${UNSET+x} ${KERNEL_X=9}"
    assert expand(template, MODULE, KERNEL) == "$X m is n  6"


@pytest.mark.parametrize("kernel", ["6", "6.1", "6.1+", "6-x", ""])
@pytest.mark.parametrize("variable", ["KERNEL_XYZ", "KERNEL_X", "KERNEL_Y", "KERNEL_Z"])
def test_a_kernel_of_fewer_than_three_parts_is_an_error_where_they_are_used(kernel, variable):
    for in_image in (False, True):
        with pytest.raises(SpecError, match=f"fewer than three parts, which .{variable}"):
            expand(f"a:${{{variable}}}", MODULE, kernel, in_image=in_image)


@pytest.mark.parametrize("kernel", ["6", "6.1", "6.1+", ""])
def test_a_kernel_of_fewer_than_three_parts_is_no_error_where_they_are_not_used(kernel):
    template = "$KERNEL_FULL_VERSION $MOD_NAME $$KERNEL_XYZ $KERNEL_W"
    assert expand(template, MODULE, kernel) == f"{kernel} m $KERNEL_XYZ "
    assert expand("no variable", MODULE, kernel) == "no variable"


def test_without_a_kernel_only_the_modules_variables_are_known():
    template = "$MOD_NAMESPACE/$MOD_NAME:${KERNEL_FULL_VERSION-a}${KERNEL_XYZ}${KERNEL_X-b}"
    assert expand(template, MODULE, None) == "n/m:ab"


@pytest.mark.parametrize("template", ["a:${KERNEL_XYZ", "${", "${MOD_NAME:-x", "${MOD_NAME%x}"])
def test_a_template_that_cannot_be_read_is_an_error_of_the_specification(template):
    with pytest.raises(SpecError) as raised:
        expand(template, MODULE, KERNEL)
    assert template in str(raised.value)


def test_an_error_does_not_repeat_a_long_template_or_kernel_whole():
    with pytest.raises(SpecError) as raised:
        expand("${" + "x" * 30_000, MODULE, KERNEL)
    assert len(str(raised.value)) < 300
    with pytest.raises(SpecError) as raised:
        expand("$KERNEL_X", MODULE, "6" * 30_000)
    assert len(str(raised.value)) < 300


@given(st.text(max_size=40))
def test_a_kernel_is_never_expanded_itself(kernel):
    assert expand("$KERNEL_VERSION", MODULE, kernel) == kernel
    assert expand("$KERNEL_VERSION", MODULE, "$MOD_NAME") == "$MOD_NAME"
