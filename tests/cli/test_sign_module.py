"""`kmm sign-module` as a user runs it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from cli.test_commands import kmm
from signing.golden import GOLDEN, HASHES, MODULE, PASSPHRASE, golden
from signing.made import A_DAY, NOW, certificate_pem
from signing.test_compression import pack

from kmm.signing.compression import Compression

PAIR = ("--key", GOLDEN / "self.key.pem", "--cert", GOLDEN / "self.pem")
ENCRYPTED = ("--key", GOLDEN / "issued.key.pem", "--cert", GOLDEN / "issued.der")


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "acme.ko"
    made.write_bytes(MODULE)
    return made


@pytest.fixture
def by_self(certificates):
    return str(certificates["self"])


@pytest.fixture
def refused(here, monkeypatch):
    """Run it, without a terminal; return its one line on standard error, without its name."""
    monkeypatch.delenv("KBUILD_SIGN_PIN", raising=False)
    monkeypatch.setattr(sys, "stdin", None)

    def run(*arguments):
        code, out, err = here("sign-module", *arguments)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        return line.removeprefix("kmm: ")

    return run


@pytest.mark.parametrize("hash_name", HASHES)
def test_a_module_is_signed_in_place_as_sign_file_signs_it(here, path, hash_name, by_self):
    code, out, err = here("sign-module", *PAIR, "--hash", hash_name, path)
    assert (code, out, err) == (0, f"{path}: signed with {hash_name} by {by_self}\n", "")
    assert path.read_bytes() == MODULE + golden(f"self-{hash_name}.signature")


def test_several_of_all_kinds_are_signed_and_older_signatures_replaced(here, tmp_path, by_self):
    paths = []
    for how in Compression:
        paths.append(tmp_path / f"acme.ko{how.value}")
        paths[-1].write_bytes(pack(MODULE + golden("issued-sha512.signature") * 2, how))
    code, out, err = here("sign-module", *PAIR, *paths)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{each}: signed with sha256 by {by_self}; 2 older signatures taken off" for each in paths
    ]
    for how, each in zip(Compression, paths, strict=True):
        assert each.read_bytes() == pack(MODULE + golden("self-sha256.signature"), how)


def test_one_may_be_signed_to_another_place(refused, here, path, tmp_path):
    code, _, err = here("sign-module", *PAIR, path, "-o", tmp_path / "signed.ko")
    assert (code, err) == (0, "")
    assert path.read_bytes() == MODULE
    assert (tmp_path / "signed.ko").read_bytes() == MODULE + golden("self-sha256.signature")
    assert "--output is for one file, and these are 2" in refused(*PAIR, path, path, "-o", tmp_path / "other.ko")


@pytest.mark.parametrize("what", ["key", "certificate", "passphrase"])
def test_what_it_is_signed_with_is_never_overwritten(refused, path, tmp_path, what):
    files = {"key": tmp_path / "key.pem", "certificate": tmp_path / "cert.pem", "passphrase": tmp_path / "passphrase"}
    files["key"].write_bytes(golden("self.key.pem"))
    files["certificate"].write_bytes(golden("self.pem"))
    files["passphrase"].write_bytes(PASSPHRASE)
    pair = ("--key", files["key"], "--cert", files["certificate"], "--passphrase-file", files["passphrase"])
    (tmp_path / "link").symlink_to(files[what])
    before = files[what].read_bytes()
    said = refused(*pair, path, "-o", tmp_path / "link")
    assert said == f"--output {tmp_path}/link is the file of the {what}: it would be lost"
    assert files[what].read_bytes() == before


def test_one_that_cannot_be_signed_keeps_no_other_from_it(path, tmp_path):
    (tmp_path / "text.ko").write_text("no module")
    code, out, err = kmm("sign-module", *PAIR, tmp_path / "text.ko", tmp_path / "none.ko", tmp_path, path)
    assert (code, err) == (1, "")
    assert [line.removeprefix(f"{tmp_path}")[:60] for line in out.splitlines()][:3] == [
        "/text.ko: is no kernel module: it is no ELF file",
        "/none.ko: cannot be signed: No such file or directory",
        ": is no regular file",
    ]
    assert path.read_bytes() == MODULE + golden("self-sha256.signature")
    assert (tmp_path / "text.ko").read_text() == "no module"


def test_the_passphrase_comes_from_a_file_or_the_variable_that_sign_file_knows(here, path, tmp_path):
    secret = tmp_path / "passphrase"
    for ending in (b"", b"\n", b"\r\n"):
        secret.write_bytes(PASSPHRASE + ending)
        path.write_bytes(MODULE)
        assert here("sign-module", *ENCRYPTED, "--passphrase-file", secret, path)[::2] == (0, "")
        assert path.read_bytes() == MODULE + golden("issued-sha256.signature")
    path.write_bytes(MODULE)
    assert here("sign-module", *ENCRYPTED, path, KBUILD_SIGN_PIN=PASSPHRASE.decode())[::2] == (0, "")
    assert path.read_bytes() == MODULE + golden("issued-sha256.signature")


def test_the_passphrase_is_asked_for_at_a_terminal_and_not_shown(path):
    ours, theirs = pty.openpty()
    command = ["-c", "from kmm.cli import main; main()", "sign-module", *map(str, ENCRYPTED), str(path)]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != "KBUILD_SIGN_PIN"},
    )
    os.close(theirs)
    impatient = threading.Timer(60, process.kill)
    impatient.start()
    said, asked = b"", False
    with suppress(OSError):  # it has gone
        while piece := os.read(ours, 4096):
            said += piece
            if not asked and b"issued.key.pem: " in said:
                asked = True
                os.write(ours, PASSPHRASE + b"\n")
    os.close(ours)
    assert process.wait(60) == 0, said
    impatient.cancel()
    assert b"Passphrase of" in said
    assert PASSPHRASE not in said
    assert path.read_bytes() == MODULE + golden("issued-sha256.signature")


def test_a_wrong_or_missing_passphrase_is_told_and_nothing_of_it(refused, path, tmp_path):
    (tmp_path / "passphrase").write_text("s3cret-guess\n")
    (tmp_path / "long").write_bytes(b"x" * 2000)
    key = GOLDEN / "issued.key.pem"
    assert refused(*ENCRYPTED, path, "--passphrase-file", tmp_path / "passphrase") == (
        f"{key}: cannot be decrypted: the passphrase is wrong, or the key damaged"
    )
    assert refused(*ENCRYPTED, path) == (
        f"{key}: is encrypted: give its passphrase with --passphrase-file, in $KBUILD_SIGN_PIN or at a terminal"
    )
    assert refused(*ENCRYPTED, path, "--passphrase-file", tmp_path / "none").endswith(
        "none: cannot be read: No such file or directory"
    )
    assert refused(*ENCRYPTED, path, "--passphrase-file", tmp_path / "long").endswith("is larger than 1,024 bytes")
    assert path.read_bytes() == MODULE


def test_key_and_certificate_that_cannot_be_used_are_told_before_anything_is_signed(refused, path, tmp_path):
    key, certificate = GOLDEN / "self.key.pem", GOLDEN / "self.pem"
    text = tmp_path / "text"
    text.write_text("neither")
    for arguments, said in {
        (key, GOLDEN / "issued.pem"): f"{key}, {GOLDEN}/issued.pem: what the key signs does not verify with the "
        "certificate: they are not of one pair",
        (certificate, key): f"{key}: holds a private key and no certificate: are both the wrong way round?",
        (certificate, certificate): f"{certificate}: holds a certificate and no private key: are both the wrong way "
        "round?",
        (text, certificate): f"{text}: holds no private key in PEM or DER that can be read",
        (key, text): f"{text}: holds no certificate in DER or PEM that can be read",
        (tmp_path, certificate): f"{tmp_path}: cannot be read: Is a directory",
        (key, "/dev/zero"): "/dev/zero: is larger than 1,048,576 bytes",
    }.items():
        assert refused("--key", arguments[0], "--cert", arguments[1], path) == said
    assert refused(*PAIR, "--hash", "md5", path) == (
        'hash "md5" is not for modules: it is one of sha224, sha256, sha384, sha512'
    )
    assert path.read_bytes() == MODULE


def test_an_expired_certificate_and_an_ec_key_are_warnings(here, path, tmp_path):
    (tmp_path / "old.pem").write_bytes(certificate_pem(at=NOW - 8000 * A_DAY))
    code, _, err = here("sign-module", "--key", GOLDEN / "self.key.pem", "--cert", tmp_path / "old.pem", path)
    assert (code, err) == (0, f"kmm: warning: {tmp_path}/old.pem: the certificate expired on 2008-02-07\n")
    code, _, err = here("sign-module", "--key", GOLDEN / "ec.key.pem", "--cert", GOLDEN / "ec.pem", path)
    assert code == 0
    assert err == (
        f"kmm: warning: {GOLDEN}/ec.pem: the key is an EC key: many kernels refuse its signatures, and RSA is safe\n"
    )


def test_where_the_extra_is_not_installed_it_says_so(path):
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['cryptography'] = None; from kmm.cli import main; main()",
            *("sign-module", *map(str, PAIR), path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert "which is not installed: pip install 'kmm-operator[signing]'" in run.stderr
    assert run.stderr.count("\n") == 1
