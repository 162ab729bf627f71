"""nats-py's client, with short paths for what happens once per event (docs/adr/0016).

On its ordinary paths nats-py parses each message's headers, hands it through a queue and a task, and leaves publishing
to another task. That was more than half the cost of receiving an event and half the cost of sending one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeAlias

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ConnectionReconnectingError, MaxPayloadError, NoRespondersError

from twinlog._aio.tasks import to_its_end

Taker: TypeAlias = Callable[[bytes, bytes, bytes, bytes], bool]
"""Takes a message's subject, reply, data and raw headers; returns False to leave it to the subscription's callback."""

_log = structlog.get_logger(component="nats")

_HEADERS = b"NATS/1.0\r\n"
_NO_RESPONDERS = b"NATS/1.0 503"


class Outgoing(NamedTuple):
    """A message to be published."""

    subject: str
    headers: str
    """Lines, each with its line break: ``Name: value\\r\\n``."""
    data: bytes


class NatsClient(Client):
    """A connection to NATS."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Taker] = {}  # by subscription
        self._answers: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}  # by inbox: data and headers
        self._numbers = count()
        self._inboxes = ""

    async def request(self, *args: Any, **kwargs: Any) -> Msg:
        """Like nats-py's, but never swallows a cancellation."""
        return await to_its_end(super().request(*args, **kwargs))

    def divert(self, subscription: Subscription, take: Taker) -> None:
        """Offers each of a subscription's messages to ``take``, as soon as it is parsed."""
        self._takers[subscription._id] = take

    async def publish_all(self, messages: Sequence[Outgoing], timeout: float) -> bytes:
        """Publishes messages in one write; returns the data of the reply to the last of them.

        Raises NoRespondersError where nobody listens, ConnectionReconnectingError while disconnected (nothing is
        sent), MaxPayloadError, and TimeoutError after ``timeout`` seconds without a reply.
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
        """Writes at once, after what nats-py still has to write."""
        if not self.is_connected or self._transport is None:
            raise ConnectionReconnectingError
        try:
            self._transport.writelines([*self._pending, commands])
        except RuntimeError as error:  # the connection has just broken, and nats-py has not noticed yet
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

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """nats-py's parser calls this for every message; ``headers`` are None where there are none."""
        take = self._takers.get(sid)
        try:
            taken = take is not None and take(subject, reply, data, headers or b"")
        except Exception as error:  # anybody may have sent it; nats-py would stop reading for good
            _log.warning("nats.message_refused", subject=subject.decode(errors="replace"), why=repr(error))
            return
        if not taken:
            await super()._process_msg(sid, subject, reply, data, headers)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self._takers.pop(sid, None)
