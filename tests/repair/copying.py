"""What a process appends and copies with, of a log that may lose events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.twin.relaying import running
from twinlog import Log, Schema, Writer
from twinlog.log.lineage import Lineage
from twinlog.testing.internals import RandomIds, Relay, SystemClock, Twin


@asynccontextmanager
async def service(log: Log, twin: Twin) -> AsyncIterator[tuple[Writer, Relay, Lineage]]:
    """A writer, a relay and the check of the log's history, at work during the block."""
    lineage = Lineage(log, twin)
    relay = Relay(log, twin, on_fork=lineage.doubt)
    writer = Writer(
        log,
        schema=Schema(),
        clock=SystemClock(),
        ids=RandomIds(),
        on_commit=relay.offer,
        lineage=lineage,
    )
    checking = asyncio.create_task(lineage.run())
    async with running(relay), writer:
        yield writer, relay, lineage
    checking.cancel()
