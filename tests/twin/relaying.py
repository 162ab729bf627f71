"""Relays at work, and what their stream has to look like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.waiting import until
from twinlog import Log, Unavailable
from twinlog.log.lineage import Lineage
from twinlog.testing.internals import Relay, Twin, TwinMissing, to_wire

_ASKED_AT_ONCE = 100


@asynccontextmanager
async def running(*relays: Relay | Lineage) -> AsyncIterator[None]:
    """Runs relays as long as the block takes; none may end by itself."""
    tasks = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def mirrored(log: Log, twin: Twin) -> None:
    """Returns when message n of the stream is event n of the log, from the first to the last."""

    messages: list[bytes | None] = []

    async def whole() -> bool:
        messages.clear()
        try:
            state = await twin.state()
            if state != (1, await log.head(), 0):
                return False
            for start in range(1, state.last + 1, _ASKED_AT_ONCE):
                some = range(start, min(start + _ASKED_AT_ONCE, state.last + 1))
                messages.extend(await asyncio.gather(*map(twin.message, some)))
        except (TwinMissing, Unavailable):
            return False
        return True

    await until(whole)
    assert messages == [to_wire(event) for event in await log.read(0, len(messages))]
