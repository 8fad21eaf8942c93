"""Ports that somebody listens on, given up and taken again without leaving a connection behind."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

_BACKLOG = 1024
_TURNS = 5  # of the loop, in which connections that were just accepted become known


class _Server(web.Server):
    """Hangs up where a handshake, which takes its time, ends after the listener was stopped."""

    over = False

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if self.over:
            transport.abort()


class Listener:
    """Lets `answer` serve HTTP(S) on one port or several, whose numbers stay the same when it starts again."""

    def __init__(self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], *, ports: int = 1) -> None:
        self.ports = [0] * ports
        self._answer = answer
        self._sockets: list[socket.socket] = []
        self._server: _Server | None = None
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, tls: ssl.SSLContext | None) -> None:
        """Listen.

        Raises:
            OSError: a port, or the host, cannot be had.
        """
        # Whoever hangs up is no longer served: watches and black holes end with their connections.
        self._server = _Server(self._answer, access_log=None, keepalive_timeout=3600, handler_cancellation=True)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await self._runner.setup()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            for number, port in enumerate(self.ports):
                self._sockets.append(socket.create_server((host, port), family=family, backlog=_BACKLOG))
                self.ports[number] = self._sockets[-1].getsockname()[1]
                await web.SockSite(self._runner, self._sockets[-1], ssl_context=tls, backlog=_BACKLOG).start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close every connection."""
        if self._runner is None or self._server is None:
            return
        # asyncio loses, unclosed, what it has accepted but not yet made a connection of when a server is closed: so
        # first nothing more is accepted.
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each.fileno())
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self._server.over = True
        for connection in self._server.connections:
            if connection.transport:
                connection.transport.abort()
        await self._runner.cleanup()
        for each in self._sockets:
            each.close()
        self._sockets.clear()
        self._runner = self._server = None
