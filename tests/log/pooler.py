"""A pooler of the wrong kinds; just enough of one.

It gives each transaction another session, as pgbouncer does in transaction mode, or each client the session of the one
before it, as it was left.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

_SSL = 80877103
_READY, _TERMINATE = b"Z", b"X"
Session = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _startup(parameters: Mapping[str, str]) -> bytes:
    body = struct.pack("!i", 196608)
    body += b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!i", len(body) + 4) + body


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next message: its kind, and all of it."""
    head = await reader.readexactly(5)
    (size,) = struct.unpack("!i", head[1:])
    return head[:1], head + await reader.readexactly(size - 4)


class Pooler:
    """Sessions are opened when they are needed, and lent until ReadyForQuery says that no transaction is open."""

    def __init__(self, port: int, *, first_in_first_out: bool = False, keeps_sessions: bool = False) -> None:
        """``port``: the server's, which trusts everybody. ``keeps_sessions``: a client has one until it goes."""
        self._server = port
        self._keeps = keeps_sessions
        self._fifo = first_in_first_out
        self._idle: deque[Session] = deque()
        self._greeting = b""
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            parameters = await self._accept(reader, writer)
            if not (self._keeps and self._idle):
                await self.open(parameters)
            # A client is told a session of the pooler's own making.
            writer.write(self._greeting + _message(b"K", struct.pack("!ii", -7, 7)) + _message(_READY, b"I"))
            asked: asyncio.Queue[bytes] = asyncio.Queue()
            kept = self._idle.pop() if self._keeps else None
            working = asyncio.create_task(self._work(asked, writer, parameters, kept))
            try:
                while True:
                    kind, message = await _read(reader)
                    if kind == _TERMINATE:
                        break
                    asked.put_nowait(message)
            finally:
                working.cancel()
                if kept:
                    self._idle.append(kept)
        writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, str]:
        while True:
            size, code = struct.unpack("!ii", await reader.readexactly(8))
            rest = await reader.readexactly(size - 8)
            if code != _SSL:
                words = rest.decode().split("\0")
                return dict(zip(words[::2], words[1::2], strict=False))
            writer.write(b"N")

    async def open(self, parameters: Mapping[str, str]) -> None:
        """Opens one more session, and keeps what the server says of itself."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server)
        self._writers.append(writer)
        writer.write(_startup({name: value for name, value in parameters.items() if name}))
        greeting = b""
        while True:
            kind, message = await _read(reader)
            if kind == _READY:
                break
            if kind != b"K":
                greeting += message
        self._greeting = greeting
        self._idle.append((reader, writer))

    async def _work(
        self,
        asked: asyncio.Queue[bytes],
        writer: asyncio.StreamWriter,
        parameters: Mapping[str, str],
        kept: Session | None,
    ) -> None:
        while True:
            message = await asked.get()
            if not (kept or self._idle):
                await self.open(parameters)
            session = kept or (self._idle.popleft() if self._fifo else self._idle.pop())
            session[1].write(message)
            sending = asyncio.create_task(self._send(asked, session[1]))
            try:
                kind = b""
                while not (kind == _READY and message.endswith(b"I")):
                    kind, message = await _read(session[0])
                    writer.write(message)
            finally:
                sending.cancel()
            if not kept:
                self._idle.append(session)

    async def _send(self, asked: asyncio.Queue[bytes], session: asyncio.StreamWriter) -> None:
        while True:
            session.write(await asked.get())

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def pooler(
    port: int, *, first_in_first_out: bool = False, keeps_sessions: bool = False
) -> AsyncIterator[Pooler]:
    """A pooler before the server at that port."""
    between = Pooler(port, first_in_first_out=first_in_first_out, keeps_sessions=keeps_sessions)
    server = await asyncio.start_server(between.serve, "127.0.0.1", 0)
    between.port = server.sockets[0].getsockname()[1]
    try:
        yield between
    finally:
        server.close()
        between.close()
        await asyncio.sleep(0)
