"""A delivery without acknowledgements: an ephemeral consumer whose messages are pulled ahead of the reader."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from uuid import uuid4

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import api as nats_api
from nats.js.errors import APIError

from twinlog.jetstream import api
from twinlog.jetstream.arrivals import Arrivals, Pulls, State
from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.continuity import Continuity
from twinlog.jetstream.meaning import unavailable
from twinlog.log.installation import Identity
from twinlog.log.twin import DeliveryLost, TwinDamaged, event_in
from twinlog.model.event import Recorded

_HEARTBEAT_SECONDS = 2.0
_MISSED_HEARTBEATS = 2.5
_INACTIVE_SECONDS = 30.0
_MESSAGE = b"$JS.ACK."
"""How the reply subject of a stream's message begins, which tells it from a status."""


class JetStreamDelivery:
    """One consumer of a stream. Messages come in by :meth:`_take`, statuses by :meth:`_on_status`."""

    def __init__(
        self,
        client: NatsClient,
        stream: str,
        message: Callable[[int], Awaitable[bytes | None]],
        after: int,
        types: Sequence[str],
        routing_key: str,
        *,
        prefix: str,
        identity: Identity | None,
    ) -> None:
        """``message`` reads one of the stream's. ``prefix``: what subjects begin with before the log's name.
        ``identity``: whose stream it has to be; None: anybody's."""
        self._client = client
        self._stream = stream
        self._message = message
        self._log = stream.removeprefix(prefix)
        """The log, with which every subject of its stream begins."""
        self._identity = identity
        self._types = {type.encode() for type in types}
        self._consumer = f"cursor-{uuid4().hex}"
        self._pulled_from = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self._consumer}"
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._arrivals = Arrivals()
        self._continuity = Continuity(stream, after, types, routing_key)
        self._pulls = Pulls()

    async def open(self, filters: Sequence[str]) -> None:
        """Raises TwinMissing, ForeignStream, Unavailable, and DeliveryLost where the next events are gone from it."""
        config = nats_api.ConsumerConfig(
            name=self._consumer,
            deliver_policy=nats_api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._continuity.handed_out + 1,
            ack_policy=nats_api.AckPolicy.NONE,
            filter_subjects=[*filters] or None,
            inactive_threshold=_INACTIVE_SECONDS,
            mem_storage=True,
            num_replicas=1,
            max_waiting=16,
        )
        info = await api.stream_info(self._client, self._stream)
        api.refuse_foreign(info, self._identity)
        self._continuity.begin(info)
        with api.asking(self._stream):
            self._subscription = await self._client.subscribe(self._inbox, cb=self._on_status)
            self._client.divert(self._subscription, self._take)
            await self._client.jsm(timeout=api.REQUEST_TIMEOUT_SECONDS).add_consumer(self._stream, config)
        await self._pull()

    async def close(self) -> None:
        with suppress(NatsError, APIError, TimeoutError):
            if self._subscription:
                await self._subscription.unsubscribe()
            if self._client.is_connected:
                # Nobody waits for the answer: the server also removes a consumer that is left unused.
                subject = f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}"
                await self._client.publish(subject, b"")

    @property
    def waiting(self) -> int:
        return len(self._arrivals)

    async def next(self, limit: int) -> Sequence[Recorded]:
        while not self._arrivals:
            try:
                await self._arrivals.heard(_HEARTBEAT_SECONDS * _MISSED_HEARTBEATS)
            except TimeoutError as error:
                if refusal := self._client.refusal(self._pulled_from):
                    raise unavailable(NatsError(refusal)) from error
                self._lose("nothing was heard of it")
            await self._pull()
        events = self._arrivals.take(limit)
        if self._arrivals.state is State.DOUBTFUL:
            self._arrivals.settle()
            self._continuity.check(await api.stream_info(self._client, self._stream))
            await self._continuity.look_for_missed(self._look)
        self._continuity.handed_out = events[-1].position
        await self._pull()
        return events

    async def _look(self, position: int) -> None:
        """Raises TwinDamaged where a message is not the event of its position, and DeliveryLost where it is gone."""
        message = await self._message(position)
        if message is None:
            raise DeliveryLost(stream=self._stream, why=f"event {position} is gone from it")
        event_in(self._stream, position, self._log, message)

    async def _pull(self) -> None:
        """Asks for more in good time, so that the server always has something to send."""
        count = self._pulls.due(len(self._arrivals))
        if not count or self._arrivals.loss:
            return
        try:
            request = self._pulls.request(count, _HEARTBEAT_SECONDS)
            await self._client.publish(self._pulled_from, request, reply=self._inbox)
        except NatsError as error:
            self._lose(str(error))

    def _take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> bool:
        if not reply.startswith(_MESSAGE):
            return False
        sequence, number = _sequences(reply)
        arrivals = self._arrivals
        if not self._pulls.came(number):
            self._miss()
        if arrivals.loss:
            return True
        # From a stream that has not reached the checkpoint yet, the server delivers what was handled before.
        if sequence > self._continuity.handed_out:
            if not self._continuity.follows(sequence, headers):
                arrivals.doubt()
            if not self._types or subject.split(b".")[2] in self._types:
                try:
                    arrivals.put(event_in(self._stream, sequence, self._log, data))
                except TwinDamaged as damage:
                    arrivals.end(damage)
        arrivals.wake()
        return True

    async def _on_status(self, message: Msg) -> None:
        self._arrivals.wake()
        headers = message.headers or {}
        status = headers.get("Status")
        if status == "100":  # a heartbeat, which tells of messages that a broken connection has swallowed
            if int(headers.get("Nats-Last-Consumer", 0)) > self._pulls.delivered:
                self._miss()
        elif status == "408":  # a pull has expired
            self._pulls.expired(int(headers.get("Nats-Pending-Messages", 0)))
            await self._pull()
        else:
            self._lose(headers.get("Description", "").strip() or f"status {status}")

    def _miss(self) -> None:
        self._lose(f"message {self._pulls.delivered + 1} of the delivery is missing")

    def _lose(self, why: str) -> None:
        self._arrivals.end(DeliveryLost(stream=self._stream, why=why))


def _sequences(reply: bytes) -> tuple[int, int]:
    """The stream's and the consumer's sequence of a message, by its reply subject.

    It is ``$JS.ACK.<stream>.<consumer>.<tries>.<stream seq>.<consumer seq>.<time>.<pending>``; the longer layout has
    domain and account before the stream and a token at the end.
    """
    tokens = reply.split(b".")
    base = 4 if len(tokens) > 9 else 2
    return int(tokens[base + 3]), int(tokens[base + 4])
