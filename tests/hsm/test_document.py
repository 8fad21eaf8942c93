"""The commands of docs/hsm.md do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from e2e.conftest import tools
from signing.golden import MODULE
from test_documents import expect

__all__ = ["tools"]

DOCUMENT = Path(__file__).parents[2] / "docs/hsm.md"
SAID_EACH_TIME = {r"certificate [0-9A-F:]+ issued": "certificate … issued"}


@pytest.fixture
def try_out(tmp_path, program):
    """Run the document's commands that are marked with one of some words."""

    def run(*marks):
        (tmp_path / "acme.ko").write_bytes(MODULE)
        blocks = re.findall(r"<!-- tested: (\w+) -->\n```console\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
        script = "".join(block for mark, block in blocks if mark in marks)
        # Where SoftHSM is not installed, it is in the cache.
        util = tmp_path / "softhsm2-util"
        variables = "".join(f"{name}={shlex.quote(value)} " for name, value in program.environment.items())
        util.write_text(f'#!/bin/sh\n{variables} exec {program.util} --module {program.library} "$@"\n')
        util.chmod(0o755)
        script = script.replace("/usr/lib/softhsm/libsofthsm2.so", str(program.library))
        expect(script.replace("$ softhsm2-util", f"$ {util}"), tmp_path, SAID_EACH_TIME)

    return run


def test_a_token_is_made_and_signs(try_out):
    try_out("softhsm")


@pytest.mark.e2e
def test_a_certificate_may_be_put_into_it(try_out, tools):
    try_out("softhsm", "opensc")
