"""What a container does: a Python function, or a real process that gets what the pod specification says."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import re
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
MESSAGE_BYTES = 4096
TAIL_BYTES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended. `output`: what it said on both streams; `message`: its termination message."""

    code: int = 0
    output: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command in a container.

    `hook`: empty for the container itself, else `postStart` or `preStop`. `mounts`: from paths in the container to
    real ones, the termination message's file among them. `stopped` is set when it is asked to end (SIGTERM); it is
    cancelled at the end of its grace period (SIGKILL).
    """

    pod: Mapping[str, Any]
    container: Mapping[str, Any]
    node: str
    kernel: str
    hook: str = ""
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


Program = Callable[[Run], "Exit | Awaitable[Exit]"]


async def idle(run: Run) -> Exit:
    """Do nothing: hooks and tasks succeed at once, services run until they are stopped."""
    if (
        run.hook
        or run.pod["spec"].get("restartPolicy") != "Always"
        or run.container in run.pod["spec"].get("initContainers", ())
    ):
        return Exit()
    await run.stopped.wait()
    return Exit(code=143)


async def process(run: Run) -> Exit:
    """Run a real process, on this machine and with your rights: no sandbox.

    Paths of mounts in its arguments and environment become the real ones.
    """
    if not run.argv:
        what = "no command specified: images have no entrypoint here"
        return Exit(code=128, output=what, message=f"failed to start container: {what}")
    # A path of the container, where a word or a value begins and a name ends.
    every = "|".join(re.escape(each) for each in sorted(run.mounts, key=len, reverse=True))
    path = re.compile(rf"(?<![\w./-])(?:{every})(?![\w.-])")

    def located(text: str) -> str:
        return path.sub(lambda found: str(run.mounts[found[0]]), text) if every else text

    environment = {"PATH": os.environ.get("PATH", os.defpath)} | {
        name: located(value) for name, value in run.env.items()
    }
    try:
        started = await asyncio.create_subprocess_exec(
            *map(located, run.argv),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return Exit(code=128, output=str(error), message=f"failed to start container: {error}")
    stopping = asyncio.create_task(_end_when(run.stopped, started))
    try:
        output, _ = await started.communicate()
    finally:
        stopping.cancel()
        if started.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
    code = started.returncode or 0
    return Exit(code=128 - code if code < 0 else code, output=output.decode(errors="replace"))


async def _end_when(stopped: asyncio.Event, started: asyncio.subprocess.Process) -> None:
    await stopped.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGTERM)


async def perform(program: Program, run: Run) -> Exit:
    """Run a program, a plain function in a thread of its own; one that raises could not be started."""
    try:
        done: Any = await program(run) if inspect.iscoroutinefunction(program) else await _in_thread(program, run)
        if inspect.isawaitable(done):
            done = await done
        if not isinstance(done, Exit) or not isinstance(done.code, int):
            raise TypeError(f"the program returned {done!r}, not an Exit with a number as its code")
    except Exception as error:
        _LOG.exception("the program of %s raised", run.container.get("name"))
        return Exit(code=128, output=repr(error), message=f"failed to start container: {error!r}")
    log = run.mounts.get(run.container.get("terminationMessagePath", ""))
    if not run.hook and log and not done.message and log.exists():
        message = log.read_bytes()[-MESSAGE_BYTES:].decode(errors="replace")
        return Exit(code=done.code, output=done.output, message=message)
    ended: Exit = done
    return ended


async def _in_thread(program: Program, run: Run) -> Any:
    # Not asyncio's pool: it is small, services stay in it, and the interpreter would wait for them at its end.
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def tell(result: Any, error: Exception | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(result)

    def work() -> None:
        result, failed = None, None
        try:
            result = program(run)
        except Exception as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the cluster has stopped meanwhile
            loop.call_soon_threadsafe(tell, result, failed)

    threading.Thread(target=work, daemon=True, name=f"kmm-{run.container.get('name')}").start()
    return await done


def said(container: Mapping[str, Any], done: Exit) -> str:
    """Return the termination message: what the container left, or the end of its log where it failed."""
    if done.message or done.code == 0 or container.get("terminationMessagePolicy") != "FallbackToLogsOnError":
        return done.message
    return "\n".join(done.output.rstrip("\n").split("\n")[-80:])[-TAIL_BYTES:]
