"""What kernels say of modules, signed or not: the judges of what is signed here."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from e2e.contained import Contained
from e2e.kernel import Kernel, index
from e2e.machine import Machine
from e2e.program_layer import program_layer
from hsm.softhsm import LABEL, PIN, Tokens, softhsm
from signing.golden import KEYS, PASSPHRASE, golden
from signing.made import certificate_pem

from kmm.contract import ModuleRef
from kmm.core import names
from kmm.core.diagnosis import diagnose
from kmm.core.reasons import Reason
from kmm.core.view import Pod
from kmm.signing import certificate, key, module
from kmm.signing.compression import Compression, detect, packed
from kmm.signing.signer import Signer

MODULE = "loop"
"""Debian's module that is signed anew: any kernel takes it that takes the signature."""
NEEDY, NEEDED = "stp", "llc"
USED = "/dev/loop-control"
"""Whoever has it open uses MODULE."""
MODES = {
    "trusting": "true",
    "locked down": "echo integrity >/sys/kernel/security/lockdown",
    "enforcing": "echo 1 >/sys/module/module/parameters/sig_enforce",
}
"""What a kernel that booted without Secure Boot can be made, one after the other, and by which command."""
SECURE_BOOT = "Secure Boot"
BY_EC, WITH_SHA512 = VERIFIED_BY_SOME = "signed by an EC key", "signed with sha512"
UNTRUSTED = {
    SECURE_BOOT: Reason.KEY_REJECTED,
    "trusting": None,
    "locked down": Reason.LOCKED_DOWN,
    "enforcing": Reason.KEY_REJECTED,
}
"""What becomes of a module whose signature is not trusted."""
_CASES = "/cases"
_KMOD = ("depmod", "modprobe")
_SIGN = """\
import os, sys
from kmm.signing.source import opener
with opener("pkcs11")(sys.argv[1], lambda: os.environb[b"PIN"]) as held:
    sys.stdout.buffer.write(held.sign_digest(sys.stdin.buffer.read(), sys.argv[2]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`said`: by modprobe; `reason`: what the operator makes of it, None where the module is loaded."""

    said: str
    reason: Reason | None


def own_signer(name: str, hash_name: str = "sha256") -> Signer:
    """Return one that signs by a golden key."""
    private = key.load(golden(KEYS[name]), lambda: PASSPHRASE)
    return Signer(certificate.load(golden(f"{name}.pem")), private, hash_name=hash_name)


def token_signer(folder: Path) -> Signer:
    """Return one that signs by a key in a token, by kmm-hsm, in processes of its own. Raises softhsm's Missing."""
    tokens = Tokens(softhsm(), folder)
    tokens.make()
    private, certified = new_pair("token")
    tokens.put(private, None, label="modules")
    uri = f"pkcs11:token={quote(LABEL)};object=modules?module-path={tokens.library}"

    def sign_digest(digest: bytes, hash_name: str) -> bytes:
        command = [sys.executable, "-c", _SIGN, uri, hash_name]
        environment = {**os.environ, **tokens.environment, "PIN": PIN}
        return subprocess.run(command, input=digest, capture_output=True, check=True, env=environment).stdout

    return Signer(certificate.load(certified), sign_digest)


def new_pair(name: str) -> tuple[bytes, bytes]:
    """Return a new key and its certificate, in PEM."""
    made = rsa.generate_private_key(65537, 2048)
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, certificate_pem(made, name=name)


def signed(data: bytes, signer: Signer) -> bytes:
    target = io.BytesIO()
    signer.sign(io.BytesIO(data), target)
    return target.getvalue()


def unsigned(data: bytes) -> bytes:
    target = io.BytesIO()
    module.strip(io.BytesIO(data), target)
    return target.getvalue()


def cases(kernel: Kernel, other: Kernel, trusted: Mapping[str, Signer]) -> dict[str, bytes]:
    """Return MODULE in all the ways in which it may be signed, of which `trusted` are the right ones."""
    theirs = kernel.module(MODULE)
    bare = unsigned(theirs)
    (first, *_) = trusted.values()
    strangers_key, strangers_certificate = new_pair("stranger")
    stranger = Signer(certificate.load(strangers_certificate), key.load(strangers_key))
    ours = signed(theirs, first)
    changed, damaged, cut = (bytearray(ours) for _ in range(3))
    changed[bare.index(b"max_loop")] ^= 1
    damaged[len(ours) - 60] ^= 1  # in the raw signature, which is the last of the CMS
    del cut[len(bare) : len(bare) + 100]
    return {
        "signed by Debian": theirs,
        **{f"signed by {name}": signed(theirs, signer) for name, signer in trusted.items()},
        "signed, and packed": signed(b"".join(packed([bare], Compression.XZ, len(bare))), first),
        "unsigned": bare,
        "signed by a stranger": signed(theirs, stranger),
        "changed after it was signed": bytes(changed),
        "with a damaged signature": bytes(damaged),
        "with half a signature": bytes(cut),
        BY_EC: signed(theirs, own_signer("ec")),
        WITH_SHA512: signed(theirs, own_signer("self", "sha512")),
        "of another kernel, signed": signed(other.module(MODULE), first),
    }


def expected(mode: str, trusted: Iterable[str], verifies: Iterable[str] = ()) -> dict[str, Reason | None]:
    """Return what has to come out: of `cases`, and of whatever else a Court tries.

    `verifies`: the cases among VERIFIED_BY_SOME that the kernel has the means for, and trusts.
    """
    refused = UNTRUSTED[mode]
    # Whose certificates are nowhere are strangers, and strangers' modules are looked at where they are loaded.
    ours = None if mode == SECURE_BOOT else refused
    return {
        "signed by Debian": None,
        **{f"signed by {name}": ours for name in trusted},
        "signed, and packed": ours,
        "unsigned": refused,
        "signed by a stranger": refused,
        "changed after it was signed": refused,
        "with a damaged signature": refused,
        "with half a signature": Reason.KEY_REJECTED,
        **{case: ours if case in verifies else refused for case in VERIFIED_BY_SOME},
        "of another kernel, signed": ours or Reason.WRONG_FORMAT,
        f"whose {NEEDED} is missing": ours or Reason.UNKNOWN_SYMBOL,
        "not in its folder": Reason.FILE_MISSING,
        "without SYS_MODULE": Reason.LOCKED_DOWN,
        "in use": Reason.MODULE_IN_USE,
    }


class Court:
    """A machine, and in it a container with modules as `cases` has them, each below a folder of its own."""

    def __init__(self, machine: Machine, given: Mapping[str, bytes], signer: Signer) -> None:
        self._machine, self.kernel, self._given = machine, machine.kernel, given
        self._folders = {name: f"{_CASES}/{number}" for number, name in enumerate(given)}
        needy = signed(self.kernel.module(NEEDY), signer)
        trees = [(folder, MODULE, given[name]) for name, folder in self._folders.items()]
        tar = _trees([*trees, (f"{_CASES}/needy", NEEDY, needy)], self.kernel.release)
        self._container = Contained(machine, "court", [kmod_layer(), tar])

    def verdicts(self) -> Iterator[tuple[str, Verdict]]:
        """Try everything, one after the other; what is loaded is removed again."""
        for name in self._given:
            yield name, self.loads(name)
            self._remove()
        yield f"whose {NEEDED} is missing", self._verdict("-d", f"{_CASES}/needy", NEEDY)
        yield "not in its folder", self._verdict("-d", f"{_CASES}/needy", MODULE)
        yield "without SYS_MODULE", self._verdict(*self._load("signed by Debian"), but=["sys_module"])
        loaded = self.loads("signed by Debian")
        assert loaded.reason is None, loaded
        self._machine.said("sh", "-c", f"sleep 1000 <{USED} >/dev/null 2>&1 & echo $! >/tmp/user")
        yield "in use", self._verdict("-r", "-d", self._folders["signed by Debian"], MODULE)
        self._machine.said("sh", "-c", "kill $(cat /tmp/user)")
        self._remove()

    def _remove(self) -> None:
        """Remove MODULE where it is loaded, and wait until its devices have gone, too."""
        left = f"[ -e /sys/module/{MODULE} ] || [ -e /sys/class/bdi/7:0 ]"
        self._machine.said("sh", "-c", f"while {left}; do rmmod {MODULE} 2>/dev/null || usleep 100000; done")

    def loads(self, case: str) -> Verdict:
        return self._verdict(*self._load(case))

    def _load(self, case: str) -> tuple[str, ...]:
        return ("-v", "-d", self._folders[case], MODULE)

    def _verdict(self, *arguments: str, but: Iterable[str] = ()) -> Verdict:
        done = self._container.run(["modprobe", *arguments], but=tuple(but))
        loaded = self._machine.run(f"[ -e /sys/module/{arguments[-1]} ]").code == 0
        assert (done.code == 0) == (loaded and "-r" not in arguments), done
        return Verdict(said=done.output.strip(), reason=reason_of(done.output) if done.code else None)


def kmod_layer() -> bytes:
    """Return a layer with the real modprobe: with busybox's, which knows no `-d`, no loader works."""
    program = which("kmod")
    assert program, "need_programs installs it"
    return program_layer(Path(program), _KMOD)


def reason_of(said: str) -> Reason:
    """Return what the operator calls it where a loader's hook ends with these words."""
    pod = Pod(
        name="p",
        uid="u",
        module=ModuleRef(namespace="n", name="m"),
        module_uid="u",
        role=names.LOADER,
        node="n",
        kernel="k",
        waiting_reason="PostStartHookError",
        waiting_message=said,
    )
    found = diagnose(pod)
    assert found is not None
    return found[0]


def _trees(modules: Iterable[tuple[str, str, bytes]], release: str) -> bytes:
    """Return a tar with folders for modprobe's `-d`, a module in each."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for folder, name, data in modules:
            with tempfile.TemporaryDirectory() as temporary:
                place = Path(temporary, "lib/modules", release)
                place.mkdir(parents=True)
                (place / f"{name}.ko{detect(io.BytesIO(data)).value}").write_bytes(data)
                index(Path(temporary), release)
                tar.add(temporary, folder.lstrip("/"))
    return made.getvalue()
