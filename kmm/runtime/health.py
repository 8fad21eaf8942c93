"""The HTTP endpoints of the operator itself: is it alive, is it ready, how is it doing."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kmm.errors import ConfigError

Page = Callable[[], tuple[bool, bytes]]


class _Server(ThreadingHTTPServer):
    """Listens on IPv4 and IPv6 where no host is named; asks no name server who it is."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        host, port = address
        self.address_family = (
            socket.AF_INET6 if ":" in host or (not host and socket.has_dualstack_ipv6()) else socket.AF_INET
        )
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind the socket."""
        if self.address_family == socket.AF_INET6 and not self.server_address[0]:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class Endpoint:
    """Serves pages by path: each says whether all is well, and a text."""

    def __init__(self, address: str, pages: dict[str, Page]) -> None:
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdecimal():
            raise ConfigError(f'"{address}" is no address: it is such as 127.0.0.1:8080 or :8081')

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0])
                well, text = page() if page else (False, b"not found\n")
                status = (
                    HTTPStatus.OK if well else HTTPStatus.NOT_FOUND if not page else HTTPStatus.SERVICE_UNAVAILABLE
                )
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing: probes come every few seconds."""

        try:
            self._server = _Server((host.strip("[]"), int(port)), Handler)
        except OSError as error:
            raise ConfigError(
                f"{address}: cannot be listened on: {error.strerror}: KMM_METRICS_ADDRESS and KMM_HEALTH_ADDRESS, or "
                "metricsAddress and healthAddress in the configuration, name another"
            ) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name=f"http-{port}", daemon=True)

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self._server.server_name, self._server.server_port
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Serve, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        if self._thread.ident is not None:  # else it would wait for a loop that never ran
            self._server.shutdown()
        self._server.server_close()
