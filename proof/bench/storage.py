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
from stack.topology import DATABASES, SHOP_LOGS
from twinlog.testing.internals import NatsClient, close, connect, database_url

NOTE = (
    "Bytes a saga: what the tables with their indexes, and the messages of the streams, grow by over a measurement of "
    "its own; every order carries a request id, whose outcome is kept for a week. Postgres is measured after a VACUUM, "
    "without the write-ahead log. The shop's streams are compressed when a block of 8 MB is full; the last row says "
    "how much of their bytes is left on disk. The baseline has no index but its positions, and keeps neither types, "
    "metadata, outcomes of requests, timers nor timelines."
)
_KB = 1000
_BASELINE_STREAMS = ("baseline_orders", "baseline_customers")
_SIZE = """SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""


async def rows(shop: Shop, systems: Sequence[System], orders: int) -> list[Row]:
    """Two rows a system, of one round, since sizes hardly vary; and the streams' files, where the server is ours."""
    tables = BesideBaseline(systems, "{}: bytes a saga in Postgres", "kB")
    streams = BesideBaseline(systems, "{}: bytes a saga in NATS", "kB")
    client = await connect(shop.nats_url, "bench")
    try:
        for system in systems:
            of_baseline = system is systems[0]
            databases = ["baseline"] if of_baseline else DATABASES
            names = _BASELINE_STREAMS if of_baseline else list(SHOP_LOGS)
            before = await _in_postgres(shop, databases), await _in_nats(client, names)
            await measure.rates(system, orders)
            after = await _in_postgres(shop, databases), await _in_nats(client, names)
            tables.add(system, (after[0] - before[0]) / orders / _KB)
            streams.add(system, (after[1] - before[1]) / orders / _KB)
        whole = await _in_nats(client, list(SHOP_LOGS))
    finally:
        await close(client)
    files = Row("the shop's streams: on disk", "MB", "their messages")
    on_disk = [files.add(_on_disk(shop.nats.store) / _KB**2, whole / _KB**2)] if shop.nats else []
    return [*tables.rows, *streams.rows, *on_disk]


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


async def _in_nats(client: NatsClient, streams: Sequence[str]) -> int:
    return sum([(await client.jsm().stream_info(name)).state.bytes for name in streams])


def _on_disk(store: Path) -> int:
    """The blocks of the shop's streams; their indexes are written from time to time only."""
    blocks = (file for file in store.rglob("*.blk") if not {*file.parts} & {*_BASELINE_STREAMS})
    return sum(file.stat().st_size for file in blocks)
