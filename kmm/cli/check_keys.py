"""`kmm check-keys`: whether the key and the certificate in Secrets are what modules can be signed with."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from kmm.admission import printable
from kmm.api.schema import at
from kmm.cli.material import PASSPHRASE_LONGEST, passphrase_in
from kmm.errors import ConfigError, KmmError
from kmm.job import is_name
from kmm.runtime.advice import advice
from kmm.runtime.kinds import SECRET, path_of
from kmm.runtime.transport import NotFound, Transport, connect
from kmm.signing import certificate, key, name
from kmm.signing.certificate import Certificate
from kmm.signing.errors import PassphraseError, SigningError
from kmm.signing.key import PrivateKey
from kmm.signing.signer import Signer

CERT, KEY, PASSPHRASE = "cert", "key", "passphrase"
_MOST = 2  # a Module names one for each of certSecret and keySecret
_SHOWN = 10
_WIDTH = 14  # of the first column
_Data: TypeAlias = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Line:
    """What is printed. `is_wrong`: it is why nothing can be signed."""

    text: str
    is_wrong: bool = False


def check_keys(secrets: Sequence[str], namespace: str, kubeconfig: Path | None) -> int:
    """Print what is in one Secret or two, and what is wrong with it. Return 1 where it cannot sign, else 0.

    No more of a private key or a passphrase is printed than whether it is right.

    Raises:
        ConfigError: the command is wrong, or the Secrets cannot be read.
    """
    named = tuple(dict.fromkeys(secrets))
    if len(named) > _MOST:
        raise ConfigError(f"these are {len(named)} Secrets: a certificate and a key are in one, or in two")
    for each in (namespace, *named):
        if not is_name(each):
            raise ConfigError(f'"{each[:80]}" can be no name in Kubernetes')
    transport = connect(kubeconfig)
    lines = list(_checked({each: _read(transport, namespace, each) for each in named}, namespace))
    print("\n".join(printable(each.text) for each in lines))
    return int(any(each.is_wrong for each in lines))


def _read(transport: Transport, namespace: str, secret: str) -> _Data | None:
    """Return what is under each key of a Secret, or None where there is no such Secret. Raises ConfigError."""
    try:
        data = at(transport.ask("GET", path_of(SECRET, namespace, secret)).read(), "data")
        found = data if isinstance(data, Mapping) else {}
        return {str(each): base64.b64decode(str(value)) for each, value in found.items()}
    except NotFound:
        return None
    except ValueError:
        raise ConfigError(f"{transport.host} answers for the Secret {secret} with what is no base64") from None
    except KmmError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(advice(error, transport.host)) from None


def _checked(secrets: Mapping[str, _Data | None], namespace: str) -> Iterator[_Line]:
    """Yield what there is to say."""
    found = {each: data for each, data in secrets.items() if data is not None}
    for each in (each for each in secrets if each not in found):
        yield _Line(f"there is no Secret {each} in the namespace {namespace}", is_wrong=True)
    if len(found) < len(secrets):
        for each, data in found.items():
            yield _Line(f"Secret {each} has {_listed(data)}")
        return
    certified, said = _certificate(found)
    yield from said
    private, how = _private_key(found)
    yield how
    if certified is None or private is None:
        return
    try:
        Signer(certified, private)
    except SigningError as error:
        yield _row("both", str(error), is_wrong=True)
    else:
        yield _row("both", "are of one pair: what the key signs verifies with the certificate")
    yield from (_Line(f"warning: {each}") for each in certified.warnings(datetime.now(UTC)))


def _certificate(found: Mapping[str, _Data]) -> tuple[Certificate | None, list[_Line]]:
    title = "certificate"
    holder, unclear = _holder(CERT, title, found)
    if unclear:
        return None, [unclear]
    where = f"Secret {holder}, key {CERT}"
    try:
        certified = certificate.load(found[holder][CERT])
    except SigningError as error:
        return None, [_row(title, f"{where}: {error}", is_wrong=True)]
    issuer = name.shown(certified.issuer)
    return certified, [
        _row(title, where),
        _row("  subject", name.shown(certified.subject)),
        _row("  issuer", "itself" if certified.issuer == certified.subject else issuer),
        _row("  serial", name.serial(certified.serial)),
        _row("  valid", f"{certified.not_before:%Y-%m-%d} to {certified.not_after:%Y-%m-%d}"),
        _row("  signs with", f"{certified.family.upper()}, {certified.public_key.key_size} bits"),
        _row("  SHA-256", certified.fingerprint),
        # As mokutil has it.
        _row("  SHA-1", hashlib.sha1(certified.der, usedforsecurity=False).digest().hex(":").upper()),
    ]


def _private_key(found: Mapping[str, _Data]) -> tuple[PrivateKey | None, _Line]:
    title = "private key"
    holder, unclear = _holder(KEY, title, found)
    if unclear:
        return None, unclear
    where, data = f"Secret {holder}, key {KEY}", found[holder]
    asked = False

    def passphrase() -> bytes:
        nonlocal asked
        asked = True
        if PASSPHRASE not in data:
            elsewhere = next((each for each, other in found.items() if PASSPHRASE in other), "")
            hint = f": that of the Secret {elsewhere} has to be there" if elsewhere else ""
            raise PassphraseError(f"is encrypted, and beside it is no key {PASSPHRASE}{hint}")
        if len(data[PASSPHRASE]) > PASSPHRASE_LONGEST:
            raise PassphraseError(f"is encrypted, and its passphrase is larger than {PASSPHRASE_LONGEST:,} bytes")
        return passphrase_in(data[PASSPHRASE])

    try:
        private = key.load(data[KEY], passphrase)
    except SigningError as error:
        return None, _row(title, f"{where}: {error}", is_wrong=True)
    needless = f"; the key {PASSPHRASE} is not needed" if PASSPHRASE in data else ""
    how = f"encrypted, and the key {PASSPHRASE} is right" if asked else f"not encrypted{needless}"
    return private, _row(title, f"{where}, {how}")


def _holder(part: str, title: str, found: Mapping[str, _Data]) -> tuple[str, _Line | None]:
    """Return the Secret that has a key; what is wrong where none has it, or both."""
    holders = [each for each, data in found.items() if part in data]
    if len(holders) == 1:
        return holders[0], None
    if holders:
        said = f"the Secrets {' and '.join(holders)} both have the key {part}: check each on its own"
    else:
        held = "; ".join(f"Secret {each} has {_listed(data)}" for each, data in found.items())
        said = f"there is no key {part}: {held}"
    return "", _row(title, said, is_wrong=True)


def _listed(data: _Data) -> str:
    """Return the names of a Secret's keys."""
    more = f" and {len(data) - _SHOWN} more" if len(data) > _SHOWN else ""
    return f"the key{'s' * (len(data) > 1)} {', '.join(sorted(data)[:_SHOWN])}{more}" if data else "no keys"


def _row(title: str, said: str, *, is_wrong: bool = False) -> _Line:
    return _Line(f"{title:{_WIDTH}}{said}", is_wrong)
