"""Beside the real programs: what sign-file, openssl, xz, gzip and zstd say of what is made here."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from signing import sign_file
from signing.golden import HASHES, PASSPHRASE, module
from signing.made import certificate_pem
from signing.sign_file import Missing, program

from kmm.signing import certificate, file, key
from kmm.signing.signer import Signer
from kmm.signing.verification import verify


def test_a_machine_without_apt_says_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setattr(sign_file, "_PLACE", "usr/lib/none/sign-file")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Missing, match="there is no apt-get and no dpkg-deb"):
        program()


def test_a_package_that_cannot_be_had_is_told(monkeypatch, tmp_path):
    asked = []

    def run(command, **_):
        asked.append(command[2])
        return subprocess.CompletedProcess(command, 100, "", "E: Unable to locate package linux-kbuild-6.1\n")

    monkeypatch.setattr(sign_file, "_PLACE", "usr/lib/none/sign-file")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(sign_file.subprocess, "run", run)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Missing, match="fails: E: Unable to locate package"):
        program()
    assert asked == ["download", "update", "download"]
    assert [each.name for each in (tmp_path / "kmm/sign-file").iterdir()] == ["lock"]


@pytest.fixture
def made(tmp_path):
    """Return a key and a certificate of a kind in files, and a Signer of both."""

    def make(private, hash_name):
        encrypted = PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE)
        (tmp_path / "key").write_bytes(private.private_bytes(Encoding.PEM, *encrypted))
        (tmp_path / "cert").write_bytes(certificate_pem(private, name="Ünicode, \\ and more"))
        read = certificate.load((tmp_path / "cert").read_bytes())
        loaded = key.load((tmp_path / "key").read_bytes(), lambda: PASSPHRASE)
        return tmp_path / "key", tmp_path / "cert", Signer(read, loaded, hash_name=hash_name)

    return make


@pytest.mark.e2e
@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("bits", [2048, 3072, 4096])
@pytest.mark.parametrize("size", [18, 70_000, 3_000_000])
def test_what_is_made_is_what_sign_file_makes(real_sign_file, made, bits, hash_name, size):
    key_file, certificate_file, signer = made(_rsa(bits), hash_name)
    whole = module(size)
    theirs = sign_file.sign(whole, hash_name, key_file, certificate_file, passphrase=PASSPHRASE.decode())
    ours = io.BytesIO()
    signer.sign(io.BytesIO(whole), ours)
    assert ours.getvalue() == theirs


@pytest.mark.e2e
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda each: each.name)
def test_what_sign_file_makes_with_an_ec_key_verifies(real_sign_file, made, curve):
    key_file, certificate_file, signer = made(ec.generate_private_key(curve), "sha512")
    theirs = sign_file.sign(module(), "sha512", key_file, certificate_file, passphrase=PASSPHRASE.decode())
    assert verify(io.BytesIO(theirs), signer.certificate).verified


@pytest.mark.e2e
@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl")
@pytest.mark.parametrize("private", ["rsa", "ec"])
def test_openssl_verifies_what_is_made(made, private, tmp_path):
    _, _, signer = made(_rsa(2048) if private == "rsa" else ec.generate_private_key(ec.SECP256R1()), "sha384")
    (tmp_path / "module").write_bytes(module())
    signature = signer.signature(hashlib.sha384(module()).digest())
    (tmp_path / "cms").write_bytes(signature[:-40])
    command = "openssl cms -verify -binary -inform DER -in cms -content module -noverify -certfile cert -out out"
    ran = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out").read_bytes() == module()


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("suffix", "pack", "unpack"),
    [
        (".xz", "xz --check=crc32 --lzma2=dict=1MiB -f", "xz -dc"),
        (".gz", "gzip -n -f", "gzip -dc"),
        (".zst", "zstd -T0 --rm -f -q", "zstd -dcq"),
    ],
)
def test_what_make_modules_install_packs_is_signed_and_what_is_made_is_unpacked(
    signer, tmp_path, suffix, pack, unpack
):
    if not shutil.which(pack.split()[0]):
        pytest.skip(f"there is no {pack.split()[0]}")
    whole = module(500_000) + random.Random(1).randbytes(500_000)  # noqa: S311
    path = tmp_path / "acme.ko"
    path.write_bytes(whole)
    subprocess.run([*pack.split(), path], check=True)
    packed = path.with_name(f"acme.ko{suffix}")
    file.sign(packed, signer)
    found = subprocess.run([*unpack.split(), packed], check=True, capture_output=True).stdout
    assert found == whole + signer.signature(hashlib.sha256(whole).digest())


_KEYS = {}


def _rsa(bits):
    if bits not in _KEYS:
        _KEYS[bits] = rsa.generate_private_key(65537, bits)
    return _KEYS[bits]
