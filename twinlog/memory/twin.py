"""The twin in memory: refuses what JetStream refuses, and can be damaged in the same ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress

from twinlog.log.twin import (
    Delivery,
    DeliveryLost,
    TwinDamaged,
    TwinMissing,
    TwinState,
    WrongLastSequence,
    event_in,
)
from twinlog.log.wire import to_wire
from twinlog.model.event import Recorded


class MemoryTwin:
    """A stream that lives as long as this object."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: dict[int, tuple[str, bytes]] | None = None
        """Subject and bytes by sequence; None while the stream does not exist."""
        self.last = 0
        self.consumers = object()
        """Stands for all consumers; another object after they were deleted."""
        self._changed = asyncio.Event()
        self._notified = asyncio.Event()
        self._read: dict[int, tuple[bytes, Recorded]] = {}
        """What messages hold that were read before: each has several readers."""

    async def state(self) -> TwinState:
        messages = self._existing()
        first = min(messages, default=self.last + 1)
        return TwinState(first, self.last, self.last + 1 - first - len(messages))

    async def create(self, first: int) -> None:
        if self.messages is None:
            self.messages, self.last = {}, first - 1

    async def claim(self) -> None:
        """Does nothing: no other process can have made it."""

    async def delete(self) -> None:
        self.messages = None
        self.delete_consumers()

    def delete_consumers(self) -> None:
        """Ends all deliveries."""
        self.consumers = object()
        self.wake_deliveries()

    async def message(self, sequence: int) -> bytes | None:
        message = self._existing().get(sequence)
        return message[1] if message else None

    async def publish(self, events: Sequence[Recorded]) -> None:
        messages = self._existing()
        if events[0].position != self.last + 1:
            raise WrongLastSequence(stream=self.name, position=events[0].position)
        for event in events:
            self.last += 1
            messages[self.last] = (event.subject, to_wire(event))
        self.wake_deliveries()

    @asynccontextmanager
    async def deliver(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> AsyncIterator[Delivery]:
        state = await self.state()
        if state.first > after + 1:
            raise DeliveryLost(
                stream=self.name, why=f"events {after + 1} to {state.first - 1} are gone from it"
            )
        yield _Delivery(self, after, types, routing_key)

    async def notify(self) -> None:
        self._notified.set()

    async def notified(self, timeout_seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._notified.wait()
        self._notified.clear()

    async def ahead(self, after: int, types: Sequence[str] = (), routing_key: str = "") -> int:
        return len([*self._ahead(after, types, routing_key)])

    async def next_ahead(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> Recorded | None:
        first = min(self._ahead(after, types, routing_key), default=None)
        return self.event(first, *self._existing()[first]) if first else None

    def _ahead(self, after: int, types: Sequence[str], routing_key: str) -> Iterator[int]:
        for sequence, (subject, _) in self._existing().items():
            type, key = subject.split(".")[2:]
            if sequence > after and type in (types or (type,)) and routing_key in ("", key):
                yield sequence

    async def changed(self) -> None:
        """Returns when the stream has changed."""
        await self._changed.wait()

    def event(self, sequence: int, subject: str, data: bytes) -> Recorded:
        """The event in a message. Raises TwinDamaged where it is not the event of that position."""
        known = self._read.get(sequence)
        if known is None or known[0] is not data:
            known = self._read[sequence] = (data, event_in(self.name, sequence, subject, data))
        return known[1]

    def _existing(self) -> dict[int, tuple[str, bytes]]:
        if self.messages is None:
            raise TwinMissing(stream=self.name)
        return self.messages

    def wake_deliveries(self) -> None:
        """Wakes the deliveries after ``messages`` was changed by hand."""
        self._changed.set()
        self._changed = asyncio.Event()


class _Delivery:
    def __init__(self, twin: MemoryTwin, after: int, types: Sequence[str], routing_key: str) -> None:
        self._twin = twin
        self._consumers = twin.consumers
        self._position = after
        self._types = types
        self._routing_key = routing_key
        self._wanted: dict[str, bool] = {}
        """By subject."""

    @property
    def waiting(self) -> int:
        return self._twin.last - self._position

    async def next(self, limit: int) -> Sequence[Recorded]:
        while True:
            if self._twin.consumers is not self._consumers:
                raise DeliveryLost(stream=self._twin.name, why="the consumer was deleted")
            events = self._take(limit)
            if events:
                return events
            await self._twin.changed()

    def _take(self, limit: int) -> list[Recorded]:
        events: list[Recorded] = []
        while self._position < self._twin.last and len(events) < limit:
            try:
                event = self._event(self._position + 1)
            except (DeliveryLost, TwinDamaged):
                if events:
                    return events
                raise
            self._position += 1
            if event:
                events.append(event)
        return events

    def _event(self, sequence: int) -> Recorded | None:
        """The event, or None if its type or routing key is not wanted."""
        subject, data = self._message(sequence)
        if subject not in self._wanted:
            self._wanted[subject] = self._wants(subject)
        if not self._wanted[subject]:
            return None
        return self._twin.event(sequence, subject, data)

    def _wants(self, subject: str) -> bool:
        _, _, type, routing_key = subject.split(".")
        return (not self._types or type in self._types) and self._routing_key in ("", routing_key)

    def _message(self, sequence: int) -> tuple[str, bytes]:
        message = (self._twin.messages or {}).get(sequence)
        if message is None:
            raise DeliveryLost(stream=self._twin.name, why=f"event {sequence} is gone from it")
        return message
