"""An event loop in a thread of its own: what is served in this process goes on while its owner waits."""

from __future__ import annotations

import asyncio
import threading
from typing import Any


class LoopThread:
    """A loop that runs from `start` to `stop`; `name` is the thread's."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def start(self) -> None:
        """Let it run; once."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def call(self, work: Any, *arguments: Any) -> Any:
        """Run a coroutine, or a function, in the thread; return what it returns.

        Raises:
            RuntimeError: it does not run; or it is called from that thread, which would wait for itself.
        """
        if not self.alive:
            if asyncio.iscoroutine(work):
                work.close()
            raise RuntimeError(f"{self._thread.name} is not running: use it inside its `with`")
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{self._thread.name} cannot wait for itself: ask it from another thread")

        async def run() -> Any:
            return work(*arguments)

        coroutine = work if asyncio.iscoroutine(work) else run()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def stop(self) -> None:
        """End what still runs, and the thread."""
        self.call(self._cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
