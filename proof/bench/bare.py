"""What the kernel's parts stand beside: the same servers, asked for the same, without the kernel."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api

from customer_svc.domain import CUSTOMER
from proof.bench import baseline
from twinlog import Settings
from twinlog.testing.internals import RELAY_BATCH, NewEvent

_STREAM = "bench_bare"
_TABLE = """CREATE TABLE bare (position bigint, stream_type text, stream_id text, version integer, event_id uuid,
    type text, payload bytea, metadata text, partition_key text, recorded_at timestamptz)"""
_INSERT = """INSERT INTO bare SELECT position, type, id, version, event, name, payload, metadata, key, now()
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::integer[], $5::uuid[], $6::text[], $7::bytea[], $8::text[],
    $9::text[]) AS e (position, type, id, version, event, name, payload, metadata, key)"""
_SELECT = f"""SELECT position, version, event_id, type, payload, metadata, partition_key, recorded_at FROM events
    WHERE stream_type = '{CUSTOMER.name}' AND stream_id = $1 ORDER BY version"""


class Bare:
    """Plain connections to both servers."""

    def __init__(self, db: asyncpg.Connection[Any], nats_url: str) -> None:
        self._db = db
        self._nats_url = nats_url

    async def insert(self, new: Sequence[NewEvent]) -> None:
        """The same columns in one statement, into a table that has nothing to check."""
        rows = (
            (
                n,
                *e.stream,
                e.version,
                e.event_id,
                e.type,
                e.payload,
                " ".join(e.metadata[:4]),
                e.partition_key,
            )
            for n, e in enumerate(new)
        )
        await self._db.execute(_INSERT, *map(list, zip(*rows, strict=True)))

    async def select(self, customer_id: str) -> None:
        """A customer's events, as rows."""
        await self._db.fetch(_SELECT, customer_id)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[Client]:
        """A new stream for :meth:`publish`, and a connection."""
        async with self.connected() as bus:
            config = api.StreamConfig(name=_STREAM, subjects=[_STREAM])
            await bus.jsm().add_stream(config)
            yield bus
            await bus.jsm().delete_stream(_STREAM)

    async def publish(self, bus: Client, count: int, data: bytes) -> None:
        """The same message again and again, fenced; as many at once as the relay sends, the last of them answered."""
        for first in range(0, count, RELAY_BATCH):
            last = min(first + RELAY_BATCH, count) - 1
            for number in range(first, last + 1):
                headers = {"Nats-Expected-Last-Sequence": str(number)}
                if number < last:
                    await bus.publish(_STREAM, data, headers=headers)
                else:
                    reply = await bus.request(_STREAM, data, timeout=10, headers=headers)
                    assert json.loads(reply.data).get("seq") == number + 1, reply.data

    async def pull(self, bus: Client, stream: str, head: int) -> None:
        """Every message of a stream, in the baseline's way: one endless pull, and of each only its sequence."""
        reached = asyncio.Event()

        def count(batch: Sequence[tuple[int, Msg]]) -> None:
            if batch[-1][0] >= head:
                reached.set()

        task = asyncio.create_task(baseline.follow(bus, stream, count))
        async with asyncio.timeout(120):
            await reached.wait()
        task.cancel()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        """A connection to NATS."""
        bus = await nats.connect(self._nats_url, pending_size=2**26)
        try:
            yield bus
        finally:
            await bus.close()


@asynccontextmanager
async def open_bare(settings: Settings, database: str) -> AsyncIterator[Bare]:
    """In the database of the log whose rows are to be selected."""
    db = await asyncpg.connect(f"{settings.postgres_url}/{database}")
    try:
        await db.execute(_TABLE)
        yield Bare(db, settings.nats_url)
    finally:
        await db.close()
