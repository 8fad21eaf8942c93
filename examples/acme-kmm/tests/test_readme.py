"""What the README shows is what one sees: its commands are run, as an administrator would."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def test_its_commands_print_what_it_says(tmp_path: Path) -> None:
    (script,) = re.findall(r"```console\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)
    shutil.copy(PACKAGE / "module.yaml", tmp_path)
    expected, said = [], []
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line in script.splitlines():
        if not line.startswith("$ "):
            expected.append(line)
            continue
        command = line.removeprefix("$ ")
        if command.startswith("export "):
            name, _, value = shlex.split(command)[1].partition("=")
            environment[name] = value
            continue
        run = subprocess.run(
            shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert run.stderr == ""
        said += run.stdout.splitlines()
    # Other plugins are installed where the operator is: what it lists of them is not ours.
    begin = said.index(next(each for each in said if each.startswith("acme (")))
    length = next((n for n, each in enumerate(said[begin + 1 :], 1) if not each.startswith("  ")), 0)
    judged = next(n for n, each in enumerate(said) if each.startswith("module.yaml"))
    assert [*said[begin : begin + length], *said[judged:]] == expected
