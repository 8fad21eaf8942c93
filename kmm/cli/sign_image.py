"""`kmm sign-image`: signs the kernel modules inside an image, and pushes one layer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kmm.admission import printable
from kmm.cli.material import Pair, opened_signer, read_limited
from kmm.contract import Access, ContractError, Tls
from kmm.errors import ConfigError
from kmm.image_signing import image, modules
from kmm.image_signing.errors import ImageError
from kmm.image_signing.image import Named, Outcome
from kmm.oci import credentials, reference
from kmm.oci.address import Addresses, parse_networks
from kmm.oci.client import Client
from kmm.oci.credentials import CredentialsError, Entry
from kmm.oci.reference import Reference
from kmm.oci.session import Session
from kmm.signing.errors import RefusedError, SigningError
from kmm.signing.signer import Signer
from kmm.signing.source import REFUSED_CODE

# Whoever runs the command may run a registry beside it; a cloud's credentials are nobody's image.
_ADDRESSES = Addresses(allowed=parse_networks(["127.0.0.0/8", "::1"]))
_CONFIGS = ("config.json", ".dockerconfigjson")
_CFG = ".dockercfg"
_AUTHORITIES_MOST = 4 * 1024 * 1024
_SUFFIXES = (".pem", ".crt", ".cer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """How registries are reached. `unsigned_tls`: that of the image that is read.

    `docker_configs`, `authorities`: files, or folders of them.
    """

    tls: Tls
    unsigned_tls: Tls
    docker_configs: Sequence[Path]
    authorities: Sequence[Path]
    deadline_s: float


def sign_image(
    unsigned: str,
    signed: str | None,
    files: Sequence[str],
    registries: Registries,
    pair: Pair,
    warnings_file: Path | None = None,
    limit: int = modules.TOGETHER_MOST,
) -> int:
    """Sign the modules `files` (absolute paths and patterns) of an image, and push it as `signed`, if that is given.

    `warnings_file`: where to write, before anything is pushed, what kernels may not take, and what of an image is
    left unsigned; and in place of that, why it could not be done, so that nobody looks for it in a log, in which
    a token's library may write anything.
    `limit`: bytes of all modules together, unpacked.
    Return 1 where that could not be done, REFUSED_CODE where a PIN is not to be tried again, else 0. Raises
    ConfigError for wrong use, and where key and certificate cannot be used.
    """
    source, target = _parsed(unsigned), _parsed(signed) if signed else None
    if target and target.digest:
        raise ConfigError(f"{target}: the signed image is pushed under a tag, and has no digest before")
    for each in files:
        if not each.startswith("/"):
            raise ConfigError(f'file "{each}" must be an absolute path, such as /opt/lib/modules/6.1.0/acme.ko')
    entries = tuple(_entries(registries.docker_configs))
    authorities = "".join(_authorities(registries.authorities))
    try:
        with opened_signer(pair) as signer, closing(Session(_ADDRESSES)) as session:

            def named(image: Reference, tls: Tls) -> Named:
                access = Access(credentials=credentials.matching(entries, image), tls=tls, ca_pem=authorities or None)
                client = Client(image.registry, access, session=session, deadline_s=registries.deadline_s)
                return Named(client=client, reference=image)

            def tell(warnings: Sequence[str]) -> None:
                for each in warnings:
                    print(printable(f"kmm: warning: {source}: {each}"), file=sys.stderr)
                if found := [*signer.certificate.warnings(datetime.now(UTC)), *warnings]:
                    _write(warnings_file, "; ".join(found))

            outcome = image.sign(
                named(source, registries.unsigned_tls),
                named(target, registries.tls) if target else None,
                files,
                signer,
                tell,
                limit,
            )
    except (ImageError, SigningError, ContractError, OSError) as error:
        print(printable(f"kmm: {error}"), file=sys.stderr)
        _write(warnings_file, f"kmm: {error}")
        return REFUSED_CODE if isinstance(error, RefusedError) else 1
    except ConfigError as error:
        _write(warnings_file, f"kmm: {error}")
        raise
    for line in _said(outcome, target, signer):
        print(printable(line))
    return 0


def files_of(directory: str, kernel: str | None) -> tuple[str, ...]:
    """Return the patterns of every module of a kernel, of all kernels where none is named."""
    if not directory.startswith("/"):
        raise ConfigError(f'directory "{directory}" must be an absolute path, such as /opt')
    return modules.every(directory.rstrip("/"), kernel)


def docker_configs(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where credentials are for who names no files: where podman and docker keep them."""
    if named := environ.get("REGISTRY_AUTH_FILE"):
        return (Path(named),)
    home = environ.get("HOME", "")
    folder = environ.get("DOCKER_CONFIG") or (home and f"{home}/.docker")
    found = Path(folder, _CONFIGS[0])
    return (found,) if folder and found.exists() else ()


def _write(warnings_file: Path | None, text: str) -> None:
    if warnings_file:
        try:
            warnings_file.write_text(printable(text))
        except OSError as error:  # it can be signed all the same
            print(printable(f"kmm: warning: {warnings_file}: cannot be written: {error.strerror}"), file=sys.stderr)


def _said(outcome: Outcome, target: Reference | None, signer: Signer) -> Iterator[str]:
    if outcome.already:
        yield f"{target}: is signed already by {signer.certificate}: {outcome.digest}"
        return
    for platform, files in outcome.files.items():
        for each in files:
            older = f"; {each.replaced} older signature{'s' * (each.replaced > 1)} taken off" * bool(each.replaced)
            yield (
                f"{platform}{': ' * bool(platform)}{each.path}: signed with {signer.hash_name} by "
                f"{signer.certificate}{older}"
            )
    yield f"{target}: {outcome.digest}" if target else "nothing is pushed"


def _parsed(text: str) -> Reference:
    try:
        return reference.parse(text)
    except reference.ReferenceError as error:
        raise ConfigError(f"image {error}") from None


def _entries(paths: Sequence[Path]) -> Iterator[Entry]:
    for path in paths:
        folder = path.is_dir()
        files = [path / name for name in (*_CONFIGS, _CFG) if (path / name).exists()] if folder else [path]
        for file in files:
            read = credentials.read_cfg if file.name == _CFG else credentials.read_config
            try:
                yield from read(read_limited(file, credentials.SIZE_MOST))
            except CredentialsError as error:
                if not folder:
                    raise ConfigError(f"{file}: {error}") from None
                # A Secret among several, as the kubelet has it: another one may do.
                print(printable(f"kmm: warning: {file}: {error}"), file=sys.stderr)


def _authorities(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        files = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES) if path.is_dir() else [path]
        for file in files:
            yield read_limited(file, _AUTHORITIES_MOST).decode("ascii", "replace") + "\n"
