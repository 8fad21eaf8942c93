"""Signers of the golden keys, and the real sign-file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from signing import sign_file
from signing.golden import KEYS, PASSPHRASE, golden
from signing.sign_file import Missing

from kmm.signing import certificate, key
from kmm.signing.signer import Signer


@pytest.fixture(scope="session")
def keys():
    """The golden keys, by name. Loading one takes a while."""
    return {name: key.load(golden(file), lambda: PASSPHRASE) for name, file in KEYS.items()}


@pytest.fixture(scope="session")
def certificates():
    """Their certificates."""
    return {name: certificate.load(golden(f"{name}.pem")) for name in KEYS}


@pytest.fixture(scope="session")
def signer_of(keys, certificates):
    def make(name="self", hash_name="sha256"):
        return Signer(certificates[name], keys[name], hash_name=hash_name)

    return make


@pytest.fixture
def signer(signer_of):
    return signer_of()


@pytest.fixture(scope="session")
def real_sign_file() -> Path:
    """The real program; a machine that cannot have it skips, CI never does."""
    try:
        return sign_file.program()
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
