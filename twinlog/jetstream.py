"""The twin in JetStream: atomic batches in, ack-less deliveries out.

Nothing of nats-py's publishing helpers is used: plain messages with ADR-50 headers, and one long-lived pull per
delivery. The server refuses a batch whose first message does not follow its last sequence.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError, NoServersError
from nats.js import api
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from twinlog.errors import ConfigurationError, Unavailable
from twinlog.event import Recorded, from_wire, to_wire
from twinlog.twin import Delivery, DeliveryLost, TwinMissing, TwinState, WrongLastSequence

BATCH = 500
"""Events in one atomic batch; the server takes at most 1,000."""

_OLDEST_NATS = (2, 12)
_TIMEOUT = 5.0
_WRONG_LAST_SEQUENCE = 10071
_STREAM_NOT_FOUND = 10059
_NAME_IN_USE = 10058
_HEARTBEAT = 2.0
_PULL_EXPIRES = 30.0
_PULL = 2_000
_INACTIVE = 30.0
_SECOND = 1_000_000_000


async def connect(url: str, name: str) -> Client:
    """A connection that reconnects for ever; waits, and says so once, while no server is there.

    Raises ConfigurationError where the server is too old or has no JetStream.
    """
    log, waiting = structlog.get_logger(), False

    async def changed(what: str) -> None:
        log.warning(f"nats.{what}", name=name)

    async def on_error(error: Exception) -> None:
        log.debug("nats.error", error=str(error) or type(error).__name__)

    async def on_disconnect() -> None:
        await changed("disconnected")

    async def on_reconnect() -> None:
        await changed("reconnected")

    while True:
        try:
            client = await nats.connect(
                url,
                name=name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,
                ping_interval=5,
                max_outstanding_pings=2,
                connect_timeout=2,
                allow_reconnect=True,
                error_cb=on_error,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
                pending_size=64 * 1024 * 1024,
            )
            break
        except (OSError, TimeoutError, NoServersError) as error:
            if not waiting:
                log.warning("nats.waiting", why=str(error) or type(error).__name__)
            waiting = True
            await asyncio.sleep(0.5)
    try:
        await _check(client)
    except BaseException:
        await client.close()
        raise
    return client


async def _check(client: Client) -> None:
    version = client.connected_server_version
    if (version.major, version.minor) < _OLDEST_NATS:
        raise ConfigurationError(
            f"NATS_URL: nats-server 2.12 or newer is needed (atomic batches); this one is {version.major}."
            f"{version.minor}"
        )
    try:
        await client.jetstream(timeout=_TIMEOUT).account_info()
    except (ServiceUnavailableError, NoRespondersError, APIError) as error:
        raise ConfigurationError(
            "NATS_URL: this nats-server runs without JetStream; start it with JetStream enabled (-js)"
        ) from error


class JetStreamTwin:
    """The stream of one log."""

    def __init__(self, client: Client, name: str, *, replicas: int = 1) -> None:
        self.name = name
        self._client = client
        self._manager = client.jsm(timeout=_TIMEOUT)
        self._replicas = replicas
        self._poke = asyncio.Event()
        self._listening = False

    async def state(self) -> TwinState:
        try:
            info = await self._manager.stream_info(self.name)
        except NotFoundError as error:
            raise TwinMissing(stream=self.name) from error
        except (NatsError, APIError, TimeoutError) as error:
            raise _unavailable(error) from error
        state = info.state
        held = max(0, state.last_seq - state.first_seq + 1)
        return TwinState(state.first_seq, state.last_seq, held - state.messages)

    async def create(self, first: int) -> None:
        config = api.StreamConfig(
            name=self.name,
            subjects=[f"{self.name}.*.*"],
            storage=api.StorageType.FILE,
            num_replicas=self._replicas,
            allow_atomic=True,
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
    async def deliver(self, after: int, types: Sequence[str] = ()) -> AsyncIterator[Delivery]:
        delivery = _Delivery(self._client, self.name, after)
        try:
            await delivery.open(types)
            yield delivery
        finally:
            await delivery.close()

    async def poke(self) -> None:
        with suppress(NatsError):
            await self._client.publish(f"twinlog.poke.{self.name}", b"")

    async def poked(self, timeout: float) -> None:
        if not self._listening:
            self._listening = True
            await self._client.subscribe(f"twinlog.poke.{self.name}", cb=self._on_poke)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._poke.wait()
        self._poke.clear()

    async def _on_poke(self, _message: Msg) -> None:
        self._poke.set()

    async def _publish(self, events: Sequence[Recorded]) -> None:
        last = len(events)
        batch_id = uuid4().hex
        headers: dict[str, Any] = {"Nats-Expected-Last-Sequence": str(events[0].position - 1)}
        try:
            for number, event in enumerate(events, 1):
                if last > 1:
                    headers |= {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
                if number < last:
                    await self._client.publish(event.subject, to_wire(event), headers=headers)
                    headers = {}
            if last > 1:
                headers["Nats-Batch-Commit"] = "1"
            reply = await self._client.request(
                events[-1].subject, to_wire(events[-1]), timeout=_TIMEOUT, headers=headers
            )
        except NoRespondersError as error:
            raise TwinMissing(stream=self.name) from error
        except (NatsError, TimeoutError, OSError) as error:
            raise _unavailable(error) from error
        self._accept(json.loads(reply.data), events)

    def _accept(self, answer: dict[str, Any], events: Sequence[Recorded]) -> None:
        error = answer.get("error")
        if error and error.get("err_code") == _WRONG_LAST_SEQUENCE:
            raise WrongLastSequence(stream=self.name, first=events[0].position)
        if error and error.get("err_code") == _STREAM_NOT_FOUND:
            raise TwinMissing(stream=self.name)
        if error:
            raise Unavailable(f"JetStream refused a batch: {error.get('description')}")
        if answer.get("seq") != events[-1].position:
            # Another stream listens to these subjects, or the server does not know the headers.
            raise Unavailable(f"JetStream stored event {events[-1].position} as {answer.get('seq')}")


def _unavailable(error: BaseException) -> Unavailable:
    return Unavailable(f"JetStream is out of service ({str(error) or type(error).__name__})")


class _Delivery:
    """One ephemeral consumer and the pull that feeds it into a queue."""

    def __init__(self, client: Client, stream: str, after: int) -> None:
        self._client = client
        self._stream = stream
        self._after = after
        self._inbox = client.new_inbox()
        self._consumer = f"cursor-{uuid4().hex}"
        self._queue: deque[Recorded] = deque()
        self._arrived = asyncio.Event()
        self._lost: str | None = None
        self._delivered = 0
        self._asked = 0
        self._subscription: Any = None

    async def open(self, types: Sequence[str]) -> None:
        manager = self._client.jsm(timeout=_TIMEOUT)
        config = api.ConsumerConfig(
            name=self._consumer,
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._after + 1,
            ack_policy=api.AckPolicy.NONE,
            filter_subjects=[f"{self._stream}.*.{type}" for type in types] or None,
            inactive_threshold=_INACTIVE,
            mem_storage=True,
            num_replicas=1,
            max_waiting=4,
        )
        try:
            self._subscription = await self._client.subscribe(self._inbox, cb=self._on_message)
            state = (await manager.stream_info(self._stream)).state
            if state.first_seq > self._after + 1 and state.messages:
                raise DeliveryLost(
                    stream=self._stream,
                    why=f"events {self._after + 1} to {state.first_seq - 1} are gone from it",
                )
            await manager.add_consumer(self._stream, config)
            await self._pull()
        except NotFoundError as error:
            raise TwinMissing(stream=self._stream) from error
        except (NatsError, APIError, TimeoutError) as error:
            raise _unavailable(error) from error

    async def close(self) -> None:
        with suppress(NatsError, APIError, TimeoutError):
            if self._subscription:
                await self._subscription.unsubscribe()
            if self._client.is_connected:
                # Without waiting for the answer: the server forgets an unused consumer by itself.
                subject = f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}"
                await self._client.publish(subject, b"")

    async def next(self, limit: int) -> Sequence[Recorded]:
        while not self._queue:
            if self._lost:
                raise DeliveryLost(stream=self._stream, why=self._lost)
            self._arrived.clear()
            try:
                async with asyncio.timeout(_HEARTBEAT * 2.5):
                    await self._arrived.wait()
            except TimeoutError:
                self._lost = "nothing was heard of it"
        if len(self._queue) <= limit:
            events = list(self._queue)
            self._queue.clear()
        else:
            events = [self._queue.popleft() for _ in range(limit)]
        if self._asked - self._delivered < _PULL // 2 and not self._lost:
            await self._pull()
        return events

    async def _pull(self) -> None:
        wanted = _PULL - (self._asked - self._delivered)
        self._asked += wanted
        request = {
            "batch": wanted,
            "expires": int(_PULL_EXPIRES * _SECOND),
            "idle_heartbeat": int(_HEARTBEAT * _SECOND),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=self._inbox)

    async def _on_message(self, message: Msg) -> None:
        self._arrived.set()
        if message.reply.startswith("$JS.ACK."):
            self._take(message)
        else:
            await self._on_status(message.headers or {})

    def _take(self, message: Msg) -> None:
        # $JS.ACK.<stream>.<consumer>.<tries>.<stream seq>.<consumer seq>.<time>.<pending>, with domain and
        # account before the stream, and a token behind, in the longer layout.
        tokens = message.reply.split(".")
        base = 4 if len(tokens) > 9 else 2
        sequence, delivered = int(tokens[base + 3]), int(tokens[base + 4])
        if delivered != self._delivered + 1:
            self._lost = f"message {self._delivered + 1} of the delivery is missing"
        if self._lost:
            return
        self._delivered = delivered
        if sequence > self._after:
            self._queue.append(from_wire(message.subject, message.data))

    async def _on_status(self, headers: dict[str, str]) -> None:
        status = headers.get("Status")
        if status == "100":  # heartbeat
            return
        if status in ("408", "409") and "Consumer Deleted" not in headers.get("Description", ""):
            # The pull has expired or is used up; ask for what it left.
            self._asked = self._delivered
            await self._pull()
            return
        self._lost = headers.get("Description") or f"status {status}"
