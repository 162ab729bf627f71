"""Serves metrics over HTTP, in its own thread."""

from __future__ import annotations

import asyncio
import socket
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Thread
from typing import Any

import structlog

from twinlog._aio.reasons import reason
from twinlog.model.errors import ConfigurationError
from twinlog.observe.metrics.event_loop import EventLoop
from twinlog.observe.metrics.metric import Concern
from twinlog.observe.metrics.scrape import Exposition

SETTING = "METRICS_ADDRESS"
CLIENT_SECONDS = 10.0
"""How long a client may take to say what it asks for, and to read the answer."""
_MOST_CLIENTS = 32
_GZIP, _FAST = 16 + zlib.MAX_WBITS, 1

Page = Callable[[str], tuple[str, bytes]]
"""The content type and the bytes, for what a client says that it reads."""


@asynccontextmanager
async def telling(concerns: Sequence[Concern], address: str) -> AsyncIterator[str]:
    """Serves what concerns tell, and the event loop's lag, at host:port while the block runs; gives the URL.

    Raises ConfigurationError where the address cannot be had.
    """
    event_loop = EventLoop()
    exposition = Exposition([*concerns, event_loop], asyncio.get_running_loop())
    with event_loop.measured():
        async with serving(address, exposition.page) as url:
            yield url


@asynccontextmanager
async def serving(address: str, page: Page) -> AsyncIterator[str]:
    """Serves a page at host:port, port 0 for any that is free, while the block runs; gives the URL.

    Raises ConfigurationError where the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    try:
        # In a thread, as the host may be a name.
        server = await asyncio.to_thread(_Server, host.strip("[]"), int(port), page)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            "{setting}: cannot listen on {address} ({why}); stop what uses it, set {setting} to another host:port, or "
            "leave it empty",
            setting=SETTING,
            address=address,
            why=reason(error),
        ) from error
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    url = f"http://{host}:{server.server_port}/metrics"
    structlog.get_logger().info("metrics.serving", url=url)
    try:
        yield url
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, page: Page) -> None:
        self.page = page
        self._open: dict[Any, None] = {}  # the connections that are being served, the oldest first
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # without HTTPServer's look for the host's name, which may take seconds
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread; beyond a number of them the oldest makes room, as it may never say what it asks for."""
        for oldest in [*self._open][: max(0, len(self._open) + 1 - _MOST_CLIENTS)]:
            self._open.pop(oldest, None)
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        self._open[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news; a defect is."""
        if not isinstance(sys.exception(), OSError):
            structlog.get_logger().error("metrics.unanswered", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_SECONDS
    server_version, sys_version = "twinlog", ""

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":
            self.send_error(404)
            return
        content_type, body = self.server.page(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            self.send_header("Content-Encoding", "gzip")
            packing = zlib.compressobj(_FAST, wbits=_GZIP)
            body = packing.compress(body) + packing.flush()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: scrapes are not news."""
