"""What has to be pure, such as a renderer, watched in a process of its own, where all else is replaced.

Before it is imported, clocks, randomness and the environment become others in each run, and who asks for them is
noted; threads do not start; of what Python's auditing tells, only imports are let through, and reading the plugin's
own files. Libraries may do what they like while they are imported, and nothing for the plugin after that, but for
metrics, which note when they were made. What a C extension does by itself is not seen.
"""

from __future__ import annotations

import _thread
import datetime as dt
import importlib
import importlib.util
import inspect
import json
import os
import platform
import posix
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from types import FrameType
from typing import Any

# Events of imports, and of what a program does within itself.
_HARMLESS = frozenset(
    (
        "array.__new__", "builtins.id", "code.__new__", "compile", "exec", "function.__new__", "import",
        "marshal.load", "marshal.loads", "object.__delattr__", "object.__getattr__", "object.__setattr__",
        "pickle.find_class", "sys._getframe", "sys._getframemodulename", "sys.unraisablehook",
    )
)  # fmt: skip
_READING = frozenset(("open", "os.listdir", "os.scandir"))
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
# What differs from a process and a machine to the next, and no event tells of.
_OF_PROCESS = (
    "cpu_count", "get_terminal_size", "getcwd", "getcwdb", "getegid", "geteuid", "getgid", "getgroups", "getloadavg",
    "getlogin", "getpgid", "getpgrp", "getpid", "getppid", "getsid", "getuid", "process_cpu_count",
    "sched_getaffinity", "sysconf", "times", "uname",
)  # fmt: skip
_OF_FILES = ("access", "lstat", "readlink", "stat", "statvfs")
_METRICS = f"{os.sep}prometheus_client{os.sep}"
_NOTED_MOST = 20


class Watch:
    """Notes what a plugin asks for beside its request. `clock_s`, `seed`: what it is told instead."""

    def __init__(self, module: str, clock_s: float, seed: int) -> None:
        self._own = _files(module)
        self._clock_s, self._random = clock_s, random.Random(seed)  # noqa: S311 -- to be the same each time
        self._looking = False
        self.noted: dict[str, None] = {}

    def begin(self) -> None:
        """Replace what is to be replaced."""
        self._replace_clocks()
        self._replace_randomness()
        self._replace_system()
        sys.addaudithook(self._audited)

    def note(self, what: str) -> bool:
        """Note that the plugin asks for something; return whether it is the plugin that does."""
        if self._looking:
            return False
        self._looking = True
        try:
            where = self._asker(sys._getframe(1))  # noqa: SLF001 -- there is no other way
        finally:
            self._looking = False
        if where and len(self.noted) < _NOTED_MOST:
            self.noted[f"{what} ({where})"] = None
        return bool(where)

    def _asker(self, frame: FrameType | None) -> str:
        """Return where in the plugin it was asked for; empty where an import stands between, or nobody of it did."""
        while frame:
            name = frame.f_code.co_filename
            if name.startswith("<frozen importlib") or _METRICS in name:
                return ""
            if self._is_own(name):
                return f"{Path(name).name}:{frame.f_lineno}"
            frame = frame.f_back
        return ""

    def _is_own(self, path: object) -> bool:
        if not isinstance(path, str):
            return False
        whole = os.path.normpath(path)
        return any(whole == own or whole.startswith(f"{own}{os.sep}") for own in self._own)

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _HARMLESS or self._looking:
            return
        if event in _READING and self._is_own(arguments[0]) and not (event == "open" and _writes(arguments)):
            return
        shown = f" {arguments[0]!s:.80}" if arguments and isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if self.note(f"{event}{shown}"):
            raise PermissionError(f"a renderer is pure: {event}")

    def _replace_clocks(self) -> None:
        clock_s = self._clock_s
        for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time"):
            self._replace(time, name, lambda: clock_s)
            self._replace(time, f"{name}_ns", lambda: int(clock_s * 1e9))
        self._replace(time, "clock_gettime", lambda _clock: clock_s)
        self._replace(time, "clock_gettime_ns", lambda _clock: int(clock_s * 1e9))
        self._replace(time, "sleep", lambda _seconds: None)
        strftime, localtime, asctime = time.strftime, time.localtime, time.asctime
        for name in ("localtime", "gmtime", "ctime"):
            given = getattr(time, name)
            self._replace(time, name, lambda of=None, given=given: given(clock_s if of is None else of), always=False)
        self._replace(time, "asctime", lambda of=None: asctime(of or localtime(clock_s)), always=False)
        self._replace(
            time, "strftime", lambda form, of=None: strftime(form, of or localtime(clock_s)), always=False, needs=2
        )
        watch = self

        class Date(dt.date):
            @classmethod
            def today(cls) -> Any:
                watch.note("datetime.date.today")
                return cls.fromtimestamp(clock_s)

        class DateTime(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> Any:
                watch.note("datetime.datetime.now")
                return cls.fromtimestamp(clock_s, tz)

            @classmethod
            def utcnow(cls) -> Any:
                watch.note("datetime.datetime.utcnow")
                return cls.fromtimestamp(clock_s, dt.UTC).replace(tzinfo=None)

            @classmethod
            def today(cls) -> Any:
                return cls.now()

        dt.date, dt.datetime = Date, DateTime  # type: ignore[misc]

    def _replace_randomness(self) -> None:
        drawn = self._random
        self._replace(os, "urandom", drawn.randbytes)
        self._replace(os, "getrandom", lambda size, _flags=0: drawn.randbytes(size))
        random.__dict__["_urandom"] = os.urandom  # what secrets draws from
        for name in random.__all__:
            if callable(getattr(drawn, name, None)):
                self._replace(random, name, getattr(drawn, name))
        watch = self

        class Random(random.Random):
            def seed(self, a: Any = None, version: int = 2) -> None:
                if a is None:
                    watch.note("random.Random without a seed")
                    a = drawn.random()
                super().seed(a, version)

        random.Random = Random  # type: ignore[misc]
        for name in ("uuid1", "getnode"):
            self._replace(uuid, name, lambda *_: uuid.UUID(bytes=drawn.randbytes(16)))

    def _replace_system(self) -> None:
        os.environ = Environment(os.environ, self.note)  # type: ignore[assignment] # noqa: B003 -- it is replaced
        os.environb = Environment(os.environb, self.note)  # type: ignore[assignment]
        there = [name for name in (*_OF_PROCESS, *_OF_FILES) if hasattr(os, name)]
        for name in there:
            self._replace(os, name, getattr(os, name), own=name in _OF_FILES)
        self._replace(platform, "uname", platform.uname)  # which others may have asked already
        # What os has most of it from.
        posix.environ = os.environb  # type: ignore[assignment]
        for name in (*there, "urandom", "getrandom"):
            if hasattr(posix, name):
                setattr(posix, name, getattr(os, name))

        def refuse(*_: object, **__: object) -> None:
            watch.note("a thread is started")
            raise RuntimeError("can't start new thread")

        watch = self
        threading.Thread.start = refuse  # type: ignore[method-assign]
        for name in ("start_new_thread", "start_new", "start_joinable_thread"):  # which start them all
            for module, called in ((threading, f"_{name}"), (_thread, name)):
                if hasattr(module, called):
                    setattr(module, called, refuse)

    def _replace(
        self,
        module: Any,
        name: str,
        function: Callable[..., Any],
        *,
        always: bool = True,
        needs: int = 1,
        own: bool = False,
    ) -> None:
        """Let a function be noted and do something else. `always`: else only with fewer arguments than it needs;
        `own`: its first argument is a path, and the plugin's own are not noted.
        """
        if not hasattr(module, name):
            return

        def noted(*arguments: Any, **named: Any) -> Any:
            told = always or len(arguments) < needs or arguments[needs - 1] is None
            if told and not (own and arguments and self._is_own(os.fspath(arguments[0]))):
                self.note(f"{module.__name__}.{name}")
            return function(*arguments, **named)

        setattr(module, name, noted)


class Environment(MutableMapping[Any, Any]):
    """The environment's variables; who looks at one is noted."""

    def __init__(self, given: MutableMapping[Any, Any], note: Callable[[str], bool]) -> None:
        self._given, self._note = given, note

    def __getitem__(self, name: Any) -> Any:
        self._note(f"os.environ {name!s:.40}")
        return self._given[name]

    def __setitem__(self, name: Any, value: Any) -> None:
        self._note(f"os.environ {name!s:.40}")
        self._given[name] = value

    def __delitem__(self, name: Any) -> None:
        self._note(f"os.environ {name!s:.40}")
        del self._given[name]

    def __iter__(self) -> Iterator[Any]:
        self._note("os.environ")
        return iter(dict(self._given))

    def __len__(self) -> int:
        return len(self._given)

    def copy(self) -> dict[Any, Any]:
        """Return them as a dictionary, as `os.environ` does."""
        return dict(self)


def _files(module: str) -> tuple[str, ...]:
    """Return the folder of a module's package, or its only file."""
    found = importlib.util.find_spec(module.partition(".")[0])
    if found is None:
        return ()
    return tuple(found.submodule_search_locations or filter(None, [found.origin]))


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = (*arguments[1:], None, None)[:2]
    return any(each in "wax+" for each in mode or "") or bool((flags or 0) & _WRITING)


def _offer(asked: Mapping[str, Any]) -> Any:
    """Import the plugin, and return the offer that is asked of it."""
    from kmm.contract import Settings  # noqa: PLC0415 -- once nothing can be asked unseen

    hook = getattr(_target(asked["value"]), f"kmm_{asked['field']}")
    takes = "settings" in inspect.signature(hook).parameters
    offers = hook(settings=Settings(options=asked["options"])) if takes else hook()
    return next(each for each in offers if each.name == asked["offer"])


def _target(value: str) -> Any:
    """Import what an entry point names."""
    module, _, attribute = value.partition(":")
    target = importlib.import_module(module)
    for name in filter(None, attribute.split(".")):
        target = getattr(target, name)
    return target


def _all(asked: Mapping[str, Any]) -> Iterator[Any]:
    """Yield all that a renderer says, as JSON writes it."""
    from kmm.conformance import samples  # noqa: PLC0415 -- likewise

    renderer = _offer(asked)
    for sample in samples.samples(asked["field"], renderer.requires, asked["params"]):
        try:
            made = json.dumps(renderer.render(sample.request), default=repr)
        except Exception as error:  # what it renders is judged elsewhere
            yield [sample.name, type(error).__name__]
            continue
        yield [sample.name, made]
        objects = json.loads(made)
        for state, seen, pods in samples.states(objects if _are_objects(objects) else []):
            try:
                progress = renderer.observe(seen, pods)
                yield [sample.name, state, repr(progress)]
            except Exception as error:
                yield [sample.name, state, type(error).__name__]


def _of_base_images(asked: Mapping[str, Any]) -> Iterator[Any]:
    """Yield all that is said of base images."""
    from kmm.conformance import samples  # noqa: PLC0415 -- likewise

    offer = _offer(asked)
    questions = [("images", offer.images, each) for each in (None, *samples.LISTS, asked["listing"])]
    questions += [("os_version", offer.os_version, each) for each in samples.OS_IMAGES]
    questions += [("kernels", offer.kernels, each) for each in samples.RELEASES]
    for name, function, question in questions:
        try:
            found = function(question)
            said = repr(sorted(found.items()) if isinstance(found, Mapping) else found)
        except Exception as error:  # what it answers is judged elsewhere
            said = type(error).__name__
        yield [f"{name} of {question!r:.80}", said]


def _of_modules(asked: Mapping[str, Any]) -> Iterator[str]:
    """Yield all that is found in Modules."""
    validate = _target(asked["value"]).kmm_validate_module
    takes = "module" in inspect.signature(validate).parameters
    for each in asked["modules"]:
        try:
            yield repr(validate(module=each) if takes else validate())
        except Exception as error:  # what it finds is judged elsewhere
            yield type(error).__name__


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


_SAY = {"base_images": _of_base_images, "validate_module": _of_modules}


def main() -> None:
    """Answer with what the renderer said and what it asked for."""
    channel = os.dup(1)
    os.dup2(2, 1)  # a plugin that prints is no answer
    asked = json.load(sys.stdin)
    watch = Watch(asked["value"].partition(":")[0], asked["clockS"], asked["seed"])
    watch.begin()
    say: Callable[[Mapping[str, Any]], Iterator[Any]] = _SAY.get(asked["field"], _all)
    said = list(say(asked))
    with os.fdopen(channel, "w", encoding="utf-8") as stream:
        json.dump({"said": said, "asked": list(watch.noted)}, stream)


if __name__ == "__main__":
    main()
