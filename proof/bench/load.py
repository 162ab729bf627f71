"""A load generator that is not the bottleneck: real gRPC frames over HTTP/2, prepared before the clock starts.

A client library spends more on a call than the servers do. This one writes frames whose headers never change and
counts the streams that end, some 15 µs a call, so one process drives a server that takes thousands of calls a second,
each with a request id and its own customer (h2load sends the same body every time). It needs no HPACK table: its
own headers are literals, and of an answer it is enough to see a message (OK) or none (an error).
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from time import perf_counter

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
_MAX_CONCURRENT_STREAMS = 3
_WINDOW = 65_535
_MOST = 2**31 - 1
_RETRY_SECONDS = 1.0
"""What the services ask a client to wait whom they refuse."""
_MOST_TRIES = 20
"""Calls for each message, on average."""


class Refused(RuntimeError):
    """The server answered a call with an error, or ended the connection."""


def _frame(type: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", type, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _headers(authority: str, path: str, traceparent: str = "") -> bytes:
    """:method POST and :scheme http from the static table, the rest as literals."""
    pairs = [
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *([(b"traceparent", traceparent.encode())] if traceparent else []),
    ]
    return b"\x83\x86" + b"".join(_literal(*pair) for pair in pairs)


@dataclass
class Call:
    """A call under way or answered."""

    due: float
    """perf_counter at which it was to be sent; where nothing was planned, at which it was sent."""
    answered: float = 0.0
    reply: bytes = b""
    """The response message; empty where it was refused."""
    message: bytes = b""
    """The request."""
    sent: float = 0.0
    """perf_counter at which it was sent; 0: it was given up before."""


@dataclass
class Connection(asyncio.Protocol):
    """One HTTP/2 connection for one method."""

    headers: bytes
    on_answer: Callable[[], None] = lambda: None
    refusals: bool = False
    """Whether calls may be answered with an error."""
    calls: list[Call] = field(default_factory=list)
    """In the order of sending."""
    refused: list[bytes] = field(default_factory=list)
    """The messages of calls that were answered with an error."""
    open: int = 0
    failure: Refused | None = None
    _buffer: bytes = b""
    _window: int = _WINDOW
    _streams: int = _MOST

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        settings = struct.pack(">HIHI", 2, 0, 4, _MOST)  # no push; streams may send what they like
        grant = struct.pack(">I", _MOST - _WINDOW)
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, grant))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection is gone ({exc})")

    def fits(self, message: bytes) -> bool:
        """Whether the server lets another message through: by its flow control, and by the streams it allows."""
        return self._window >= len(message) + 5 and self.open < self._streams

    def send(self, message: bytes | None, due: float = 0.0) -> None:
        """Sends a call; without a message, one that goes on."""
        if self.failure:
            raise self.failure
        stream = 2 * len(self.calls) + 1
        now = perf_counter()
        self.calls.append(Call(due or now, message=message or b"", sent=now))
        self.open += 1
        frames = _frame(_HEADERS, _END_HEADERS, stream, self.headers)
        if message is not None:
            body = b"\0" + len(message).to_bytes(4, "big") + message
            self._window -= len(body)
            frames += _frame(_DATA, _END_STREAM, stream, body)
        self._transport.write(frames)

    def data_received(self, data: bytes) -> None:
        buffer, at = self._buffer + data, 0
        while len(buffer) - at >= 9:
            end = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) < end:
                break
            type, flags, stream = struct.unpack_from(">BBI", buffer, at + 3)
            self._handle(type, flags, stream, buffer[at + 9 : end])
            at = end
        self._buffer = buffer[at:]
        self.on_answer()

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def _handle(self, type: int, flags: int, stream: int, payload: bytes) -> None:
        if type == _DATA:
            self.calls[stream // 2].reply += payload[5:]
        elif type == _HEADERS and flags & _END_STREAM:
            self._answered(self.calls[stream // 2])
        elif type == _SETTINGS and not flags & _ACK:
            settings = dict(struct.iter_unpack(">HI", payload))
            self._streams = settings.get(_MAX_CONCURRENT_STREAMS, self._streams)
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif type == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif type == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif type == _RST_STREAM and (self.refusals or self.calls[stream // 2].answered):
            self._answered(self.calls[stream // 2])
        elif type in (_RST_STREAM, _GOAWAY):
            self._fail(f"frame {type} on stream {stream}: {payload!r}")

    def _answered(self, call: Call) -> None:
        if call.answered:
            return
        self.open -= 1
        call.answered = perf_counter()
        if not call.reply:
            self.refused.append(call.message)
            if not self.refusals:
                self._fail("a call was answered with an error")

    def _fail(self, why: str) -> None:
        self.failure = self.failure or Refused(why)
        self.on_answer()


class Load:
    """Calls one method of a server, over one connection."""

    def __init__(self, address: str, method: str, *, refusals: bool = False, traceparent: str = "") -> None:
        """``method``: package.Service/Method. ``refusals``: whether calls may be answered with an error.

        ``traceparent``: the trace that its calls are part of; empty: it says nothing of one.
        """
        self.address = address
        self._refusals = refusals
        self._headers = _headers(address, f"/{method}", traceparent)

    async def closed(self, messages: Sequence[bytes], clients: int) -> list[Call]:
        """One call a message, ``clients`` at a time, again where it was refused; returns when all are answered."""
        connection, answered = await self._connect()
        waiting, pausing = deque(messages), 0

        def again(message: bytes) -> None:
            nonlocal pausing
            waiting.append(message)
            pausing -= 1
            answered.set()

        while waiting or pausing or connection.open:
            while waiting and connection.open + pausing < clients and connection.fits(waiting[0]):
                connection.send(waiting.popleft())
            answered.clear()
            await _next(connection, answered)
            for message in connection.refused:
                pausing += 1
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, again, message)
            connection.refused.clear()
            if len(connection.calls) > _MOST_TRIES * len(messages):
                raise Refused("calls are refused again and again")
        connection.close()
        return [call for call in connection.calls if call.reply]

    async def open(
        self, messages: Sequence[bytes], rate: float, patience_seconds: float | None = None
    ) -> list[Call]:
        """One call a message, ``rate`` a second, whether or not earlier ones are answered.

        A call that could not be sent in time keeps its due time: nothing that the server did is left out. With
        ``patience_seconds``, one that could not be sent in time is given up, as by a client with that deadline.
        """
        connection, answered = await self._connect()
        start, given_up = perf_counter(), list[Call]()
        for number, message in enumerate(messages):
            due = start + number / rate
            if (early := due - perf_counter()) > 0:
                await asyncio.sleep(early)
            while not connection.fits(message):
                answered.clear()
                await _next(connection, answered)
            if patience_seconds is not None and perf_counter() - due > patience_seconds:
                given_up.append(Call(due, message=message))
            else:
                connection.send(message, due)
        while connection.open:
            answered.clear()
            await _next(connection, answered)
        connection.close()
        return [*connection.calls, *given_up]

    @asynccontextmanager
    async def idle(self, streams: int, message: bytes | None) -> AsyncIterator[Connection]:
        """So many calls on one connection, which nobody ends inside the block but the server. Without a message, they
        wait for one."""
        connection, _ = await self._connect()
        for _ in range(streams):
            connection.send(message)
        try:
            yield connection
        finally:
            connection.close()

    async def _connect(self) -> tuple[Connection, asyncio.Event]:
        host, _, port = self.address.rpartition(":")
        answered = asyncio.Event()
        connection = Connection(self._headers, answered.set, self._refusals)
        await asyncio.get_running_loop().create_connection(lambda: connection, host, int(port))
        return connection, answered


class Spread:
    """Shares out its calls among several loads."""

    def __init__(self, *loads: Load) -> None:
        self._loads = loads

    async def closed(self, messages: Sequence[bytes], clients: int) -> list[Call]:
        """As a load does it."""
        share = len(self._loads)
        return await self._all(load.closed(messages[n::share], clients // share) for n, load in self._each())

    async def open(
        self, messages: Sequence[bytes], rate: float, patience_seconds: float | None = None
    ) -> list[Call]:
        """As a load does it."""
        share = len(self._loads)
        return await self._all(
            load.open(messages[n::share], rate / share, patience_seconds) for n, load in self._each()
        )

    def _each(self) -> Iterable[tuple[int, Load]]:
        return enumerate(self._loads)

    async def _all(self, parts: Iterable[Awaitable[list[Call]]]) -> list[Call]:
        return sorted(chain(*await asyncio.gather(*parts)), key=lambda call: call.due)


async def _next(connection: Connection, answered: asyncio.Event) -> None:
    if connection.failure:
        raise connection.failure
    async with asyncio.timeout(60):
        await answered.wait()
    if connection.failure:
        raise connection.failure
