"""What may happen to a stream behind the back of Twinlog, and what tests of a twin do with its deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from twinlog.log.twin import Delivery, DeliveryLost, Twin
from twinlog.memory.twin import MemoryTwin
from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded


class Damage(Protocol):
    """Someone with the nats command line."""

    def twin(self) -> Twin:
        """The stream, as another process sees it."""

    async def purge(self, keep: int = 0) -> None:
        """Removes all messages but the newest ``keep``."""

    async def remove(self, sequence: int) -> None: ...

    async def put(self, subject: str, data: bytes) -> None:
        """Adds a message to the stream; ``subject`` without its first token."""

    async def delete_consumers(self) -> None: ...


class MemoryDamage:
    """Of a stream in memory."""

    def __init__(self, name: str) -> None:
        self._twin = MemoryTwin(name)

    def twin(self) -> Twin:
        return self._twin

    async def purge(self, keep: int = 0) -> None:
        assert self._twin.messages is not None
        for sequence in sorted(self._twin.messages)[: len(self._twin.messages) - keep]:
            del self._twin.messages[sequence]

    async def remove(self, sequence: int) -> None:
        assert self._twin.messages is not None
        del self._twin.messages[sequence]

    async def put(self, subject: str, data: bytes) -> None:
        assert self._twin.messages is not None
        self._twin.last += 1
        self._twin.messages[self._twin.last] = (f"{self._twin.name}.{subject}", data)
        self._twin.wake_deliveries()

    async def delete_consumers(self) -> None:
        self._twin.delete_consumers()


async def take(delivery: Delivery, count: int, limit: int = 500) -> list[Recorded]:
    """The next so many events."""
    events: list[Recorded] = []
    async with asyncio.timeout(60):
        while len(events) < count:
            got = await delivery.next(min(limit, count - len(events)))
            assert 0 < len(got) <= limit
            events += got
    return events


async def created_again(twin: Twin) -> bool:
    """Creates it. Right after a deletion, the server may not be able to for a moment."""
    try:
        await twin.create(1)
    except Unavailable:
        return False
    return True


async def lost(delivery: Delivery, after: int) -> str:
    """Why the delivery is lost; until then it gives what follows ``after``, and nothing is left out."""
    async with asyncio.timeout(60):
        while True:
            try:
                events = await delivery.next(500)
            except DeliveryLost as error:
                return str(error)
            for event in events:
                assert event.position == after + 1
                after = event.position


async def follow(twin: Twin, after: int, types: Sequence[str]) -> None:
    """Raises DeliveryLost, before anything is left out."""
    async with twin.deliver(after, types) as delivery:
        raise DeliveryLost(stream=twin.name, why=await lost(delivery, after))
