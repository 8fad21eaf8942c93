"""A token in files, with the golden keys in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hsm.softhsm import LABEL, PIN, Missing, Tokens, softhsm
from signing.conftest import certificates
from signing.golden import KEYS, PASSPHRASE, golden

__all__ = ["certificates"]


@pytest.fixture(scope="session")
def program():
    """SoftHSM; a machine that cannot have it skips, CI never does."""
    try:
        return softhsm()
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def tokens(program, tmp_path_factory) -> Tokens:
    """A token with `self`, `issued` and `ec`; beside `self` its certificate. Tests leave it as it is."""
    made = Tokens(program, tmp_path_factory.mktemp("softhsm"))
    made.make()
    for number, (name, file) in enumerate(KEYS.items(), 1):
        if name != "ec":
            made.put(golden(file), PASSPHRASE if name == "issued" else None, label=name, key_id=f"0{number}")
    made.put_certificate(golden("self.pem"), label="self", key_id="01")
    return made


@pytest.fixture
def new_tokens(program, tmp_path) -> Tokens:
    """A token of one test."""
    made = Tokens(program, tmp_path / "softhsm")
    made.make()
    return made


@pytest.fixture
def pin_file(tmp_path) -> Path:
    made = tmp_path / "pin"
    made.write_text(f"{PIN}\n")
    return made


@pytest.fixture
def uri_of() -> Callable[..., str]:
    def make(tokens: Tokens, label: str = "self", token: str = LABEL) -> str:
        return f"pkcs11:token={token.replace(' ', '%20')};object={label}?module-path={tokens.library}"

    return make
