"""Keys of nobody, and what the kernel's sign-file made with them: in `golden/`, each made once.

    python tests/signing/golden.py                   # makes all of it anew, with the real sign-file and openssl

`self`: RSA-2048, self-signed. `issued`: RSA-4096, its certificate issued by a CA whose name is written in odd ways,
its key encrypted. `ec`: P-256. PASSPHRASE opens what is encrypted. `NAME-HASH.signature`: what sign-file appended to
MODULE.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from signing import sign_file

GOLDEN = Path(__file__).parent / "golden"
PASSPHRASE = b"nobody's passphrase"
HASHES = ("sha224", "sha256", "sha384", "sha512")
_PATTERN = bytes(n * n >> 8 & 0xFF for n in range(0x1000))
KEYS = {"self": "self.key.pem", "issued": "issued.key.pem", "ec": "ec.key.pem"}


def module(size: int = 3000, *, big_endian: bool = False) -> bytes:
    """Return what begins as a kernel module does, of `size` bytes."""
    order = "big" if big_endian else "little"
    head = b"\x7fELF\x02" + bytes([2 if big_endian else 1, 1]) + bytes(9) + (1).to_bytes(2, order)
    return (head + _PATTERN * (size // len(_PATTERN) + 1))[:size]


MODULE = module()


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    keys_and_certificates()
    secret = PASSPHRASE.decode()
    for name, key in KEYS.items():
        for hash_name in HASHES if name != "ec" else ("sha256",):
            signed = sign_file.sign(
                MODULE, hash_name, GOLDEN / key, GOLDEN / f"{name}.pem", passphrase=secret if name == "issued" else ""
            )
            (GOLDEN / f"{name}-{hash_name}.signature").write_bytes(signed.removeprefix(MODULE))
    for name, options, hash_name in (("by-key-id", ["-k"], "sha256"), ("old-hash", [], "sha1")):
        signed = sign_file.sign(MODULE, hash_name, GOLDEN / KEYS["self"], GOLDEN / "self.pem", *options)
        (GOLDEN / f"{name}.signature").write_bytes(signed.removeprefix(MODULE))
    # As openssl makes it where it is left alone: with attributes and the certificate. And two signers in one.
    (GOLDEN / "module.ko").write_bytes(MODULE)
    cms = "cms -sign -binary -outform DER -in module.ko -md sha512"
    openssl(f"{cms} -signer self.pem -inkey self.key.pem -out openssl.cms")
    openssl(
        f"{cms} -noattr -nocerts -signer self.pem -inkey self.key.pem -signer ec.pem -inkey ec.key.pem -out both.cms"
    )
    openssl(f"{cms} -noattr -nodetach -signer self.pem -inkey self.key.pem -out attached.cms")
    for each in GOLDEN.iterdir():
        if not each.name.startswith(tuple(KEYS)) and each.suffix not in (".signature", ".cms"):
            each.unlink()


def keys_and_certificates() -> None:
    (GOLDEN / "openssl.cnf").write_text(_OPENSSL)
    (GOLDEN / "database").touch()
    openssl("genrsa -out self.key.pem 2048")
    openssl("ecparam -name prime256v1 -genkey -noout -out ec.key.pem")
    openssl("genrsa -out ca.key.pem 2048")
    openssl("genrsa -aes256 -passout env:PASSPHRASE -out issued.key.pem 4096")
    for name, options in {
        "self.key.der": "pkcs8 -topk8 -nocrypt -outform DER",
        "self.key.pkcs1.pem": "rsa -traditional",
        "self.key.legacy.pem": "rsa -traditional -aes256 -passout env:PASSPHRASE",
        "self.key.encrypted.der": "pkcs8 -topk8 -outform DER -passout env:PASSPHRASE",
    }.items():
        openssl(f"{options} -in self.key.pem -out {name}")
    own = "-selfsign -extensions extensions"
    certify("ca", "ca", own, "01")
    certify("self", "self", own, "4F2CD34BB4358A3CADB748F03DDF220A0BF96698", "/O=kmm tests/CN=self-signed")
    certify("ec", "ec", own, "02", "/O=kmm tests/CN=elliptic")
    certify("issued", "ca", "-cert ca.pem", "80F1", "/O=kmm tests/CN=issued")
    for name in ("self", "issued"):
        openssl(f"x509 -in {name}.pem -outform DER -out {name}.der")


# Valid from 2020 for a hundred years. The CA has an attribute of each encoding, and two in one part of its name.
_OPENSSL = """\
[req]
prompt = no
string_mask = default
utf8 = yes
distinguished_name = odd
[odd]
C = DE
O = Prüfstelle
OU = tests
+UID = kmm
CN = € authority
emailAddress = nobody@example.com
[extensions]
subjectKeyIdentifier = hash
[ca]
default_ca = authority
[authority]
database = database
serial = serial
new_certs_dir = .
default_md = sha256
default_startdate = 20200101000000Z
default_enddate = 21200101000000Z
unique_subject = no
preserve = yes
email_in_dn = yes
policy = any
[any]
"""


def certify(name: str, authority: str, options: str, serial: str, subject: str = "") -> None:
    (GOLDEN / "serial").write_text(serial)
    password, config = "-passin env:PASSPHRASE", "-config openssl.cnf"
    subjected = ["-subj", subject] if subject else []
    openssl(f"req -new {config} {password} -key {name}.key.pem -out request", *subjected)
    openssl(
        f"ca -batch -notext -preserveDN {config} {password} {options} -keyfile {authority}.key.pem -in request "
        f"-out {name}.pem"
    )


def openssl(arguments: str, *more: str) -> None:
    subprocess.run(
        ["openssl", *arguments.split(), *more],
        cwd=GOLDEN,
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "PASSPHRASE": PASSPHRASE.decode()},
    )


if __name__ == "__main__":
    main()
