"""What reaches modprobe is exactly what was meant: run for real, against programs that write down their argv."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kmm.api.module import Modprobe, ModprobeArgs
from kmm.core import commands
from kmm.core.commands import load_command, softdeps, unload_command, words
from kmm.errors import SpecError

KERNEL = platform.release()
HOSTILE = [
    "$(reboot)",
    "`reboot`",
    '"; reboot; "',
    "a=1 b='2 3'",
    "--help",
    "*",
    "~",
    "$HOME",
    "a\\ b",
    "é\u202e",
    "a&b|c>d<e;f",
    "'\"'",
    '"a\nb"',
]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of fake programs: `run` an argv and get what each program was given."""
    bin_path = tmp_path / "bin"
    bin_path.mkdir()
    log = tmp_path / "log"
    (tmp_path / "lib/firmware").mkdir(parents=True)
    monkeypatch.setattr(commands, "FIRMWARE", str(tmp_path / "lib/firmware"))
    monkeypatch.setattr(commands, "_ORDER_FOLDER", str(tmp_path / "modprobe.d"))

    def fake(name: str, code: int = 0, says: str = ""):
        program = bin_path / name
        # No argument can hold a NUL, so NUL separates them.
        program.write_text(
            f'#!/bin/sh\nprintf \'%s\\0\' "$(($# + 1))" {name} "$@" >> {log}\necho {says} >&2\nexit {code}\n'
        )
        program.chmod(0o755)

    def run(argv: tuple[str, ...]) -> tuple[int, list[list[str]], str]:
        log.unlink(missing_ok=True)
        ran = subprocess.run(
            argv,
            env={"PATH": f"{bin_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        fields = log.read_bytes().decode().split("\0")[:-1] if log.exists() else []
        calls = []
        while fields:
            count = int(fields.pop(0))
            calls.append(fields[:count])
            del fields[:count]
        return ran.returncode, calls, ran.stdout

    fake("modprobe")
    run.fake, run.path = fake, tmp_path
    return run


def test_a_single_modprobe_needs_no_shell():
    assert load_command(Modprobe(module_name="m"), ()) == ("modprobe", "-v", "-d", "/opt", "m")
    assert unload_command(Modprobe(module_name="m"), KERNEL) == ("modprobe", "-rv", "-d", "/opt", "m")


def test_parameters_stand_behind_the_module_and_are_split_as_a_shell_would():
    modprobe = Modprobe(module_name="m", dir_name="/x", parameters=("a=1 b=2", "c='3 4'", "$(reboot)"))
    assert load_command(modprobe, ()) == ("modprobe", "-v", "-d", "/x", "m", "a=1", "b=2", "c=3 4", "$(reboot)")
    assert unload_command(modprobe, KERNEL)[-1] == "m"


def test_args_replace_the_options_and_raw_args_replace_all():
    args = ModprobeArgs(load=("--first-time -q",), unload=("-r",))
    assert load_command(Modprobe(module_name="m", args=args), ()) == (
        "modprobe",
        "--first-time",
        "-q",
        "-d",
        "/opt",
        "m",
    )
    assert unload_command(Modprobe(module_name="m", args=args), KERNEL) == ("modprobe", "-r", "-d", "/opt", "m")
    raw = Modprobe(raw_args=args, parameters=("ignored=1",))
    assert load_command(raw, ()) == ("modprobe", "--first-time", "-q")
    assert unload_command(raw, KERNEL) == ("modprobe", "-r")


def test_words_whose_quotes_do_not_close_are_an_error_of_the_module():
    with pytest.raises(SpecError, match="cannot be split into words"):
        words(["it's"])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_reach_modprobe_as_they_were_meant_with_and_without_a_shell(machine, text):
    modprobe = Modprobe(module_name="m", parameters=(text,))
    meant = ["modprobe", "-v", "-d", "/opt", "m", *shlex.split(text)]
    assert machine(load_command(modprobe, ()))[1] == [meant]
    assert machine(load_command(modprobe, ("in_tree",)))[1] == [["modprobe", "-r", "in_tree"], meant]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_any_word_reaches_modprobe_unchanged(machine, word):
    modprobe = Modprobe(module_name="m", parameters=(shlex.quote(word),))
    (_, last) = machine(load_command(modprobe, ("x",)))[1]
    assert last[-1] == word


def test_in_tree_modules_are_removed_first_and_a_failure_stops_the_load(machine):
    machine.fake("modprobe", code=3, says="Module x is in use")
    code, calls, said = machine(load_command(Modprobe(module_name="m"), ("x", "y")))
    assert (code, calls) == (3, [["modprobe", "-r", "x", "y"]])
    assert "Module x is in use" in said


def test_firmware_is_copied_before_loading_and_removed_before_unloading(machine):
    source, target = machine.path / "fw it's", machine.path / "lib/firmware"
    (source / "sub/deep").mkdir(parents=True)
    (source / "a.bin").write_text("a")
    (source / "sub/deep/.b c").write_text("b")
    (source / "link").symlink_to("a.bin")
    (target / "foreign.bin").write_text("not ours")
    (target / "sub").mkdir()
    (target / "sub/foreign.bin").write_text("not ours")
    modprobe = Modprobe(module_name="m", firmware_path=str(source))
    assert machine(load_command(modprobe, ()))[:2] == (0, [["modprobe", "-v", "-d", "/opt", "m"]])
    assert (target / "sub/deep/.b c").read_text() == "b"
    assert machine(unload_command(modprobe, KERNEL))[:2] == (0, [["modprobe", "-rv", "-d", "/opt", "m"]])
    left = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert left == ["foreign.bin", "sub", "sub/foreign.bin"]
    assert (source / "sub/deep/.b c").exists()


def test_unloading_removes_what_is_left_of_firmware_and_keeps_the_exit_code(machine):
    source = machine.path / "fw"
    source.mkdir()
    (source / "never-copied").write_text("x")
    machine.fake("modprobe", code=1, says="in use")
    code, calls, _ = machine(unload_command(Modprobe(module_name="m", firmware_path=str(source)), KERNEL))
    assert (code, len(calls)) == (1, 1)
    assert (machine.path / "lib/firmware").is_dir()
    gone = Modprobe(module_name="m", firmware_path=str(machine.path / "no such folder"))
    assert len(machine(unload_command(gone, KERNEL))[1]) == 1


def test_unloading_never_removes_the_nodes_own_firmware_where_the_image_links_to_it(machine):
    target = machine.path / "lib/firmware"
    (target / "foreign.bin").write_text("not ours")
    link = machine.path / "link"
    link.symlink_to(target)
    assert len(machine(unload_command(Modprobe(module_name="m", firmware_path=str(link)), KERNEL))[1]) == 1
    assert (target / "foreign.bin").exists()


def test_a_failed_copy_stops_the_load(machine):
    code, calls, _ = machine(load_command(Modprobe(module_name="m", firmware_path="/no/such/folder"), ()))
    assert code != 0
    assert calls == []


def test_unloading_in_a_shell_does_nothing_on_another_kernel(machine):
    source = machine.path / "fw"
    source.mkdir()
    modprobe = Modprobe(module_name="m", firmware_path=str(source))
    assert machine(unload_command(modprobe, "5.0-'$(reboot)'"))[:2] == (0, [])


def test_the_loading_order_is_written_beside_the_images_own_configuration(machine):
    modprobe = Modprobe(module_name="a", modules_loading_order=("a", "b", "c"))
    assert softdeps(modprobe.modules_loading_order) == ("softdep a pre: b", "softdep b pre: c")
    assert machine(load_command(modprobe, ()))[:2] == (0, [["modprobe", "-v", "-d", "/opt", "a"]])
    assert (machine.path / "modprobe.d/kmm-order.conf").read_text() == "softdep a pre: b\nsoftdep b pre: c\n"
