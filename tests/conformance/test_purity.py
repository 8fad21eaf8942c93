"""What a renderer asks for beside its request is noticed, whatever way it takes; what is its own is not."""

from __future__ import annotations

import pytest

from kmm.conformance.child import answer

PLUGIN = """
import functools
{head}
from kmm.contract import Progress, State
from kmm.job import JOB, job

class Builder:
    name = "b"
    owns = (JOB,)
    requires = ()

    def render(self, request):
{body}
        return [job({{}}, 1)]

    def observe(self, objects, pods):
        return Progress(state=State.PENDING)

def kmm_builders(settings):
    return [Builder()]
"""


def asked(folder, monkeypatch, head, body):
    package = folder / "watched_plugin"
    package.mkdir()
    (package / "data.txt").write_text("its own")
    (package / "__init__.py").write_text(PLUGIN.format(head=head, body=f"        {body}"))
    (folder / "library.py").write_text("import os, random, time\nBEGAN, HOME = time.time(), os.environ.get('HOME')\n")
    monkeypatch.syspath_prepend(str(folder))
    question = {"value": "watched_plugin", "field": "builders", "offer": "b", "options": {}, "params": {}}
    found = answer("purity", {**question, "clockS": 1.5, "seed": 1}, {})
    assert found["said"][0][0] == "the least"
    return [each.partition(" (")[0] for each in found["asked"]]


@pytest.mark.parametrize(
    ("head", "body", "notices"),
    [
        ("import time", "time.time()", "time.time"),
        ("from time import monotonic_ns", "monotonic_ns()", "time.monotonic_ns"),
        ("import time", "time.strftime('%Y')", "time.strftime"),
        ("import time", "time.localtime()", "time.localtime"),
        ("import time", "time.asctime()", "time.asctime"),
        ("import time", "time.sleep(9999)", "time.sleep"),
        ("import datetime", "datetime.datetime.now(datetime.UTC)", "datetime.datetime.now"),
        ("from datetime import date", "date.today()", "datetime.date.today"),
        ("import random", "random.choice([1, 2])", "random.choice"),
        ("import random", "random.Random()", "random.Random without a seed"),
        ("import secrets", "secrets.token_hex(4)", "os.urandom"),
        ("import uuid", "uuid.uuid4()", "os.urandom"),
        ("import uuid", "uuid.uuid1()", "uuid.uuid1"),
        ("import os", "os.environ.get('HOME')", "os.environ HOME"),
        ("from os import getenv", "getenv('HOME')", "os.environ HOME"),
        ("from os import environ", "list(environ)", "os.environ"),
        ("import os", "os.getcwd()", "os.getcwd"),
        ("import os", "os.path.exists('/etc')", "os.stat"),
        ("from pathlib import Path", "Path('/etc/hostname').exists()", "os.stat"),
        ("from pathlib import Path", "functools.partial(open, '/dev/null')()", "open /dev/null"),
        ("from pathlib import Path", "Path(__file__).with_name('x').write_text('')", "open"),
        ("import os", "os.listdir('/')", "os.listdir /"),
        ("import socket", "socket.gethostname()", "socket.gethostname"),
        ("import subprocess", "subprocess.run(['true'])", "subprocess.Popen"),
        ("import threading", "threading.Thread(target=print).start()", "a thread is started"),
        ("import _thread", "_thread.start_new_thread(print, ())", "a thread is started"),
        ("import posix", "posix.environ.get(b'HOME')", "os.environ b'HOME'"),
        ("import posix", "posix.urandom(3)", "os.urandom"),
        ("from posix import stat", "stat('/etc')", "os.stat"),
        ("import os", "os.getgid()", "os.getgid"),
        ("import os", "os.getloadavg()", "os.getloadavg"),
        ("import platform", "platform.node()", "platform.uname"),
        ("from pathlib import Path", "Path(__file__, '../../library.py').read_text()", "open"),
        ("import time\nBEGAN = time.time()", "pass", "time.time"),
        ("import os\nHOME = os.environ['HOME']", "pass", "os.environ HOME"),
    ],
)
def test_what_it_asks_for_is_noticed(tmp_path, monkeypatch, head, body, notices):
    body = f"exec({f'try: {body}' + chr(10) + 'except (OSError, RuntimeError): pass'!r}, globals())"
    found = asked(tmp_path, monkeypatch, head, body)
    assert any(each.startswith(notices) for each in found), found


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("import library", "library.BEGAN"),
        ("", "import library"),
        ("import prometheus_client\nMADE = prometheus_client.Counter('acme_made', 'Made')", "MADE.inc()"),
        ("import random", "random.Random(7).random()"),
        ("import time", "time.strftime('%Y', (2020, 1, 1, 0, 0, 0, 0, 0, 0))"),
        ("import datetime", "datetime.datetime(2020, 1, 1).isoformat()"),
        ("from importlib.resources import files", "files(__name__).joinpath('data.txt').read_text()"),
        ("from pathlib import Path", "Path(__file__).with_name('data.txt').read_text()"),
        ("import uuid", "uuid.uuid5(uuid.NAMESPACE_DNS, request.kernel)"),
        ("import collections", "collections.namedtuple('N', 'a b')"),
        ("import hashlib, re, json, dataclasses", "hashlib.sha256(b'').hexdigest(); re.compile('a'); json.dumps({})"),
    ],
)
def test_what_is_its_own_and_what_is_computed_is_not(tmp_path, monkeypatch, head, body):
    assert asked(tmp_path, monkeypatch, head, body) == []
