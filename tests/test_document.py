"""Documents are tried as a reader would try them: what is wrong in one is noticed."""

from __future__ import annotations

import os

import pytest
from document import Block, block, blocks, follow


def tried(*scripts):
    return [Block("tested", "", "console", script) for script in scripts]


@pytest.mark.parametrize(
    "script",
    [
        "$ echo a\na\n",
        "$ printf a\na\n",
        "$ true\n",
        "$ false\n$ echo $?\n1\n",
        "$ cd /\n$ pwd\n/\n",
        "$ printf 'x\\ny\\nz\\n'\n…\nz\n",
        "$ printf 'x\\ny\\nz\\n'\nx\n…\n",
        "$ echo a\n…\na\n",
        "$ echo 'took 12.3 s'\ntook … s\n",
        "$ echo 'a.b*c'\na.b*c\n",
    ],
)
def test_what_it_says_is_so(script, tmp_path):
    assert follow(tried(script), tmp_path, os.environ) == ""


@pytest.mark.parametrize(
    ("script", "wrong"),
    [
        ("$ echo a\nb\n", "echo a"),
        ("$ echo a\n", "echo a"),
        ("$ true\na\n", "true"),
        ("$ echo abc\na.c\n", "echo abc"),
        ("$ printf 'x\\ny\\n'\n…\nx\n", "printf 'x\\ny\\n'"),
        ("$ false\n$ true\n", "false"),
        ("$ true\n$ false\n$ echo $?\n0\n", "echo $?"),
        ("$ true\n$ false\n", "false"),
        ("$ no-such-program\n", "no-such-program"),
    ],
)
def test_what_is_not_so_is_told_by_its_command(script, wrong, tmp_path):
    with pytest.raises(AssertionError) as error:
        follow(tried(script), tmp_path, os.environ)
    assert str(error.value).splitlines()[0] == f"$ {wrong}"


def test_files_are_written_where_the_commands_lead(tmp_path):
    file = Block("file", "it's.txt", "text", "a 'b' $HOME\n")
    script = tried("$ mkdir below && cd below\n", "$ cat \"it's.txt\"\na 'b' $HOME\n")
    follow([script[0], file, script[1]], tmp_path, os.environ)
    assert (tmp_path / "below/it's.txt").read_text() == "a 'b' $HOME\n"


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    file = Block("file", "none/file", "text", "text\n")
    with pytest.raises(AssertionError):
        follow([*tried("$ true\n"), file, *tried("$ true\n")], tmp_path, os.environ)


def test_what_is_different_each_time_is_replaced(tmp_path):
    follow(tried("$ echo sha256:0123\nsha256:…\n"), tmp_path, os.environ, {r"sha256:\d+": "sha256:any"})


def test_blocks_are_found_by_their_marks(tmp_path):
    path = tmp_path / "a.md"
    path.write_text(
        "<!-- tested: x -->\n```console\n$ a\n```\n```\nb\n```\n<!-- file: c/d.py -->\n```python\ne\n```\n"
    )
    assert list(blocks(path, "tested", "file")) == [
        Block("tested", "x", "console", "$ a\n"),
        Block("file", "c/d.py", "python", "e\n"),
    ]
    assert block(path, "tested", "x") == "$ a\n"
