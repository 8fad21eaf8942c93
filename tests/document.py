"""What stands in documents to be tried: files, and commands with what they print."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(
    r"<!-- (?P<mark>[a-z.]+)(?:: (?P<of>\S+))? -->\n```(?P<language>\w*)\n(?P<body>.*?)```", re.DOTALL
)
_END = "\x1e"  # of what a command prints


@dataclass(frozen=True, slots=True)
class Block:
    """A block that a comment says what to do with: `<!-- file: pyproject.toml -->`, `<!-- tested -->`."""

    mark: str
    of: str
    language: str
    body: str


@dataclass(slots=True)
class Command:
    """A line after a prompt, and the lines that it is said to print."""

    line: str
    prints: list[str] = field(default_factory=list)


def blocks(document: Path, *marks: str) -> Iterator[Block]:
    """Yield the blocks of a document that have one of the marks, in their order."""
    for found in _BLOCK.finditer(document.read_text()):
        if found["mark"] in marks:
            yield Block(found["mark"], found["of"] or "", found["language"], found["body"])


def block(document: Path, mark: str, of: str = "", language: str = "console") -> str:
    """Return the only block of a language that has a mark."""
    (found,) = (each.body for each in blocks(document, mark) if (each.of, each.language) == (of, language))
    return found


def commands(script: str) -> list[Command]:
    """Return the commands of a console block."""
    found: list[Command] = []
    for line in script.splitlines():
        if line.startswith("$ "):
            found.append(Command(line.removeprefix("$ ")))
        else:
            found[-1].prints.append(line)
    return found


def follow(
    tried: list[Block],
    folder: Path,
    environment: Mapping[str, str],
    replaced: Mapping[str, str] | None = None,
    *,
    may_fail: bool = False,
    timeout_s: float = 120,
) -> str:
    """Do what blocks say in one shell, as a reader does; return what was printed on standard error.

    Files are written where the commands before them lead. A command has to print what stands below it, in which an
    ellipsis is any text and one alone any lines; and it has to succeed, unless the next one is `echo $?`, or all
    may fail. `replaced`: what is different each time, and what stands there instead.
    """
    every: list[Command] = []
    script = []
    for each in tried:
        if each.mark == "file":
            script.append(f"printf %s {shlex.quote(each.body)} > {shlex.quote(each.of)} || exit")
            continue
        of_this = commands(each.body)
        for command, after in zip(of_this, [*of_this[1:], None], strict=True):
            goes_on = may_fail or (after is not None and after.line == "echo $?")
            script += [command.line, f"_code=$?; printf '\\n{_END}'"]
            script.append("(exit $_code)" if goes_on else "[ $_code = 0 ] || exit $_code")
        every += of_this
    run = subprocess.run(
        ["/bin/sh", "-c", "\n".join(script)],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    *printed, _ = run.stdout.split(f"\n{_END}")
    for command, text in zip(every, printed, strict=False):
        for pattern, instead in (replaced or {}).items():
            text = re.sub(pattern, instead, text)  # noqa: PLW2901 -- it is the same text
        assert _fits(text.splitlines(), command.prints), f"$ {command.line}\n{text}\n{run.stderr}"
    assert may_fail or run.returncode == 0, f"$ {every[len(printed) - 1].line}\n{run.stderr}"
    return run.stderr


def _fits(printed: list[str], said: list[str]) -> bool:
    pattern = "".join(
        r"(?:.*\n)*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n" for line in said
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None
