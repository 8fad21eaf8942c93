"""An event loop in a thread of its own: what is served in this process goes on while its owner waits."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

_TURNS = 5


class LoopThread:
    """A loop that runs from `start` to `stop`. `owner`: the name of the class whose loop it is."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Let it run.

        Raises:
            RuntimeError: it did already.
        """
        if self._loop is not None:
            raise RuntimeError(f"a {self._owner} is entered once: make a new one")
        self._loop = asyncio.new_event_loop()
        name = f"kmm-{self._owner.lower()}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def running(self) -> asyncio.AbstractEventLoop:
        """Return the loop.

        Raises:
            RuntimeError: it does not run.
        """
        if self._loop is None or self._loop.is_closed():
            name = self._owner.lower()
            raise RuntimeError(f"the {name} is not running: use it inside `with {self._owner}(…) as {name}:`")
        return self._loop

    def call(self, work: Any, *arguments: Any) -> Any:
        """Run a coroutine, or a function, in the thread; return what it returns.

        Raises:
            RuntimeError: it does not run; or it is called from that thread (an `async` program), which would wait for
                itself.
        """
        try:
            loop = self.running()
            if threading.current_thread() is self._thread:
                name = self._owner.lower()
                raise RuntimeError(
                    f"the {name}'s own thread cannot wait for itself: ask it by HTTP, from another thread"
                )
        except RuntimeError:
            if asyncio.iscoroutine(work):
                work.close()
            raise

        async def run() -> Any:
            return work(*arguments)

        coroutine = work if asyncio.iscoroutine(work) else run()
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def stop(self) -> None:
        """End what still runs in it, and it."""
        self.call(self._cancel())
        if self._loop is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._thread is not None and self._thread.is_alive()

    async def _cancel(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        # Connections that were aborted close when the loop comes to it.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
