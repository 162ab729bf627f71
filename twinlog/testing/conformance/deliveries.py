"""What tests of a twin do with its deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from twinlog.log.twin import Delivery, DeliveryLost, Twin
from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded


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
