"""What tasks say, without what they must not have said."""

from __future__ import annotations

import base64
import json

import pytest

from kmm.runtime.masking import Masks
from kmm.runtime.transport import Answer, NotFound, Unreachable

KEY = "-----BEGIN PRIVATE KEY-----\nMIIabc+def/ghi=\n-----END PRIVATE KEY-----\n"
CONFIG = {"auths": {"registry.example.com": {"auth": base64.b64encode(b"robot:hunter2-hunter2").decode()}}}


def encoded(**data):
    return {key.replace("_", "."): base64.b64encode(value.encode()).decode() for key, value in data.items()}


class Transport:
    def __init__(self, **secrets):
        self.secrets, self.asked = secrets, 0

    def ask(self, method, path):
        self.asked += 1
        found = self.secrets.get(path.rpartition("/")[2], NotFound(404, "NotFound", "not found"))
        if isinstance(found, Exception):
            raise found
        return Answer(200, json.dumps(found).encode())


@pytest.fixture
def transport():
    return Transport(
        token={"data": encoded(token="s3cret-token\n", short="a")},
        key={"data": encoded(key=KEY)},
        pull={"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": base64.b64encode(
            json.dumps(CONFIG).encode()).decode()}},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nothing to hide", "nothing to hide"),
        ("it said s3cret-token, twice: s3cret-token", "it said ***, twice: ***"),
        (f"as base64: {base64.b64encode(b's3cret-token')[:12].decode()}…", None),
        (f"in base64 {encoded(token=chr(10).join(['s3cret-token', '']))['token']}", "in base64 ***"),
        (f"the whole key:\n{KEY}.", "the whole key:\n***\n."),
        ("a line of it: MIIabc+def/ghi=", "a line of it: ***"),
        ("login robot hunter2-hunter2 failed", "login robot *** failed"),
        (CONFIG["auths"]["registry.example.com"]["auth"], "***"),
        ("a short value is no secret: a", "a short value is no secret: a"),
    ],
)
def test_values_are_masked_in_the_forms_in_which_they_are_quoted(transport, text, masked):
    found = Masks(transport).mask("n", ("token", "key"), ("pull",), text)
    if masked is not None:
        assert found == masked
    for value in ("s3cret-token", "MIIabc+def/ghi=", "hunter2-hunter2"):
        assert value not in found


def test_a_text_is_masked_once(transport):
    masks = Masks(transport)
    for _ in range(3):
        assert masks.mask("n", ("token",), (), "s3cret-token") == "***"
    assert transport.asked == 1
    assert masks.mask("n", (), (), "s3cret-token") == "s3cret-token", "its task can read none"


def test_a_text_that_may_quote_what_is_gone_is_withheld(transport):
    masks = Masks(transport)
    said = masks.mask("n", ("token", "gone"), ("gone",), "s3cret-token, and what gone held")
    assert said == 'what it said is not shown: the Secret "gone", which it may quote, is gone'


def test_a_pull_secret_that_is_not_there_withholds_nothing(transport):
    said = Masks(transport).mask("n", ("token",), ("gone", "pull"), "s3cret-token, hunter2-hunter2, no rule")
    assert said == "***, ***, no rule"


def test_what_a_pull_secret_held_stays_masked_when_it_goes(transport):
    masks = Masks(transport)
    for _ in range(2):
        assert masks.mask("n", (), ("pull",), "login robot hunter2-hunter2 failed") == "login robot *** failed"
        transport.secrets.pop("pull", None)


def test_what_cannot_be_masked_now_is_not_shown_now():
    transport = Transport(token=Unreachable("no answer"))
    with pytest.raises(Unreachable):
        Masks(transport).mask("n", ("token",), (), "s3cret-token")
