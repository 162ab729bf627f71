"""The twin in JetStream: fenced messages in, deliveries without acknowledgements out.

Events are plain messages, each with the sequence that it must follow; atomic batches would cost the server milliseconds
each (docs/adr/0012).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any

import structlog
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError
from nats.js import api as nats_api
from nats.js.errors import APIError

from twinlog.jetstream import api
from twinlog.jetstream.client import NatsClient, Outgoing
from twinlog.jetstream.continuity import PREDECESSORS
from twinlog.jetstream.delivery import JetStreamDelivery
from twinlog.jetstream.hints import Hints
from twinlog.jetstream.meaning import unavailable
from twinlog.jetstream.weighing import Weighing
from twinlog.log.installation import Identity, named
from twinlog.log.predecessors import PredecessorIndex
from twinlog.log.twin import (
    Delivery,
    TwinDamaged,
    TwinMissing,
    TwinState,
    WrongLastSequence,
    event_in,
    mirrors,
    not_its_event,
)
from twinlog.log.wire import to_wire
from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded

BATCH = 500
"""Events in flight at once."""
_READ_AT_ONCE = 100
_WRONG_LAST_SEQUENCE = 10071
_NAME_IN_USE = 10058
_SEALED = 10109
_AT_A_LIMIT = (10054, 10077)
"""Of a message, or of the stream: of events, bytes or both."""
_SOUND = {(2, 12): 12, (2, 13): math.inf, (2, 14): 3}
"""By minor release of nats-server, the first patch in which a compressed block can still be read once the first half of
it was purged (nats-server #8312)."""
_NO_LIMITS = "--max-msgs=-1 --max-bytes=-1 --max-msg-size=-1 --max-msgs-per-subject=-1"


class JetStreamTwin:
    """The stream of one log."""

    def __init__(
        self,
        client: NatsClient,
        log: str,
        *,
        replicas: int = 1,
        namespace: str = "",
        identity: Identity | None = None,
    ) -> None:
        """``namespace``: what the names of streams and subjects begin with. ``identity``: whose stream it has to be;
        None: anybody's."""
        self.name = named(namespace, log)
        self._client = client
        self._manager = client.jsm(timeout=api.REQUEST_TIMEOUT_SECONDS)
        self._namespace = namespace
        self._prefix = self.name.removesuffix(log)
        self._subjects = [f"{self.name}.*.*.*"]
        self._replicas = replicas
        self._identity = identity
        self._claimed = False
        self._hints = Hints(client, f"twinlog.poke.{self.name}")
        self._history = PredecessorIndex()
        self._stored = 0
        """The last event of the last batch that was stored completely."""
        self._doubtful: dict[int, Recorded] = {}
        """By position: among them may be one that was refused although those behind it were stored."""
        self._weighing = Weighing()

    def of(self, log: str) -> JetStreamTwin:
        """That of another log, of the same namespace and anybody's."""
        return JetStreamTwin(self._client, log, namespace=self._namespace)

    @property
    def most_bytes(self) -> int:
        """How large the payload of an event may be; the rest is for what is said of it, and for a dead letter of it."""
        return self._client.max_payload * 3 // 4

    async def learn_most_bytes(self) -> None:
        await self._client.learn_limits()

    async def state(self) -> TwinState:
        info = await api.stream_info(self._client, self.name)
        api.refuse_foreign(info, self._identity)
        labelled = api.labels(self._identity).items() <= api.metadata_of(info).items()
        for_these = info["config"].get("subjects") == self._subjects
        self._claimed = (
            labelled and for_these and self._missing_replicas(info) <= 0 and not info["config"].get("no_ack")
        )
        if not for_these and not (labelled and self._identity):
            raise TwinDamaged(
                stream=self.name,
                damage="it is for other subjects, made by someone else or by an earlier version",
                remedy=f"if nothing else needs it, delete it (nats stream rm {self.name}); it is made again from the "
                f"log. Otherwise use another NATS server or account.",
            )
        self._doubtful |= {event.position: event for event in self._weighing.look(info)}
        await self._compare_doubtful()
        return api.state_of(info)

    async def create(self, first: int) -> None:
        config = nats_api.StreamConfig(
            name=self.name,
            subjects=self._subjects,
            storage=nats_api.StorageType.FILE,
            compression=self._compression,
            num_replicas=self._replicas,
            allow_direct=True,
            first_seq=first,
            metadata=api.labels(self._identity) or None,
        )
        try:
            await self._manager.add_stream(config)
        except (NatsError, APIError, TimeoutError) as error:
            if getattr(error, "err_code", None) != _NAME_IN_USE:
                raise unavailable(error) from error

    async def claim(self) -> None:
        if self._claimed:
            return
        info = await api.stream_info(self._client, self.name)
        api.refuse_foreign(info, self._identity)
        config = {**info["config"], "metadata": {**api.metadata_of(info), **api.labels(self._identity)}}
        # Without an answer to what is published, each batch would be waited for in vain, and under other subjects it
        # would not be stored. To make the stream anew would put at risk what only it has.
        config |= {"no_ack": False, "subjects": self._subjects}
        # Of an earlier release; later an operator's choice is kept.
        if api.INSTALLATION not in api.metadata_of(info):
            config["compression"] = self._compression.value
        # A user without the right to do either can do everything else.
        try:
            await api.update_stream(self._client, self.name, config)
        except Unavailable as error:
            if info["config"].get("subjects") != self._subjects:
                raise
            structlog.get_logger().warning("twin.not_labelled", stream=self.name, why=str(error))
        try:
            # More of them than the setting says are left: an operator wanted them.
            if self._missing_replicas(info) > 0:
                await api.update_stream(self._client, self.name, {**config, "num_replicas": self._replicas})
        except Unavailable as error:
            structlog.get_logger().warning("twin.not_replicated", stream=self.name, why=str(error))
        self._claimed = True

    @property
    def _compression(self) -> nats_api.StoreCompression:
        """Of full blocks, to a quarter. One that exists has those compressed that are filled after the server's next
        start."""
        server = self._client.connected_server_version
        sound = server.patch >= _SOUND.get((server.major, server.minor), 0)
        return nats_api.StoreCompression.S2 if sound else nats_api.StoreCompression.NONE

    def _missing_replicas(self, info: Mapping[str, Any]) -> int:
        return self._replicas - int(info["config"].get("num_replicas", 1))

    async def delete(self) -> None:
        with suppress(TwinMissing), api.asking(self.name):
            await self._manager.delete_stream(self.name)

    async def trim(self, upto: int) -> None:
        """Takes out every message up to this sequence."""
        with api.asking(self.name):
            await self._manager.purge_stream(self.name, seq=upto + 1)

    async def publish(self, events: Sequence[Recorded]) -> None:
        for start in range(0, len(events), BATCH):
            await self._publish(events[start : start + BATCH])

    async def message(self, sequence: int) -> bytes | None:
        """The bytes of one message; None where there is none."""
        with suppress(TwinMissing), api.asking(self.name):
            return (await self._manager.get_msg(self.name, sequence)).data
        return None

    @asynccontextmanager
    async def deliver(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> AsyncIterator[Delivery]:
        delivery = JetStreamDelivery(
            self._client,
            self.name,
            self.message,
            after,
            types,
            routing_key,
            prefix=self._prefix,
            identity=self._identity,
        )
        try:
            await delivery.open(_filters(self.name, types, routing_key))
            yield delivery
        finally:
            await delivery.close()

    async def ahead(self, after: int, types: Sequence[str] = (), routing_key: str = "") -> int:
        return await api.pending(self._client, self.name, after + 1, self._wanted(types, routing_key))

    async def next_ahead(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> Recorded | None:
        found = await asyncio.gather(
            *(
                api.next_message(self._client, self.name, after + 1, subject)
                for subject in self._wanted(types, routing_key)
            )
        )
        first = min((message for message in found if message), default=None)
        if first is None:
            return None
        sequence, subject, data = first
        return event_in(self.name, sequence, subject.removeprefix(self._prefix), data)

    def _wanted(self, types: Sequence[str], routing_key: str) -> Sequence[str]:
        """The subjects of what is wanted, each by itself."""
        return [f"{self.name}.*.{type}.{routing_key or '*'}" for type in types or ("*",)]

    async def notify(self) -> None:
        await self._hints.give()

    async def notified(self, timeout_seconds: float) -> None:
        await self._hints.taken(timeout_seconds)

    async def _publish(self, events: Sequence[Recorded]) -> None:
        # One write, and replies to the first and the last message: each is refused unless the one before it is stored,
        # or something in its place. Where this process did not store the one before, the first goes ahead alone: if
        # that does not fit, the rest is not sent.
        first, *rest = events
        if rest and first.position != self._stored + 1:
            await self._store([first])
            events = rest
        try:
            await self._store(events)
        except WrongLastSequence:
            if rest:  # only the last one was answered: the first that was refused is told why
                await self._store(events[:1])
            raise
        self._stored = events[-1].position

    def _message(self, event: Recorded) -> Outgoing:
        """With the fence, which refuses it unless it is the next, and with the events before it."""
        subject = self._prefix + event.subject
        before = self._history.before(event.position, subject)
        fence = f"Nats-Expected-Last-Sequence: {event.position - 1}"
        return Outgoing(subject, f"{fence}\r\n{PREDECESSORS}: {before}\r\n", to_wire(event))

    async def _store(self, events: Sequence[Recorded]) -> None:
        position = events[-1].position
        messages = [self._message(event) for event in events]
        try:
            answers = await self._client.publish_all(messages, api.REQUEST_TIMEOUT_SECONDS)
        except NoRespondersError as error:
            raise TwinMissing(stream=self.name) from error
        except MaxPayloadError as error:
            await self._store_until_too_large(events, error)
            return
        except (NatsError, TimeoutError, OSError) as error:
            raise unavailable(error) from error
        answer = api.answer_in(answers.last)
        refusal = answer.get("error")
        if refusal:
            self._stored = 0  # so that the next time the first goes alone, and is told why it is refused
        if refusal and refusal.get("err_code") == _WRONG_LAST_SEQUENCE:
            raise WrongLastSequence(stream=self.name, position=position)
        if refusal and refusal.get("err_code") == api.STREAM_NOT_FOUND:
            raise TwinMissing(stream=self.name)
        if refusal and refusal.get("err_code") == _SEALED:
            raise TwinDamaged(
                stream=self.name,
                damage="it is sealed and takes no more events",
                remedy=f"`twinlog repair {self.name}` puts back into the log what only the stream has; then delete it "
                f"(nats stream rm {self.name}): it is made again from the log.",
            )
        if refusal:
            limits = refusal.get("err_code") in _AT_A_LIMIT
            remedy = f"; `nats stream edit {self.name} {_NO_LIMITS}` takes the limit away" if limits else ""
            raise api.refused(refusal, f"JetStream refused event {position}: {{}}{remedy}")
        if answer.get("seq") != position:
            # Another stream listens to these subjects, or the server ignores the header.
            raise Unavailable(f"JetStream stored event {position} as {answer.get('seq')}")
        if api.answer_in(answers.first).get("error"):
            # What lies in its place has the sequence that the next one had to follow: a rival's copy, or no event.
            self._stored, self._doubtful[events[0].position] = 0, events[0]
            await self._compare_doubtful()
        self._weighing.stored(messages, events)

    async def _compare_doubtful(self) -> None:
        """Raises TwinDamaged for as long as another message lies in the place of an event in doubt."""
        # Several callers may compare at once, and more may come into doubt meanwhile: each takes off what it has read.
        while doubtful := [*islice(self._doubtful.values(), _READ_AT_ONCE)]:
            messages = await asyncio.gather(*(self.message(event.position) for event in doubtful))
            for event, message in zip(doubtful, messages, strict=True):
                if message is not None and not mirrors(message, event):
                    raise not_its_event(self.name, event.position)
                self._doubtful.pop(event.position, None)

    async def _store_until_too_large(self, events: Sequence[Recorded], error: MaxPayloadError) -> None:
        """Stores what precedes an event that the server does not take. Raises Unavailable, which names that one."""
        if len(events) > 1:
            middle = len(events) // 2
            await self._store(events[:middle])
            await self._store(events[middle:])
            return
        [event] = events
        known = self._client.max_payload
        await self._client.learn_limits()
        if self._client.max_payload > known:
            await self._store(events)
            return
        raise Unavailable(
            f"event {event.address} has {len(to_wire(event))} bytes, and this nats-server takes messages of "
            f"{known} at most; set its max_payload, or that of this account, higher"
        ) from error


def _filters(stream: str, types: Sequence[str], routing_key: str) -> Sequence[str]:
    """The subjects to ask the server for; empty: all.

    With a routing key it is a single one, and the delivery filters by type: given several, the server searches all
    subjects of the stream for each message while many wait (docs/adr/0013).
    """
    return [f"{stream}.*.*.{routing_key}"] if routing_key else [f"{stream}.*.{type}.*" for type in types]
