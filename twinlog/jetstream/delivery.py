"""Ack-less deliveries: one ephemeral consumer, and the pulls that feed it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import api as nats_api
from nats.js.errors import APIError, NotFoundError

from twinlog.jetstream import api
from twinlog.jetstream.client import NatsClient
from twinlog.log.predecessors import Interest
from twinlog.log.twin import DeliveryLost, TwinDamaged, TwinMissing, event_in
from twinlog.model.event import Recorded

_HEARTBEAT = 2.0
_PULL_EXPIRES = 30.0
_PULL = 2_000
_INACTIVE = 30.0
_SECOND = 1_000_000_000
_BEFORE = "Twinlog-Before"
"""The header that says what lies before an event (:mod:`twinlog.log.predecessors`)."""
_BEFORE_LINE = f"{_BEFORE}: ".encode()
_DELIVERED = b"$JS.ACK."
"""Where a stream's message asks to be acknowledged; what tells it from a status."""


def _before(headers: bytes) -> str:
    """What a message says of the events before it; empty where it says nothing."""
    return headers.partition(_BEFORE_LINE)[2].partition(b"\r\n")[0].decode(errors="replace")


class _Delivery:
    """One ephemeral consumer and the pulls that feed it into a queue."""

    def __init__(
        self, client: NatsClient, stream: str, after: int, types: Sequence[str], routing_key: str
    ) -> None:
        self._client = client
        self._stream = stream
        self._seen = after
        """Up to here nothing was missed."""
        self._types = {type.encode() for type in types}
        self._interest = Interest(types, routing_key)
        self._last = after
        """The last event that came."""
        self._doubtful = False
        """Whether an event that is wanted may be gone from between those that came."""
        self._created = ""
        """Tells the stream from another of its name."""
        self._inbox = client.new_inbox()
        self._consumer = f"cursor-{uuid4().hex}"
        self._queue: deque[Recorded] = deque()
        self._arrived = asyncio.Event()
        self._lost: str | None = None
        self._damage: TwinDamaged | None = None
        self._delivered = 0
        """The consumer's sequence: how many messages came."""
        self._outstanding = 0
        """How many were asked for and have not come yet."""
        self._subscription: Any = None

    async def open(self, filters: Sequence[str]) -> None:
        config = nats_api.ConsumerConfig(
            name=self._consumer,
            deliver_policy=nats_api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._seen + 1,
            ack_policy=nats_api.AckPolicy.NONE,
            filter_subjects=[*filters] or None,
            inactive_threshold=_INACTIVE,
            mem_storage=True,
            num_replicas=1,
            max_waiting=16,
        )
        info = await api.stream_info(self._client, self._stream)
        self._created = info["created"]
        self._refuse_gaps(info)
        try:
            self._subscription = await self._client.subscribe(self._inbox, cb=self._on_status)
            self._client.divert(self._subscription, self._take)
            await self._client.jsm(timeout=api.REQUEST_TIMEOUT_SECONDS).add_consumer(self._stream, config)
        except NotFoundError as error:
            raise TwinMissing(stream=self._stream) from error
        except (NatsError, APIError, TimeoutError) as error:
            raise api.unavailable(error) from error
        await self._pull()

    async def close(self) -> None:
        with suppress(NatsError, APIError, TimeoutError):
            if self._subscription:
                await self._subscription.unsubscribe()
            if self._client.is_connected:
                # Without waiting for the answer: the server forgets an unused consumer by itself.
                subject = f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}"
                await self._client.publish(subject, b"")

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def next(self, limit: int) -> Sequence[Recorded]:
        while not self._queue:
            if self._damage:
                raise self._damage
            if self._lost:
                raise DeliveryLost(stream=self._stream, why=self._lost)
            self._arrived.clear()
            try:
                async with asyncio.timeout(_HEARTBEAT * 2.5):
                    await self._arrived.wait()
            except TimeoutError:
                self._lose("nothing was heard of it")
            await self._pull_in_time()
        events = [self._queue.popleft() for _ in range(min(limit, len(self._queue)))]
        if self._doubtful:
            self._doubtful = False
            self._refuse_gaps(await api.stream_info(self._client, self._stream))
        self._seen = events[-1].position
        await self._pull_in_time()
        return events

    async def _pull_in_time(self) -> None:
        if self._outstanding < _PULL // 2:
            await self._pull()

    def _refuse_gaps(self, info: dict[str, Any]) -> None:
        """Raises DeliveryLost where an event after the last one seen may have gone before it was delivered."""
        state = api.state_of(info)
        if info["created"] != self._created:
            raise DeliveryLost(stream=self._stream, why="it was made anew")
        if state.first > self._seen + 1:
            gone = f"events {self._seen + 1} to {state.first - 1} are gone from it"
            raise DeliveryLost(stream=self._stream, why=gone)
        if state.holes:
            raise DeliveryLost(stream=self._stream, why=f"{state.holes} of its events are gone")

    async def _pull(self) -> None:
        """Asks for as many as the queue has room for."""
        wanted = _PULL - self._outstanding - len(self._queue)
        if wanted <= 0 or self._lost:
            return
        self._outstanding += wanted
        request = {
            "batch": wanted,
            "expires": int(_PULL_EXPIRES * _SECOND),
            "idle_heartbeat": int(_HEARTBEAT * _SECOND),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        try:
            await self._client.publish(subject, json.dumps(request).encode(), reply=self._inbox)
        except NatsError as error:
            self._lose(str(error))

    def _take(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> bool:
        if not reply.startswith(_DELIVERED):
            return False
        # $JS.ACK.<stream>.<consumer>.<tries>.<stream seq>.<consumer seq>.<time>.<pending>, with domain and
        # account before the stream, and a token behind, in the longer layout.
        tokens = reply.split(b".")
        base = 4 if len(tokens) > 9 else 2
        sequence, delivered = int(tokens[base + 3]), int(tokens[base + 4])
        if delivered != self._delivered + 1:
            self._lose(f"message {self._delivered + 1} of the delivery is missing")
        if self._lost:
            return True
        self._delivered = delivered
        self._outstanding -= 1
        # A stream that is not as far as the checkpoint is delivered from its end, whatever was asked for.
        if sequence > self._seen:
            if not self._types or subject.split(b".")[2] in self._types:
                self._queue_up(sequence, subject, data)
            if sequence > self._last + 1 and not self._interest.has_all(_before(headers), self._last):
                self._doubtful = True
            self._last = sequence
        self._arrived.set()
        return True

    def _queue_up(self, sequence: int, subject: bytes, data: bytes) -> None:
        try:
            self._queue.append(event_in(self._stream, sequence, subject.decode(), data))
        except TwinDamaged as damage:
            self._damage = damage
            self._lose(str(damage))

    async def _on_status(self, message: Msg) -> None:
        self._arrived.set()
        headers = message.headers or {}
        status = headers.get("Status")
        if status == "100":  # a heartbeat; it tells of messages that a broken connection swallowed
            if int(headers.get("Nats-Last-Consumer", self._delivered)) > self._delivered:
                self._lose(f"message {self._delivered + 1} of the delivery is missing")
        elif status == "408":  # a pull has expired; it says what of it has not come
            self._outstanding -= int(headers.get("Nats-Pending-Messages", 0))
            await self._pull()
        else:
            self._lose(headers.get("Description", "").strip() or f"status {status}")

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._arrived.set()
