from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmm.api.template import TemplateError, check, expand

VALUES = {"KERNEL_XYZ": "6.1.0", "MOD_NAME": "m", "EMPTY": ""}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("image:$KERNEL_XYZ-x", "image:6.1.0-x"),
        ("image:${KERNEL_XYZ}x", "image:6.1.0x"),
        ("$UNSET|${UNSET}|", "||"),
        ("${UNSET-d}${EMPTY-d}", "d"),
        ("${UNSET:-d}${EMPTY:-d}", "dd"),
        ("${UNSET=d}${UNSET:=e}${EMPTY:=f}", "def"),
        ("${UNSET+d}${EMPTY+d}${MOD_NAME+e}", "de"),
        ("${UNSET:+d}${EMPTY:+d}${MOD_NAME:+e}", "e"),
        ("${UNSET:-${MOD_NAME}-${KERNEL_XYZ}}", "m-6.1.0"),
        ("${UNSET:-a$$b}", "a$b"),
        ("$$KERNEL_XYZ $${x}", "$KERNEL_XYZ ${x}"),
        ("costs 5$ or $1", "costs 5$ or $1"),
        ("ends with $", "ends with $"),
        ("$(reboot) `reboot` \"';|&", "$(reboot) `reboot` \"';|&"),
        ("}{", "}{"),
        ("", ""),
    ],
)
def test_variables_are_replaced_as_a_shell_would(template, expected):
    assert expand(template, VALUES.get) == expected


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("${KERNEL_XYZ", 'a "${" at character 1 that is never closed'),
        ("a${", 'a "${" at character 2 that is never closed'),
        ("${UNSET:-d", 'a "${" that is never closed'),
        ("${UNSET:-${X}", 'a "${" that is never closed'),
        ("${}", "without the name of a variable"),
        ("${1}", "without the name of a variable"),
        ("${KERNEL_XYZ%.*}", 'has "%" behind "${KERNEL_XYZ"'),
        ("${KERNEL_XYZ:0:1}", 'has ":0" behind'),
        ("${X:-" * 30, "more than 20 deep"),
        ("${X:-" * 1_000_000, "more than 20 deep"),
    ],
)
def test_a_template_that_cannot_be_read_says_where(template, said):
    with pytest.raises(TemplateError) as raised:
        expand(template, VALUES.get)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 300
    with pytest.raises(TemplateError):
        check(template)


def test_check_names_every_variable_in_defaults_too():
    assert set(check("$A ${B:-$C} ${D:+${E}}")) == {"A", "B", "C", "D", "E"}


@given(st.text("${}:-=+ABab$_1", max_size=40))
def test_no_template_ends_in_anything_but_text_or_a_template_error(template):
    try:
        names = check(template)
    except TemplateError:
        return
    expand(template, dict.fromkeys(names, "value").get)


@given(
    st.lists(
        st.sampled_from(["$A", "${A}", "${B-d}", "${E:-d}", "${A+x}", "${E:+x}", "${B=d}", "-", "."]), max_size=8
    )
)
def test_it_agrees_with_a_real_shell(parts):
    template = "".join(parts).replace("$A", "${A}")
    shell = subprocess.run(
        ["/bin/sh", "-c", f'printf %s "{template.replace("${B=", "${B-")}"'],
        env={"A": "value", "E": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert expand(template, {"A": "value", "E": ""}.get) == shell.stdout
