"""What a saga leaves behind: bytes in Postgres and in NATS, beside the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import asyncpg

from proof.bench import measure
from proof.bench.report import Row
from proof.bench.rounds import BesideBaseline
from proof.bench.systems import System
from stack.shop import Shop
from stack.topology import DATABASES
from twinlog.testing.internals import database_url

NOTE = (
    "Bytes a saga: what the tables with their indexes and the streams' files grow by, over a measurement of its own; "
    "every order carries a request id, whose outcome is kept for a week. Postgres is measured after a VACUUM, without "
    "the write-ahead log. The baseline has no index but its positions, and keeps neither types, metadata, outcomes of "
    "requests, timers nor timelines."
)
_KB = 1000
_SIZE = """SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""


async def rows(shop: Shop, systems: Sequence[System], orders: int) -> list[Row]:
    """Two rows a system: one round, since sizes hardly vary. Empty where the servers are not ours."""
    if shop.nats is None:
        return []
    tables = BesideBaseline(systems, "{}: bytes a saga in Postgres", "kB")
    streams = BesideBaseline(systems, "{}: bytes a saga in NATS", "kB")
    for system in systems:
        databases = ["baseline"] if system is systems[0] else DATABASES
        before = await _in_postgres(shop, databases), _in_nats(shop.nats.store)
        await measure.rates(system, orders)
        after = await _in_postgres(shop, databases), _in_nats(shop.nats.store)
        tables.add(system, (after[0] - before[0]) / orders / _KB)
        streams.add(system, (after[1] - before[1]) / orders / _KB)
    return [*tables.rows, *streams.rows]


async def _in_postgres(shop: Shop, databases: Sequence[str]) -> int:
    total = 0
    for name in databases:
        connection = await asyncpg.connect(database_url(shop.postgres_url, name))
        try:
            await connection.execute("VACUUM")
            total += int(await connection.fetchval(_SIZE))
        finally:
            await connection.close()
    return total


def _in_nats(store: Path) -> int:
    """Of the blocks; their indexes are written from time to time only."""
    return sum(file.stat().st_size for file in store.rglob("*.blk"))
