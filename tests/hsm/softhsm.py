"""A token in files, by SoftHSM: the one that is installed, else Debian's, unpacked into the cache without root.

By hand:

    python tests/hsm/softhsm.py       # only gets the programs, and prints where they are
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

_PACKAGES = ("libsofthsm2", "softhsm2", "libsqlite3-0")
_LIBRARY, _PROGRAM = "usr/lib/softhsm/libsofthsm2.so", "usr/bin/softhsm2-util"
PIN = "the-pin-of-nobody"
SO_PIN = "the-other-pin"
LABEL = "kmm tests"


class Missing(Exception):
    """This machine cannot have SoftHSM, and why."""


@dataclass(frozen=True)
class SoftHsm:
    """`library`: the PKCS#11 module; `util`: softhsm2-util; `environment`: what that one needs to be found by."""

    library: Path
    util: Path
    environment: dict[str, str]


def softhsm() -> SoftHsm:
    """Return where it is: from the package, or from the cache, which is filled first. Raises Missing."""
    if Path("/", _LIBRARY).exists() and Path("/", _PROGRAM).exists():
        return SoftHsm(Path("/", _LIBRARY), Path("/", _PROGRAM), {})
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kmm", "softhsm")
    made = root / "debian"
    if not made.exists():
        if lacking := [each for each in ("apt-get", "dpkg-deb") if not shutil.which(each)]:
            raise Missing(f"no /{_LIBRARY}, and to get Debian's there is no {' and no '.join(lacking)}")
        root.mkdir(parents=True, exist_ok=True)
        with (root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                _unpack(root)
    (sqlite,) = made.glob("usr/lib/*/libsqlite3.so.0")
    return SoftHsm(made / _LIBRARY, made / _PROGRAM, {"LD_LIBRARY_PATH": str(sqlite.parent)})


def _unpack(cache: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        run = _download(temporary)
        if run.returncode:
            # The lists may be old, or there are none yet. Only root may renew them.
            subprocess.run(["apt-get", "--quiet", "update"], check=False, capture_output=True)
            run = _download(temporary)
        if run.returncode:
            raise Missing(f"no /{_LIBRARY}, and apt-get download fails: {run.stderr.strip()}")
        made = Path(temporary, "debian")
        for package in Path(temporary).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, made], check=True)
        # Elsewhere the packages are others, or need other libraries.
        (sqlite,) = made.glob("usr/lib/*/libsqlite3.so.0")
        environment = {**os.environ, "LD_LIBRARY_PATH": str(sqlite.parent)}
        command = [made / _PROGRAM, "--version"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if ran.returncode:
            raise Missing(f"Debian's softhsm2-util does not run here: {ran.stderr.strip()}")
        made.rename(cache / "debian")


def _download(folder: str) -> subprocess.CompletedProcess[str]:
    command = ["apt-get", "--quiet", "download", *_PACKAGES]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)


class Tokens:
    """Tokens in a folder of their own. `environment`: with which a process finds them."""

    def __init__(self, program: SoftHsm, folder: Path) -> None:
        self._program, self._folder = program, folder
        (folder / "tokens").mkdir(parents=True)
        self.configuration = folder / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(self.configuration)}
        self.library = program.library

    def make(self, label: str = LABEL, pin: str = PIN) -> None:
        self._util("--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", SO_PIN)

    def put(
        self, key: bytes, passphrase: bytes | None, *, label: str, key_id: str = "01", token: str = LABEL
    ) -> None:
        """Put a private key of PEM into a token."""
        file = self._folder / "key.pem"
        private = load_pem_private_key(key, passphrase)
        file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        options = ["--token", token, "--pin", PIN, "--label", label, "--id", key_id]
        self._util("--import", str(file), *options)
        file.unlink()

    def put_certificate(self, pem: bytes, *, label: str, key_id: str = "01", token: str = LABEL) -> None:
        """Put a certificate beside a key."""
        der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        made = f"CERTIFICATE_TYPE: pkcs11.CertificateType.X_509, A.LABEL: {label!r}, A.ID: {bytes.fromhex(key_id)!r}"
        self.change(
            f"session.create_object({{A.CLASS: pkcs11.ObjectClass.CERTIFICATE, A.{made}, A.TOKEN: True, "
            f"A.SUBJECT: b'', A.VALUE: {der!r}}})",
            token,
        )

    def change(self, code: str, token: str = LABEL) -> None:
        """Run code with a `session` of a token, in a process of its own: a library knows one folder of tokens."""
        said = f"import pkcs11\nA = pkcs11.Attribute\ntoken = pkcs11.lib({str(self.library)!r}).get_token("
        said += f"token_label={token!r})\nwith token.open(rw=True, user_pin={PIN!r}) as session:\n  {code}\n"
        subprocess.run([sys.executable, "-c", said], check=True, env={**os.environ, **self.environment})

    def _util(self, *arguments: str) -> str:
        command = [self._program.util, "--module", self._program.library, *arguments]
        environment = {**os.environ, **self._program.environment, **self.environment}
        ran = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        assert ran.returncode == 0, (ran.stdout, ran.stderr)
        return ran.stdout


if __name__ == "__main__":
    print(softhsm())
