"""`kmm verify-module` as a user runs it."""

from __future__ import annotations

import pytest
from cli.test_commands import kmm
from signing.golden import GOLDEN, MODULE, golden
from signing.test_compression import pack

from kmm.signing.appended import encode
from kmm.signing.compression import Compression


@pytest.fixture
def write(tmp_path):
    def write(end, how=Compression.NONE):
        path = tmp_path / f"acme.ko{how.value}"
        path.write_bytes(pack(MODULE + end, how))
        return path

    return write


@pytest.fixture
def verify(here):
    def verify(path, *arguments):
        code, out, err = here("verify-module", *arguments, path)
        assert err == ""
        assert out.startswith(f"{path}: ")
        return code, out.removeprefix(f"{path}: ").rstrip("\n")

    return verify


@pytest.mark.parametrize("how", Compression, ids=lambda how: how.name)
def test_a_signed_module_verifies_with_its_certificate(verify, write, how, certificates):
    for name in ("self.pem", "self.der"):
        assert verify(write(golden("self-sha384.signature"), how), "--cert", GOLDEN / name) == (
            0,
            f"verified: signed with sha384 by {certificates['self']}",
        )


def test_without_a_certificate_it_says_who_signed_and_that_nothing_was_verified(verify, write, certificates):
    code, said = verify(write(golden("self-sha256.signature")))
    assert code == 0
    assert (
        said
        == "not verified, as there is no --cert: signed with sha256 by "
        + str(certificates["self"]).partition(" to ")[0]
    )


def test_what_does_not_verify_fails_and_says_why(verify, write, certificates):
    by_self = f"signed with sha256 by {str(certificates['self']).partition(' to ')[0]}"
    signed = golden("self-sha256.signature")
    for end, certificate, said in [
        (b"", "self.pem", "is not signed"),
        (signed, "issued.pem", f"was signed with another certificate; {by_self}"),
        (
            b"changed" + signed,
            "self.pem",
            f"does not verify: it was changed after it was signed, or signed with another key; {by_self}",
        ),
        (
            encode(golden("openssl.cms")),
            "self.pem",
            f"has a signature with attributes, which kernels refuse; {by_self.replace('256', '512')}",
        ),
        (encode(b"no CMS"), "self.pem", "ends in a signature whose CMS breaks off"),
    ]:
        code, found = verify(write(end), "--cert", GOLDEN / certificate)
        assert code == 1
        assert found.startswith(said)
    assert verify(write(b"")) == (1, "is not signed")
    stacked = verify(write(signed + signed), "--cert", GOLDEN / "self.pem")
    assert stacked[0] == 1
    assert stacked[1].endswith("; 1 older below, which kernels take for a part of the module")


def test_each_file_is_told_of_and_one_that_fails_fails_all(write, tmp_path):
    path = write(golden("self-sha256.signature"))
    (tmp_path / "text.ko").write_text("no module")
    code, out, err = kmm(
        "verify-module", "--cert", GOLDEN / "self.pem", tmp_path / "text.ko", path, tmp_path / "none.ko", "/dev/null"
    )
    assert (code, err) == (1, "")
    assert [line.partition(": ")[2][:40] for line in out.splitlines()] == [
        "is no kernel module: it is no ELF file",
        "verified: signed with sha256 by certific",
        "cannot be read: No such file or director",
        "is no regular file",
    ]


def test_what_a_signature_says_reaches_no_terminal_as_it_is(verify, write):
    odd = golden("self-sha256.signature").replace(b"kmm tests", b"kmm\x1b[31m\n")
    code, said = verify(write(odd))
    assert code == 0
    assert "\x1b" not in said
    assert r"O=kmm\x1b[31m\n" in said


def test_a_certificate_that_cannot_be_used_is_wrong_use(write):
    code, out, err = kmm("verify-module", "--cert", GOLDEN / "self.key.pem", write(b""))
    assert (code, out) == (2, "")
    assert err == (
        f"kmm: {GOLDEN}/self.key.pem: holds a private key and no certificate: are both the wrong way round?\n"
    )
