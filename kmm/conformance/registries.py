"""Registries in this process, one for each way in which they want to be asked, and what comes of asking them."""

from __future__ import annotations

import base64
import itertools
import logging
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from types import TracebackType
from typing import Any, Self

from kmm.conformance.contract import told
from kmm.contract import Access, Credential, Forbidden, ImageInfo, Registry, Tls, Unavailable
from kmm.embedded.registry import Registry as Embedded

USER, PASSWORD = "robot", "robots-0wn-secret"
WRONG, TOKEN = "an0ther-secret", "a-bearers-t0ken"
SECRETS = (
    PASSWORD,
    WRONG,
    TOKEN,
    *(base64.b64encode(f"{USER}:{each}".encode()).decode() for each in (PASSWORD, WRONG)),
)
"""What must be in no text."""

DEADLINE_S = 20.0
_MODES: Mapping[str, Mapping[str, Any]] = {
    "plain HTTP": {"auth": "none", "tls": False},
    "HTTP with Basic": {"auth": "basic", "tls": False},
    "HTTP with Bearer tokens": {"auth": "bearer", "tls": False},
    "TLS": {"auth": "none", "tls": True},
    "TLS with Basic": {"auth": "basic", "tls": True},
    "TLS with Bearer tokens": {"auth": "bearer", "tls": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of a question. `error`: what was raised, in its absence `info` is the answer; `took_s`: seconds."""

    info: ImageInfo | None = None
    error: BaseException | None = None
    took_s: float = 0.0

    @property
    def what(self) -> str:
        """The answer in a word or two: present, absent, refused, unavailable, or what was raised instead."""
        match self.error:
            case None:
                return (
                    "absent" if self.info is None else f"present as {getattr(self.info, 'digest', self.info)!s:.80}"
                )
            case Forbidden():
                return "refused"
            case Unavailable():
                return "unavailable"
            case error:
                return f"raised {told(error)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A registry that runs. `guarded`: it wants credentials."""

    mode: str
    registry: Embedded
    guarded: bool
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def repository(self) -> str:
        """Return the name of a repository that nobody has used."""
        return f"conformance/n{next(self._numbers)}"

    def image(self, name: str) -> str:
        """Return an image's whole reference."""
        return f"{self.registry.host}/{name}"

    def access(self, *passwords: str) -> Access:
        """Return how it is asked with these passwords, in turn: with the right one, where none is given."""
        given = [Credential(username=USER, password=each) for each in passwords or (PASSWORD,)]
        return self.access_with(*given) if self.guarded else self.access_with()

    def access_with(self, *credentials: Credential) -> Access:
        """Return how it is asked with these credentials."""
        pem = self.registry.ca_pem
        return Access(credentials=credentials, tls=Tls(insecure=not pem), ca_pem=pem or None)


class Registries:
    """All of them: a context manager. Each test takes repositories of its own."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.running: Sequence[Running] = ()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.running = [
                Running(
                    mode=mode,
                    registry=stack.enter_context(Embedded(users={USER: PASSWORD}, **how)),
                    guarded=how["auth"] != "none",
                )
                for mode, how in _MODES.items()
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def guarded(self) -> Sequence[Running]:
        """Those that want credentials."""
        return [each for each in self.running if each.guarded]


def ask(
    registry: Registry,
    image: str,
    access: Access,
    deadline_s: float = DEADLINE_S,
    files: Sequence[str] = (),
    annotations: bool = False,
) -> Asked:
    """Ask a plugin, whatever it raises."""
    started_s = time.monotonic()
    info, failed = None, None
    try:
        info = registry.inspect(image, access, deadline_s, files, annotations)
    except Exception as error:
        failed = error
    return Asked(info=info, error=failed, took_s=time.monotonic() - started_s)


def ask_aside(
    registry: Registry, image: str, access: Access, deadline_s: float, patience_s: float, **more: Any
) -> float:
    """Ask in a thread of its own, which is not waited for longer than `patience_s`; return how long it took."""
    done: list[float] = []
    over = threading.Event()

    def work() -> None:
        done.append(ask(registry, image, access, deadline_s, **more).took_s)
        over.set()

    threading.Thread(target=work, daemon=True, name="conformance-ask").start()
    over.wait(patience_s)
    return done[0] if done else float("inf")


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Collect what is logged, printed and warned of."""
    heard: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(self.format(record))  # with what is told of an exception

    root, handler, printed = logging.getLogger(), Handler(), StringIO()
    level = root.level
    with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            yield heard
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
        heard.extend([printed.getvalue(), *(str(each.message) for each in warned)])


def texts(asked: Asked) -> Iterator[str]:
    """Yield all texts of an answer: of an error, those of what caused it too."""
    yield repr(asked.info)
    error, seen = asked.error, 0
    while error is not None and seen < 10:  # noqa: PLR2004 -- it may go round
        yield f"{error!s} {error!r} {error.args!r} {getattr(error, '__notes__', '')!r}"
        error, seen = error.__cause__ or (None if error.__suppress_context__ else error.__context__), seen + 1
