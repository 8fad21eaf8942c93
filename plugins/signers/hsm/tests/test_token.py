"""What a token may say, by one that is made up: states that no token of files has."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pkcs11
import pytest
from kmm_hsm import token
from pkcs11 import Attribute, KeyType, TokenFlag
from pkcs11 import exceptions as says

from kmm.signing.errors import RefusedError

USUAL = TokenFlag.TOKEN_INITIALIZED | TokenFlag.LOGIN_REQUIRED | TokenFlag.USER_PIN_INITIALIZED


class Key(dict):
    """A key. `raises`: what signing does."""

    def __init__(self, raises=None, **more):
        super().__init__({Attribute.KEY_TYPE: KeyType.RSA, Attribute.SIGN: True, Attribute.LABEL: "k"} | more)
        self.raises = raises

    def sign(self, data, **_):
        if self.raises:
            raise self.raises
        return data


class Token:
    """A token, and the session with it. `opening`: what logging in raises, or without a PIN what `unopened` does.

    `pins`: those that were tried.
    """

    label, serial = "t", b"0001"

    def __init__(self, flags=USUAL, opening=None, keys=(), closing=None, unopened=None):
        self.unopened, self.there = unopened, 0
        self.flags, self.opening, self.keys, self.closing, self.pins = flags, opening, keys, closing, []

    def open(self, user_pin=None):
        if user_pin is not None:
            self.pins.append(user_pin)
        if raised := self.unopened if user_pin is None else self.opening:
            raise raised
        assert not self.there, "a token may have one session alone"
        self.there += 1
        return self

    def get_objects(self, template):
        return list(self.keys) if Attribute.LABEL in template or Attribute.ID in template else []

    def close(self):
        self.there -= 1
        if self.closing:
            raise self.closing


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Sign a digest with a token; return what was signed."""
    library = tmp_path / "library.so"
    library.touch()

    def use(*made, pin=b"1234"):
        def get_token(each):
            if isinstance(each, Exception):
                raise each
            return each() if callable(each) else each

        slots = [SimpleNamespace(get_token=partial(get_token, each)) for each in made]
        monkeypatch.setattr(token, "_hide_memory", lambda: None)  # these tests' own is nobody's secret
        monkeypatch.setattr(pkcs11, "lib", lambda _: SimpleNamespace(get_slots=lambda **_: slots))
        with token.opened(f"pkcs11:token=t;object=k?module-path={library}", lambda: pin) as held:
            return [held.sign_digest(bytes(32), "sha256") for _ in range(3)]

    return use


def test_many_are_signed_in_one_session(use):
    made = Token(keys=[Key()])
    assert len(use(made)) == 3
    assert made.pins == ["1234"]


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (TokenFlag.USER_PIN_LOCKED, 'the PIN of the token "t" is locked'),
        (TokenFlag.USER_PIN_FINAL_TRY, 'the token "t" is locked by one more wrong PIN, so that none is tried'),
    ],
)
def test_a_pin_that_is_locked_or_might_be_the_last_is_not_tried(use, flag, said):
    made = Token(flags=USUAL | flag, keys=[Key()])
    with pytest.raises(RefusedError, match=said):
        use(made)
    assert made.pins == []


def test_a_wrong_pin_long_ago_is_no_reason_not_to_try(use):
    assert use(Token(flags=USUAL | TokenFlag.USER_PIN_COUNT_LOW, keys=[Key()]))


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (says.PinIncorrect(), "refuses the PIN"),
        (says.PinLenRange(), "refuses the PIN"),
        (says.PinInvalid(), "refuses the PIN"),
        (says.PinLocked(), "is locked"),
        (says.PinExpired(), "has expired"),
    ],
)
def test_a_pin_that_is_refused_is_tried_once(use, raised, said):
    made = Token(opening=raised)
    with pytest.raises(RefusedError, match=said) as caught:
        use(made)
    assert made.pins == ["1234"]
    assert "1234" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (says.UserPinNotInitialized(), "has no PIN for its user yet"),
        (says.SessionCount(), r"the token is busy: it has no session left \(SessionCount\)"),
        (says.TokenNotPresent(), "the token has been removed"),
        (says.DeviceRemoved(), "the token has been removed"),
        (says.DeviceMemory(), "the token is busy"),
        (says.HostMemory(), "HostMemory"),
        (says.SlotIDInvalid(), "the token has been removed"),
        (says.UserAlreadyLoggedIn(), "UserAlreadyLoggedIn"),
    ],
)
def test_what_is_no_matter_of_the_pin_may_be_tried_again(use, raised, said):
    with pytest.raises(token.TokenError, match=said) as caught:
        use(Token(opening=raised))
    assert not isinstance(caught.value, RefusedError)


@pytest.mark.parametrize("raised", [says.DeviceError(), says.FunctionFailed(), says.GeneralError("x")])
def test_what_fails_before_a_login_may_be_tried_again(use, raised):
    made = Token(unopened=raised)
    with pytest.raises(token.TokenError, match=type(raised).__name__) as caught:
        use(made)
    assert not isinstance(caught.value, RefusedError)
    assert made.pins == []


@pytest.mark.parametrize(
    "raised", [says.DeviceError(), says.FunctionFailed(), says.GeneralError("x"), says.PKCS11Error("0x80000001")]
)
def test_a_login_whose_outcome_nobody_knows_is_not_tried_again(use, raised):
    made = Token(opening=raised)
    with pytest.raises(RefusedError, match=f"may have tried the PIN, or not, .* .{type(raised).__name__}"):
        use(made)
    assert made.pins == ["1234"]


@pytest.mark.parametrize("raised", [says.GeneralError, says.HostMemory])
def test_the_words_of_a_library_are_told_without_the_pin(use, raised):
    with pytest.raises(token.KeyFileError, match=r": no login with \*\*\*\)") as caught:
        use(Token(opening=raised("no login with 4711-0815")), pin=b"4711-0815")
    assert "4711" not in str(caught.value)
    with pytest.raises(token.KeyFileError) as caught:
        use(Token(opening=raised("x" * 196 + "4711-0815")), pin=b"4711-0815")
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize(
    ("raised", "said"), [(says.DeviceRemoved(), "has been removed"), (says.MechanismInvalid(), "CKM_RSA_PKCS")]
)
def test_a_token_that_goes_while_it_signs_is_told(use, raised, said):
    with pytest.raises(token.TokenError, match=said):
        use(Token(keys=[Key(raises=raised)], closing=says.DeviceRemoved()))


def test_a_token_without_pins_is_asked_for_none(use):
    made = Token(flags=TokenFlag.TOKEN_INITIALIZED, keys=[Key()])
    use(made)
    assert made.pins == []


def test_a_token_that_is_not_initialized_is_none(use):
    with pytest.raises(token.TokenError, match="none is present"):
        use(Token(flags=TokenFlag.LOGIN_REQUIRED))


class Broken(Key):
    """A key that raises something for one attribute."""

    def __init__(self, attribute, raised):
        super().__init__()
        self.attribute, self.raised = attribute, raised

    def __getitem__(self, attribute):
        if attribute is self.attribute:
            raise self.raised
        return super().__getitem__(attribute)


def test_a_certificate_is_looked_for_where_it_is_asked_for_alone(use):
    assert use(Token(keys=[Broken(Attribute.ID, says.DeviceError())]))


@pytest.mark.parametrize("raised", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), ValueError("5 is no KeyType")])
def test_an_attribute_that_nobody_can_read_is_none(use, raised):
    with pytest.raises(token.TokenError, match="is no RSA key"):
        use(Token(keys=[Broken(Attribute.KEY_TYPE, raised)]))


def test_a_token_that_goes_while_a_key_is_read_is_told(use):
    with pytest.raises(token.TokenError, match="has been removed"):
        use(Token(keys=[Broken(Attribute.KEY_TYPE, says.DeviceRemoved())]))


@pytest.mark.parametrize("raised", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), says.TokenNotRecognised()])
def test_a_slot_that_cannot_be_read_is_left_out(use, raised):
    with pytest.raises(token.TokenError, match="none is present"):
        use(raised)


def test_no_answer_of_a_token_is_waited_for_without_an_end(use, monkeypatch):
    waited = []

    def watched(ask, **_):
        waited.append(True)
        try:
            return ask()
        finally:
            waited.pop()

    class Waited(Key):
        def __getitem__(self, attribute):
            assert waited
            return super().__getitem__(attribute)

    class Asked(Token):
        def close(self):
            assert waited
            super().close()

    monkeypatch.setattr(token, "_watched", watched)
    assert use(lambda: Asked(keys=[Waited()]) if waited else None)


def test_a_key_that_asks_each_time_is_refused(use):
    with pytest.raises(token.TokenError, match="asks for its PIN at each signature"):
        use(Token(keys=[Key() | {Attribute.ALWAYS_AUTHENTICATE: True}]))


def test_what_is_named_is_bounded(use):
    there = [Token() for _ in range(99)]
    for number, each in enumerate(there):
        each.label = f"{number:02}" + "x" * 300
    with pytest.raises(token.TokenError, match="and 89 more") as caught:
        use(*there)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        ("", 1, "\n"),
        (", at_login=True", 3, ": it may have tried the PIN, or not, so that it is not tried again\n"),
    ],
)
def test_a_token_that_does_not_answer_ends_the_process(asked, code, said):
    run = "import time; from kmm_hsm import token; token.PATIENCE_S = 0.05; "
    run += f"token._watched(lambda: time.sleep(600){asked})"
    ran = subprocess.run([sys.executable, "-c", run], check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (code, f"kmm: the token does not answer within 0 s{said}")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no prctl")
def test_a_process_that_holds_a_pin_leaves_no_core_dump():
    run = """
import ctypes
from types import SimpleNamespace
from kmm_hsm import token

def dumpable():
    return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)

def ask():
    print(dumpable())
    return b"1234"

print(dumpable())
token._logged_in(SimpleNamespace(open=lambda **_: None), ask, "")
"""
    ran = subprocess.run([sys.executable, "-c", run], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["1", "0"]
