"""`kmm verify-module`: who signed kernel modules, with what hash, and does it verify."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kmm.admission import printable
from kmm.cli.material import read_certificate
from kmm.signing.certificate import Certificate
from kmm.signing.errors import ModuleError
from kmm.signing.file import opened
from kmm.signing.verification import Verification, verify, who


def verify_module(files: Sequence[Path], certificate_file: Path | None) -> int:
    """Print what the signatures of `files` say, and with a certificate whether they verify.

    Return 1 where one does not, or there is none, else 0. Raises ConfigError for a certificate that cannot be used.
    """
    certificate = read_certificate(certificate_file) if certificate_file else None
    failed = False
    for each in files:
        try:
            with opened(each) as stream:
                found = verify(stream, certificate)
        except (OSError, ModuleError) as error:
            failed = True
            said = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
        else:
            failed |= found.verified is False
            said = _said(found, certificate)
        print(printable(f"{each}: {said}"))
    return int(failed)


def _said(found: Verification, certificate: Certificate | None) -> str:
    said = [found.problem] if found.problem else []
    if found.signer:
        by = str(certificate) if found.verified else who(found.signer)
        verified = {True: "verified: ", None: "not verified, as there is no --cert: "}.get(found.verified, "")
        said.append(f"{verified}signed with {found.signer.hash_name} by {by}")
    if found.below:
        said.append(f"{found.below} older below, which kernels take for a part of the module")
    return "; ".join(said)
