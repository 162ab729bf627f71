"""A TCP proxy between a service and a server, for cutting, delaying and holding up what passes."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Self

_CHUNK = 64 * 1024
_AT_ONCE = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to a port of this machine. Use as an async context manager."""

    def __init__(self, target: int) -> None:
        """``target``: the port behind it."""
        self._target = target
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
        """Where it listens."""
        self.delay = 0.0
        """Seconds that every piece of data is late, in each direction."""
        self.refusing = False
        """Whether new connections are cut at once."""
        self.refused = 0
        """How many were."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Breaks every connection, without a goodbye."""
        for writer in self._connections:
            _reset(writer)

    def lose(self) -> None:
        """Has every connection pass nothing any more, without a word, as after a failover; new ones work."""
        self._lost |= self._connections

    def hold(self) -> None:
        """Lets nothing through; connections stay open and new ones are taken."""
        self._flowing.clear()

    def release(self) -> None:
        """Lets everything through again, what was held up first."""
        self._flowing.set()

    def mend(self) -> None:
        """Passes everything on at once from now on, and takes every connection."""
        self.delay, self.refusing = 0.0, False
        self.release()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._forward(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.refused += 1
            _reset(writer)
            return
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            return
        ends = {writer, onward}
        self._connections |= ends
        try:
            await asyncio.gather(self._pump(reader, onward), self._pump(back, writer))
        finally:
            self._connections -= ends
            self._lost -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flowing.wait()
                if sink in self._lost:
                    continue
                sink.write(data)
                await sink.drain()
            sink.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection as a crash does: with RST."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    writer.transport.abort()
