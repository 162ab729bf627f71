"""nats-py's client, with short paths for what happens once per event (docs/adr/0016).

On its ordinary paths nats-py parses each message's headers, hands it through a queue and a task, and leaves publishing
to another task. That was more than half the cost of receiving an event and half the cost of sending one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, TypeAlias

import structlog
from nats.aio.client import Client, Srv
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import ConnectionReconnectingError, MaxPayloadError, NoRespondersError
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError

from twinlog._aio.tasks import to_its_end
from twinlog.jetstream.meaning import said

Taker: TypeAlias = Callable[[bytes, bytes, bytes, bytes], bool]
"""Takes a message's subject, reply, data and raw headers; returns False to leave it to the subscription's callback."""

_log = structlog.get_logger(component="nats")

_HEADERS = b"NATS/1.0\r\n"
_REFUSAL = re.compile(rb"^-ERR '?([^'\r\n]+)", re.MULTILINE)
_NO_RESPONDERS = b"NATS/1.0 503"
_LEARN_SECONDS = 5.0
_FORBIDDEN, _TOO_MANY, _INBOXES = "permissions violation", "maximum subscriptions exceeded", "_inbox."
"""What the server refuses while the connection stays, and what concerns everything that waits for an answer."""
_UNSUBSCRIBED = (f"{_FORBIDDEN} for subscription", _TOO_MANY)
"""What it says of a subscription that it refuses or takes away."""


class NoAnswer(NatsTimeoutError):
    """A request has found no answer in time; tells why, where that is known."""

    __str__ = Exception.__str__


class NotConnected(ConnectionReconnectingError):
    """There is no connection at the moment; tells why."""

    __str__ = Exception.__str__


def _of_subscription(refusal: Exception) -> bool:
    return any(part in str(refusal) for part in _UNSUBSCRIBED)


class Outgoing(NamedTuple):
    """A message to be published."""

    subject: str
    headers: str
    """Lines, each with its line break: ``Name: value\\r\\n``."""
    data: bytes


class Answers(NamedTuple):
    """The data of the replies to the first and the last of some messages; of a single one they are the same."""

    first: bytes
    last: bytes


class NatsClient(Client):
    """A connection to NATS."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Taker] = {}  # by subscription
        self._answers: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}  # by inbox: data and headers
        self._numbers = count()
        self._inboxes = ""
        self.most_told_anew: Callable[[], Awaitable[int]] | None = None
        """What another connection with the same login is told: how large a message may be."""
        self._learned_at = -_LEARN_SECONDS
        self.fault: Exception | None = None
        """Why there is no connection, or what the server refused last."""
        self._unsubscribed = False
        """Whether the server has refused or taken away a subscription, which it gives back to nobody by itself."""
        self._asked_again = False
        """Whether they were asked for again, and what the server says to it has not come yet."""

    async def request(self, subject: str, *args: Any, **kwargs: Any) -> Msg:
        """Like nats-py's, but never swallows a cancellation, and a NoAnswer tells why."""
        try:
            return await to_its_end(super().request(subject, *args, **kwargs))
        except NatsTimeoutError as error:
            raise self._no_answer(subject) from error

    async def learn_limits(self) -> None:
        """Takes over what a new connection is told of the size of messages; at most every few seconds.

        The limit of an account may be raised, and the server tells nobody who is connected. Raises Unavailable.
        """
        now = asyncio.get_running_loop().time()
        if self.most_told_anew is None or now - self._learned_at < _LEARN_SECONDS:
            return
        self._learned_at = now
        self._max_payload = await to_its_end(self.most_told_anew())

    def divert(self, subscription: Subscription, take: Taker) -> None:
        """Offers each of a subscription's messages to ``take``, as soon as it is parsed."""
        self._takers[subscription._id] = take

    async def publish_all(self, messages: Sequence[Outgoing], timeout_seconds: float) -> Answers:
        """Publishes messages in one write; returns the data of the replies to the first and the last of them.

        Raises NoRespondersError where nobody listens, ConnectionReconnectingError while disconnected (nothing is
        sent), MaxPayloadError, and NoAnswer after ``timeout_seconds`` without a reply.
        """
        if not self._inboxes:
            await self._listen()
        loop, asked = asyncio.get_running_loop(), {0, len(messages) - 1}
        inboxes = {index: f"{self._inboxes}.{next(self._numbers)}" for index in asked}
        answers: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {
            inbox.encode(): loop.create_future() for inbox in inboxes.values()
        }
        self._answers |= answers
        try:
            self._write(b"".join(self._commands(messages, inboxes)))
            async with asyncio.timeout(timeout_seconds):
                replies = [await answers[inboxes[index].encode()] for index in sorted(asked)]
        except TimeoutError as error:
            raise self._no_answer(messages[-1].subject) from error
        finally:
            for inbox in answers:
                del self._answers[inbox]
        (first, _), (last, headers) = replies[0], replies[-1]
        if headers.startswith(_NO_RESPONDERS):
            raise NoRespondersError
        return Answers(first, last)

    def _commands(self, messages: Sequence[Outgoing], inboxes: Mapping[int, str]) -> Sequence[bytes]:
        parts: list[bytes] = []
        for index, (subject, lines, data) in enumerate(messages):
            headers = b"%s%s\r\n" % (_HEADERS, lines.encode())
            size = len(headers) + len(data)
            if size > self.max_payload:
                raise MaxPayloadError
            parts += (
                f"HPUB {subject} {inboxes.get(index, '')} {len(headers)} {size}\r\n".encode(),
                headers,
                data,
                b"\r\n",
            )
        return parts

    def _write(self, commands: bytes) -> None:
        """Writes at once, after what nats-py still has to write."""
        if not self.is_connected or self._transport is None:
            raise NotConnected(self._not_connected())
        try:
            self._transport.writelines([*self._pending, commands])
        except RuntimeError as error:  # the connection has just broken, and nats-py has not noticed yet
            raise NotConnected(self._not_connected()) from error
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

    @property
    def addresses(self) -> str:
        """host:port of every server that is known."""
        return ",".join(sorted({f"{server.uri.hostname}:{server.uri.port}" for server in self._server_pool}))

    def _no_answer(self, subject: str) -> NoAnswer:
        if not self.is_connected:
            return NoAnswer(self._not_connected())
        refused = self.refusal(subject)
        return NoAnswer(f"no answer in time{f': {refused}' if refused else ''}")

    def refusal(self, subject: str) -> str:
        """What the server said last, where that is why nothing comes for a subject; else empty."""
        refused = said(self.fault) if self.fault else ""  # in lower case, by nats-py
        concerned = any(part in refused for part in (subject.lower(), _INBOXES, _TOO_MANY))
        return refused if concerned else ""

    def _not_connected(self) -> str:
        return f"no connection to {self.addresses}{f': {said(self.fault)}' if self.fault else ''}"

    async def _connect_to_server(self, s: Srv) -> None:
        # nats-py leaves the connection of a login that was refused to the garbage collector.
        if isinstance(self._transport, TcpTransport) and self._transport._io_writer is not None:
            self._transport._io_writer.close()
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except ConnectionError as error:
            # A server that has too many connections says so at once, before nats-py reads, and closes.
            buffer = getattr(getattr(self._transport, "_io_reader", None), "_buffer", b"")
            if told := _REFUSAL.search(bytes(buffer)):
                raise NatsError(f"nats: {told[1].decode(errors='replace')}") from error
            raise

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py takes notice of the limit only when it connects, and the server also tells when it is changed.
        self._max_payload = info.get("max_payload", self._max_payload)
        if initial_connection and self._current_server and self._current_server.uri.scheme == "tls":
            # nats-py goes by the server's wish alone, and would send the password for all to read.
            if not info.get("tls_required") and not info.get("tls_available"):
                raise NatsError("nats: this server has no TLS")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_err(self, err_msg: str) -> None:
        """The server's word that something is wrong. At most of them nats-py would close the connection for good."""
        error = NatsError(f"nats: {err_msg}")
        await self._error_cb(error)
        self._unsubscribed |= _of_subscription(error)
        if _FORBIDDEN not in err_msg and _TOO_MANY not in err_msg:
            await self._process_op_err(error)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        if future is None:  # every few seconds
            if self._unsubscribed:
                await self._subscribe_again()
            elif self._asked_again:  # and the server has not refused
                self._asked_again = False
                if self.fault and _of_subscription(self.fault):
                    self.fault = None
        await super()._send_ping(future)

    async def _subscribe_again(self) -> None:
        """Asks for every subscription once more: for the server, one that it still has stays the same."""
        self._unsubscribed, self._asked_again = False, True
        for subscription in [*self._subs.values()]:
            if not subscription._max_msgs:
                await self._send_subscribe(subscription)

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
