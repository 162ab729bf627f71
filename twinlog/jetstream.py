"""The twin in JetStream: fenced messages in, ack-less deliveries out.

Nothing of nats-py's publishing helpers is used: plain messages, each with the sequence that it has to follow, and one
long-lived pull per delivery. Atomic batches would cost the server milliseconds each (docs/adr/0012).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js import api
from nats.js.errors import APIError, NotFoundError

from twinlog.errors import ConfigurationError, Unavailable
from twinlog.event import Recorded, to_wire
from twinlog.gaps import History, Interest
from twinlog.nats_client import NatsClient, Outgoing
from twinlog.twin import (
    Delivery,
    DeliveryLost,
    TwinDamaged,
    TwinMissing,
    TwinState,
    WrongLastSequence,
    event_in,
)

BATCH = 500
"""Events on their way at once."""

_OLDEST_NATS = (2, 12)
_TIMEOUT = 5.0
_CLOSE_SECONDS = 0.5
_WRONG_LAST_SEQUENCE = 10071
_STREAM_NOT_FOUND = 10059
_NAME_IN_USE = 10058
_NO_LEADER = (10008, 10010)
"""A cluster that elects, or has too few servers."""
_HEARTBEAT = 2.0
_PULL_EXPIRES = 30.0
_PULL = 2_000
_INACTIVE = 30.0
_SECOND = 1_000_000_000
_BEFORE = "Twinlog-Before"
"""The header that says what lies before an event (:mod:`twinlog.gaps`)."""
_BEFORE_LINE = f"{_BEFORE}: ".encode()
_DELIVERED = b"$JS.ACK."
"""Where a stream's message asks to be acknowledged; what tells it from a status."""


async def connect(url: str, name: str) -> NatsClient:
    """A connection that reconnects for ever; waits, and says so once, while no server is there or a cluster elects.

    ``url``: one server, or several of a cluster with commas between them. Raises ConfigurationError where the server
    is too old or has no JetStream.
    """
    log, waiting, connected = structlog.get_logger(), False, False

    async def changed(what: str) -> None:
        log.warning(f"nats.{what}", name=name)

    async def on_error(error: Exception) -> None:
        # The first connection is tried for ever, too, and this is all that is heard of it.
        nonlocal waiting
        if not connected and not waiting:
            waiting = True
            log.warning("nats.waiting", why=str(error) or type(error).__name__)
        log.debug("nats.error", error=str(error) or type(error).__name__)

    async def on_disconnect() -> None:
        await changed("disconnected")

    async def on_reconnect() -> None:
        await changed("reconnected")

    client = NatsClient()
    await client.connect(
        url.split(","),
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.25,  # type: ignore[arg-type]  # it is only slept
        ping_interval=5,
        max_outstanding_pings=2,
        connect_timeout=2,
        allow_reconnect=True,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
        pending_size=64 * 1024 * 1024,
        skip_subject_validation=True,  # they are the kernel's own
    )
    connected = True
    if waiting:
        log.info("nats.available", name=name)
    try:
        await _check(client)
    except BaseException:
        await close(client)
        raise
    return client


async def close(client: Client) -> None:
    """Closes a connection, also where the server is away or does not answer."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()


async def _check(client: Client) -> None:
    version = client.connected_server_version
    if (version.major, version.minor) < _OLDEST_NATS:
        raise ConfigurationError(
            f"NATS_URL: nats-server 2.12 or newer is needed (this one is {version.major}.{version.minor})"
        )
    log, waiting = structlog.get_logger(), False
    while True:
        try:
            await client.jetstream(timeout=_TIMEOUT).account_info()
            return
        except (NatsError, APIError) as error:
            if isinstance(error, APIError) and error.err_code not in _NO_LEADER:
                raise ConfigurationError(
                    "NATS_URL: this nats-server runs without JetStream; start it with JetStream enabled (-js)"
                ) from error
            if not waiting:
                log.warning("nats.waiting", why=str(error) or type(error).__name__)
            waiting = True
        await asyncio.sleep(0.5)


class JetStreamTwin:
    """The stream of one log."""

    def __init__(self, client: NatsClient, name: str, *, replicas: int = 1) -> None:
        self.name = name
        self._client = client
        self._manager = client.jsm(timeout=_TIMEOUT)
        self._subjects = [f"{name}.*.*.*"]
        self._replicas = replicas
        self._poke = asyncio.Event()
        self._listening = False
        self._history = History()
        self._stored = 0
        """The last event of the last batch that was published in full."""

    async def state(self) -> TwinState:
        info = await _info(self._client, self.name)
        if info["config"].get("subjects") != self._subjects:
            raise TwinDamaged(
                stream=self.name,
                damage="it is for other subjects, made by someone else or by an earlier version",
                remedy=f"if nothing else needs it, delete it (nats stream rm {self.name}); it is made again from the "
                f"log. If something does, use another NATS server or account.",
            )
        return _state(info)

    async def create(self, first: int) -> None:
        config = api.StreamConfig(
            name=self.name,
            subjects=self._subjects,
            storage=api.StorageType.FILE,
            num_replicas=self._replicas,
            allow_direct=True,
            first_seq=first,
        )
        try:
            await self._manager.add_stream(config)
        except (NatsError, APIError, TimeoutError) as error:
            if getattr(error, "err_code", None) != _NAME_IN_USE:
                raise _unavailable(error) from error

    async def delete(self) -> None:
        try:
            await self._manager.delete_stream(self.name)
        except NotFoundError:
            return
        except (NatsError, APIError, TimeoutError) as error:
            raise _unavailable(error) from error

    async def publish(self, events: Sequence[Recorded]) -> None:
        for start in range(0, len(events), BATCH):
            await self._publish(events[start : start + BATCH])

    async def message(self, sequence: int) -> bytes | None:
        """The bytes of one message; None where there is none."""
        try:
            return (await self._manager.get_msg(self.name, sequence)).data
        except NotFoundError:
            return None
        except (NatsError, APIError, TimeoutError) as error:
            raise _unavailable(error) from error

    @asynccontextmanager
    async def deliver(self, after: int, types: Sequence[str] = (), tag: str = "") -> AsyncIterator[Delivery]:
        delivery = _Delivery(self._client, self.name, after, types, tag)
        try:
            await delivery.open(_filters(self.name, types, tag))
            yield delivery
        finally:
            await delivery.close()

    async def poke(self) -> None:
        with suppress(NatsError):
            await self._client.publish(f"twinlog.poke.{self.name}", b"")

    async def poked(self, timeout: float) -> None:
        if not self._listening:
            await self._client.subscribe(f"twinlog.poke.{self.name}", cb=self._on_poke)
            self._listening = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._poke.wait()
        self._poke.clear()

    async def _on_poke(self, _message: Msg) -> None:
        self._poke.set()

    async def _publish(self, events: Sequence[Recorded]) -> None:
        # All at once, and only the last is answered: each message is refused unless the one before it is stored. But
        # the first alone where the one before it is not ours: if it does not fit, nothing behind it is tried.
        first, *rest = events
        if rest and first.position != self._stored + 1:
            await self._store([first])
            events = rest
        await self._store(events)
        self._stored = events[-1].position

    def _message(self, event: Recorded) -> Outgoing:
        """With the fence, by which it is refused unless it is the next, and with what lies before."""
        subject = event.subject
        before = self._history.before(event.position, subject)
        fence = f"Nats-Expected-Last-Sequence: {event.position - 1}"
        return Outgoing(subject, f"{fence}\r\n{_BEFORE}: {before}\r\n", to_wire(event))

    async def _store(self, events: Sequence[Recorded]) -> None:
        position = events[-1].position
        try:
            reply = await self._client.publish_all([self._message(event) for event in events], _TIMEOUT)
        except NoRespondersError as error:
            raise TwinMissing(stream=self.name) from error
        except (NatsError, TimeoutError, OSError) as error:
            raise _unavailable(error) from error
        answer = json.loads(reply)
        refusal = answer.get("error")
        if refusal and refusal.get("err_code") == _WRONG_LAST_SEQUENCE:
            raise WrongLastSequence(stream=self.name, position=position)
        if refusal and refusal.get("err_code") == _STREAM_NOT_FOUND:
            raise TwinMissing(stream=self.name)
        if refusal:
            raise Unavailable(f"JetStream refused event {position}: {refusal.get('description')}")
        if answer.get("seq") != position:
            # Another stream listens to these subjects, or the server does not know the header.
            raise Unavailable(f"JetStream stored event {position} as {answer.get('seq')}")


def _before(headers: bytes) -> str:
    """What a message says of the events before it; empty where it says nothing."""
    return headers.partition(_BEFORE_LINE)[2].partition(b"\r\n")[0].decode(errors="replace")


def _filters(stream: str, types: Sequence[str], tag: str) -> Sequence[str]:
    """The subjects that the server is asked for; none: all.

    With a tag it is only one, and the types are left to the delivery: for each message of a consumer with several, the
    server looks through all subjects of the stream where many messages wait (docs/adr/0013).
    """
    return [f"{stream}.*.*.{tag}"] if tag else [f"{stream}.*.{type}.*" for type in types]


def _unavailable(error: BaseException) -> Unavailable:
    return Unavailable(f"JetStream is out of service ({str(error) or type(error).__name__})")


async def _info(client: Client, stream: str) -> dict[str, Any]:
    """What the server says of a stream. Raises TwinMissing and Unavailable."""
    try:
        reply = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=_TIMEOUT)
    except (NatsError, TimeoutError, OSError) as error:
        raise _unavailable(error) from error
    info: dict[str, Any] = json.loads(reply.data)
    if refusal := info.get("error"):
        if refusal.get("err_code") == _STREAM_NOT_FOUND:
            raise TwinMissing(stream=stream)
        raise Unavailable(f"JetStream is out of service ({refusal.get('description')})")
    return info


def _state(info: dict[str, Any]) -> TwinState:
    state = info["state"]
    first, last = state["first_seq"], state["last_seq"]
    return TwinState(first, last, last + 1 - first - state["messages"])


class _Delivery:
    """One ephemeral consumer and the pulls that feed it into a queue."""

    def __init__(self, client: NatsClient, stream: str, after: int, types: Sequence[str], tag: str) -> None:
        self._client = client
        self._stream = stream
        self._seen = after
        """Up to here nothing was missed."""
        self._types = {type.encode() for type in types}
        self._interest = Interest(types, tag)
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
        config = api.ConsumerConfig(
            name=self._consumer,
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._seen + 1,
            ack_policy=api.AckPolicy.NONE,
            filter_subjects=[*filters] or None,
            inactive_threshold=_INACTIVE,
            mem_storage=True,
            num_replicas=1,
            max_waiting=16,
        )
        info = await _info(self._client, self._stream)
        self._created = info["created"]
        self._refuse_gaps(info)
        try:
            self._subscription = await self._client.subscribe(self._inbox, cb=self._on_status)
            self._client.divert(self._subscription, self._take)
            await self._client.jsm(timeout=_TIMEOUT).add_consumer(self._stream, config)
        except NotFoundError as error:
            raise TwinMissing(stream=self._stream) from error
        except (NatsError, APIError, TimeoutError) as error:
            raise _unavailable(error) from error
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
            self._refuse_gaps(await _info(self._client, self._stream))
        self._seen = events[-1].position
        await self._pull_in_time()
        return events

    async def _pull_in_time(self) -> None:
        if self._outstanding < _PULL // 2:
            await self._pull()

    def _refuse_gaps(self, info: dict[str, Any]) -> None:
        """Raises DeliveryLost where an event after the last one seen may have gone before it was delivered."""
        state = _state(info)
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
