"""A key in a token, by PKCS#11: logged in to once, for as many signatures as are wanted. Only digests reach it."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass, TokenFlag
from pkcs11 import exceptions as said

from kmm.signing.digest import digest_info
from kmm.signing.errors import KeyFileError, RefusedError
from kmm.signing.key import AskPassphrase
from kmm.signing.source import REFUSED_CODE, Held
from kmm_hsm.uri import TokenKey, UriError, parse

PATIENCE_S = 120.0
"""How long a token may take for one thing: none has an end of its own."""

_NAMED_MOST = 10
_NAMED_LONGEST = 64
_PR_SET_DUMPABLE = 4
_R = TypeVar("_R")


class TokenError(KeyFileError):
    """A token that is not there, does not answer, or does not have what is wanted."""


@contextmanager
def opened(uri: str, ask_pin: AskPassphrase) -> Iterator[Held]:
    """Have the key that a `pkcs11:` URI names, in a `with` block. The PIN is asked for and tried once, if at all.

    Raises RefusedError where the token refuses it, or would be locked by one that is wrong; TokenError for the rest.
    """
    try:
        wanted = parse(uri)
    except UriError as error:
        raise TokenError(str(error)) from None
    token = _token(wanted)
    with _session(token, ask_pin) as session:
        key = _key(session, wanted)

        def sign(digest: bytes, hash_name: str) -> bytes:
            what = digest_info(digest, hash_name)
            made: bytes = _answer(lambda: key.sign(what, mechanism=Mechanism.RSA_PKCS))
            return made

        yield Held(sign_digest=sign, certificate=lambda: _certificate(session, key))


def _token(wanted: TokenKey) -> Any:
    """Return the token. Nothing is logged in to for that."""
    if not Path(wanted.module).is_file():
        raise TokenError(
            f"there is no PKCS#11 library {wanted.module}: the token's own belongs into the image that signs"
        )
    try:
        library = _watched(lambda: pkcs11.lib(wanted.module))
        slots = _watched(lambda: library.get_slots(token_present=True))
    except said.PKCS11Error as error:
        why = f"{type(error).__name__}{_detail(error)}"
        raise TokenError(f"{wanted.module} cannot be used as a PKCS#11 library: {why}") from None
    present: list[Any] = []
    for slot in slots:
        with suppress(said.PKCS11Error, UnicodeDecodeError):  # a slot whose token has gone, or is none that is known
            present.append(_watched(slot.get_token))
    present = [each for each in present if TokenFlag.TOKEN_INITIALIZED in each.flags]
    found = [each for each in present if _fits(each, wanted)]
    what = _shown(wanted.token or wanted.serial)
    if not found:
        there = _named(f"{each.label} ({_serial(each)})" for each in present)
        raise TokenError(
            f"there is no token {what}: " + (f"those present are {there}" if there else "none is present")
        )
    if len(found) > 1:
        serials = _named(_serial(each) for each in found)
        raise TokenError(f"several tokens are {what}: name one by serial=, of {serials}")
    return found[0]


def _fits(token: Any, wanted: TokenKey) -> bool:
    return (not wanted.token or token.label == wanted.token) and (
        not wanted.serial or _serial(token) == wanted.serial
    )


def _serial(token: Any) -> str:
    return bytes(token.serial).decode(errors="replace").strip("\0 ")


@contextmanager
def _session(token: Any, ask_pin: AskPassphrase) -> Iterator[Any]:
    """Have the one session of all this, logged in."""
    # A token counts wrong PINs, and is locked by the last: whoever might be that last one does not try.
    where = f"the token {_shown(token.label)}"
    if TokenFlag.USER_PIN_LOCKED in token.flags:
        raise RefusedError(f"the PIN of {where} is locked: whoever administers the token unlocks it")
    if TokenFlag.USER_PIN_FINAL_TRY in token.flags:
        raise RefusedError(
            f"{where} is locked by one more wrong PIN, so that none is tried: log in with the right one by hand"
        )
    session = _answer(token.open)
    if TokenFlag.LOGIN_REQUIRED in token.flags:
        # What fails until here, before any PIN, may be tried again; a token may have this one session alone.
        _close(session)
        session = _logged_in(token, ask_pin, where)
    try:
        yield session
    finally:
        _close(session)


def _logged_in(token: Any, ask_pin: AskPassphrase, where: str) -> Any:
    """Return a session. Raises RefusedError wherever the token may have tried the PIN."""
    _hide_memory()
    pin = _pin(ask_pin)  # which nobody has any more once this returns
    try:
        return _watched(lambda: token.open(user_pin=pin), at_login=True)
    except (said.PinIncorrect, said.PinInvalid, said.PinLenRange):
        problem = f"{where} refuses the PIN: it is wrong, and is not tried again"
    except said.PinLocked:
        problem = f"the PIN of {where} is locked: whoever administers the token unlocks it"
    except said.PinExpired:
        problem = f"the PIN of {where} has expired: set a new one"
    except said.UserPinNotInitialized:
        raise TokenError(f"{where} has no PIN for its user yet") from None
    except _BEFORE_A_PIN as error:
        raise TokenError(_why(error, pin)) from None
    except said.PKCS11Error as error:
        problem = f"{where} {_UNKNOWN}: {_why(error, pin)}"
    raise RefusedError(problem)


def _close(session: Any) -> None:
    with suppress(said.PKCS11Error):  # it may have gone
        _watched(session.close)


def _hide_memory() -> None:
    """Let no core dump of this process be written: it is to hold a PIN. Linux alone has this."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _pin(ask: AskPassphrase) -> str:
    try:
        pin = ask().decode()
    except UnicodeDecodeError:
        pin = ""
    if not pin:
        # An empty one would be tried, and counted.
        raise TokenError("the PIN is empty, or no text: it was not tried")
    return pin


def _key(session: Any, wanted: TokenKey) -> Any:
    template: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
    if wanted.label:
        template[Attribute.LABEL] = wanted.label
    if wanted.id:
        template[Attribute.ID] = wanted.id
    found = _objects(session, template)
    what = _shown(wanted.label or wanted.id.hex())
    if not found:
        there = _named(_of_key(each) for each in _objects(session, {Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
        raise TokenError(f"has no private key {what}: " + (f"there are {there}" if there else "it has none at all"))
    if len(found) > 1:
        raise TokenError(f"several private keys are {what}: name one by its id, of {_named(map(_of_key, found))}")
    key = found[0]
    if _attribute(key, Attribute.KEY_TYPE) != KeyType.RSA:
        raise TokenError(f"the key {what} is no RSA key: kernels take no signature of it, or many do not")
    if _attribute(key, Attribute.SIGN) is False:
        raise TokenError(f"the key {what} may not sign: its CKA_SIGN is false")
    if _attribute(key, Attribute.ALWAYS_AUTHENTICATE) is True:
        raise TokenError(
            f"the key {what} asks for its PIN at each signature (CKA_ALWAYS_AUTHENTICATE): make one without"
        )
    return key


def _certificate(session: Any, key: Any) -> bytes:
    """Return the certificate that is kept beside a key, by its id or its label; empty where that is not one."""
    for attribute in (Attribute.ID, Attribute.LABEL):
        if value := _attribute(key, attribute):
            found = _objects(session, {Attribute.CLASS: ObjectClass.CERTIFICATE, attribute: value})
            if len(found) == 1:
                return bytes(_attribute(found[0], Attribute.VALUE) or b"")
    return b""


def _objects(session: Any, template: Mapping[Attribute, Any]) -> list[Any]:
    return _answer(lambda: list(session.get_objects(dict(template))))


def _attribute(of: Any, attribute: Attribute) -> Any:
    """Return an attribute of an object, or None where it has none that can be read. Raises TokenError."""
    try:
        return _watched(lambda: of[attribute])
    except (said.AttributeTypeInvalid, said.AttributeSensitive, KeyError, NotImplementedError, ValueError):
        return None
    except said.PKCS11Error as error:
        raise TokenError(_why(error)) from None


def _of_key(key: Any) -> str:
    return (
        f"{_attribute(key, Attribute.LABEL) or ''} (id {bytes(_attribute(key, Attribute.ID) or b'').hex() or 'none'})"
    )


# What a token answers to logging in without having looked at the PIN.
_BEFORE_A_PIN = (
    said.DeviceMemory,
    said.DeviceRemoved,
    said.HostMemory,
    said.SessionCount,
    said.SlotIDInvalid,
    said.TokenNotPresent,
    said.UserAlreadyLoggedIn,
)
_UNKNOWN = "may have tried the PIN, or not, so that it is not tried again"
_WHY: Mapping[type[said.PKCS11Error], str] = {
    said.DeviceRemoved: "the token has been removed",
    said.TokenNotPresent: "the token has been removed",
    said.SlotIDInvalid: "the token has been removed",
    said.SessionHandleInvalid: "the token has ended the session: has it been removed?",
    said.SessionClosed: "the token has ended the session: has it been removed?",
    said.SessionCount: "the token is busy: it has no session left",
    said.DeviceMemory: "the token is busy: it has no memory left",
    said.DeviceError: "the token, or the way to it, fails",
    said.FunctionRejected: "the token's owner has not agreed to it",
    said.MechanismInvalid: "the token does not sign with CKM_RSA_PKCS",
}


def _answer(ask: Callable[[], _R]) -> _R:
    """Ask a token something. Raises TokenError."""
    try:
        return _watched(ask)
    except said.PKCS11Error as error:
        raise TokenError(_why(error)) from None


def _why(error: said.PKCS11Error, pin: str = "") -> str:
    """Return why a token did not do something, in words that do not hold the PIN."""
    why = next((text for kind, text in _WHY.items() if isinstance(error, kind)), "the token cannot do it")
    return f"{why} ({type(error).__name__}{_detail(error, pin)})"


def _watched(ask: Callable[[], _R], *, at_login: bool = False) -> _R:
    timer = threading.Timer(PATIENCE_S, _give_up, [at_login])
    timer.daemon = True
    timer.start()
    try:
        return ask()
    finally:
        timer.cancel()


def _detail(error: Exception, pin: str = "") -> str:
    text = str(error)
    text = (text.replace(pin, "***") if pin else text)[:200]
    return f": {text}" if text else ""


def _give_up(at_login: bool) -> None:
    """End the process: whoever waits in a library of C cannot be told anything."""
    more = f": it {_UNKNOWN}" if at_login else ""
    sys.stderr.write(f"kmm: the token does not answer within {PATIENCE_S:.0f} s{more}\n")
    sys.stderr.flush()
    os._exit(REFUSED_CODE if at_login else 1)


def _shown(name: str) -> str:
    return f'"{name[:_NAMED_LONGEST]}"'


def _named(names: Iterable[str]) -> str:
    """Return what is there, bounded; empty where nothing is."""
    every = sorted(names)
    more = f" and {len(every) - _NAMED_MOST} more" if len(every) > _NAMED_MOST else ""
    return ", ".join(each[: 2 * _NAMED_LONGEST] for each in every[:_NAMED_MOST]) + more
