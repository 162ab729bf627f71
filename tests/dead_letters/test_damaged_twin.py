"""A message in the stream that is no event: never skipped, never parked, always seen."""

from __future__ import annotations

import asyncio

from tests.dead_letters.journal import Source, journal, replica
from tests.waiting import in_service, until
from twinlog.testing import MemoryLog
from twinlog.testing.internals import Cursor, JetStreamTwin, NatsClient


async def test_the_consumer_waits_visibly_until_the_stream_is_made_again(
    nats: NatsClient, stream: str
) -> None:
    source, log, twin = Source(), MemoryLog("own"), JetStreamTwin(nats, stream)
    events = [event._replace(log=stream) for event in source.add("a:1", "a:2")]
    await twin.create(1)
    await twin.publish(events[:1])
    await nats.request(f"{stream}.0.StringValue.-", b"\xff\xff", timeout=30)
    async with replica(source, log) as handler:
        cursor = Cursor(twin, handler)
        following = asyncio.create_task(cursor.run())
        await until(lambda: "message 2" in (cursor.problem or ""))
        assert journal(log, "a") == [1]
        await twin.delete()
        await in_service(twin.create, 1)
        await twin.publish(events)
        await until(lambda: journal(log, "a") == [1, 2])
        await until(lambda: cursor.problem is None)
        following.cancel()
    assert handler.count == 0
