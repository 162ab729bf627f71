"""nats-py's client, with short ways for what happens once an event (docs/adr/0016).

Its own way finds each message by several regular expressions, parses its headers and puts it through a queue and a
task, and leaves what is published to another task to write: that was more than half of what an event cost on its way
in, and half of it on its way out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ConnectionReconnectingError, MaxPayloadError, NoRespondersError, ProtocolError
from nats.protocol.parser import Parser

from twinlog._aio.tasks import to_its_end

Taker: TypeAlias = Callable[[bytes, bytes, bytes, bytes], bool]
"""Takes subject, reply, data and headers of a message as they came, or leaves it to nats-py by returning False."""

_CRLF = b"\r\n"
_WITH_HEADERS = b"HMSG"
_MESSAGES = (b"MSG ", b"HMSG ")
_HEADERS = b"NATS/1.0\r\n"
_NO_RESPONDERS = b"NATS/1.0 503"


class Outgoing(NamedTuple):
    """A message to be published."""

    subject: str
    headers: str
    """Lines, each with its line break: ``Name: value\\r\\n``."""
    data: bytes


class _Framing(Parser):
    """Cuts what comes in into the server's commands; messages that nobody takes, and all else, are nats-py's."""

    def __init__(self, client: Client, take: Callable[[int, bytes, bytes, bytes, bytes], bool]) -> None:
        self._take = take
        super().__init__(client)

    def reset(self) -> None:
        super().reset()
        self._rest = b""
        self._connection = object()

    async def parse(self, data: bytes = b"") -> None:
        data, start, connection = self._rest + data, 0, self._connection
        while (line_end := data.find(_CRLF, start)) >= 0:
            line, end = data[start:line_end], line_end + len(_CRLF)
            if line.startswith(_MESSAGES):
                sid, subject, reply, head, size = _read(line)
                body, end = end, end + size
                if end + len(_CRLF) > len(data):
                    break
                taken = self._take(sid, subject, reply, data[body + head : end], data[body : body + head])
                end += len(_CRLF)
                if taken:
                    start = end
                    continue
            await super().parse(data[start:end])
            if self._connection is not connection:
                return  # it was an error that ended the connection: what came behind it is void
            start = end
        self._rest = data[start:]


def _read(line: bytes) -> tuple[int, bytes, bytes, int, int]:
    """Of a message's line: subscription, subject, reply, bytes of headers, bytes of headers and data."""
    try:
        kind, subject, sid, *rest = line.split(b" ")
        size = int(rest.pop())
        head = int(rest.pop()) if kind == _WITH_HEADERS else 0
        (reply,) = rest or (b"",)
        if 0 <= head <= size:
            return int(sid), subject, reply, head, size
    except (ValueError, IndexError) as error:
        raise ProtocolError from error
    raise ProtocolError


class NatsClient(Client):
    """A connection. What is not said here is as nats-py has it."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Framing(self, self._take)
        self._takers: dict[int, Taker] = {}  # by subscription
        self._answers: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}  # by inbox: data and headers
        self._numbers = count()
        self._inboxes = ""

    async def request(self, *args: Any, **kwargs: Any) -> Msg:
        """As theirs, but a cancellation is never forgotten."""
        return await to_its_end(super().request(*args, **kwargs))

    def divert(self, subscription: Subscription, take: Taker) -> None:
        """Gives a subscription's messages to ``take``, as they come in."""
        self._takers[subscription._id] = take

    async def publish_all(self, messages: Sequence[Outgoing], timeout: float) -> bytes:
        """Publishes messages in one write; the data of the answer to the last of them.

        Raises NoRespondersError where nobody listens, ConnectionReconnectingError while there is no connection (with
        nothing sent), MaxPayloadError, and TimeoutError after ``timeout`` seconds without an answer.
        """
        if not self._inboxes:
            await self._listen()
        inbox = f"{self._inboxes}.{next(self._numbers)}"
        answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self._answers[inbox.encode()] = answer
        try:
            self._write(b"".join(self._commands(messages, inbox)))
            async with asyncio.timeout(timeout):
                data, headers = await answer
        finally:
            del self._answers[inbox.encode()]
        if headers.startswith(_NO_RESPONDERS):
            raise NoRespondersError
        return data

    def _commands(self, messages: Sequence[Outgoing], inbox: str) -> Sequence[bytes]:
        parts: list[bytes] = []
        for number, (subject, lines, data) in enumerate(messages, 1):
            headers = b"%s%s\r\n" % (_HEADERS, lines.encode())
            size = len(headers) + len(data)
            if size > self.max_payload:
                raise MaxPayloadError
            reply = inbox if number == len(messages) else ""
            parts += (f"HPUB {subject} {reply} {len(headers)} {size}\r\n".encode(), headers, data, b"\r\n")
        return parts

    def _write(self, commands: bytes) -> None:
        """Writes at once, behind what waits to be written."""
        if not self.is_connected or self._transport is None:
            raise ConnectionReconnectingError
        try:
            self._transport.writelines([*self._pending, commands])
        except RuntimeError as error:  # the connection has just broken, and nats-py does not know yet
            raise ConnectionReconnectingError from error
        self._pending, self._pending_data_size = [], 0

    async def _listen(self) -> None:
        inboxes = self.new_inbox()
        self.divert(await self.subscribe(f"{inboxes}.*"), self._answered)
        self._inboxes = inboxes

    def _answered(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes) -> bool:
        answer = self._answers.get(subject)
        if answer is not None and not answer.done():
            answer.set_result((data, headers))
        return True

    def _take(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> bool:
        take = self._takers.get(sid)
        return take is not None and take(subject, reply, data, headers)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._takers.pop(sid, None)
