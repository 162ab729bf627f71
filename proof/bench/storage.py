"""What a saga leaves behind, beside the baseline's: ``python -m proof.bench.storage [orders]``.

Run by itself it also says of which tables those in Postgres are.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from proof.bench import measure
from proof.bench.report import Row
from proof.bench.rounds import BASELINE, BesideBaseline
from proof.bench.systems import System, started
from stack.shop import Shop
from stack.topology import DATABASES, ROOT, SHOP_LOGS
from twinlog.testing.internals import NatsClient, close, connect, database_url

NOTE = (
    "Bytes a saga: what the tables with their indexes, and the messages of the streams, grow by over a measurement of "
    "its own; every order carries a request id, whose outcome is kept for a week. Postgres is measured after a VACUUM, "
    "without the write-ahead log. The shop's streams are compressed when a block of 8 MB is full: on disk, a saga's "
    "messages take what full blocks have left of theirs; the last row is all files, with the blocks that are not full. "
    "The baseline has no index but its positions, and keeps neither types, "
    "metadata, outcomes of requests, timers nor timelines."
)
_KB = 1000
_BASELINE_STREAMS = ("baseline_orders", "baseline_customers")
_SIZES = """SELECT relname::text, pg_total_relation_size(oid) FROM pg_class
             WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""
_ORDERS = 10_000
_FULL = b"cmp"
"""How a block begins that is compressed; behind it and a byte for the algorithm is its size before, as a varint."""


async def rows(shop: Shop, systems: Sequence[System], orders: int) -> list[Row]:
    """Two rows a system, of one round, since sizes hardly vary; and the streams' files, where the server is ours."""
    tables = BesideBaseline(systems, "{}: bytes a saga in Postgres", "kB")
    streams = BesideBaseline(systems, "{}: bytes a saga in NATS", "kB")
    client = await connect(shop.nats_url, "bench")
    try:
        for system in systems:
            of_baseline = system is systems[0]
            names = _BASELINE_STREAMS if of_baseline else list(SHOP_LOGS)
            before = await _in_postgres(shop, of_baseline), await _in_nats(client, names)
            await measure.rates(system, orders)
            after = await _in_postgres(shop, of_baseline), await _in_nats(client, names)
            grown = after[0] - before[0]
            if __name__ == "__main__":
                print(
                    f"{system.name}:",
                    *(f"  {each}: {size / orders:,.0f}" for each, size in grown.most_common()),
                    sep="\n",
                )
            tables.add(system, sum(grown.values()) / orders / _KB)
            streams.add(system, (after[1] - before[1]) / orders / _KB)
        whole = await _in_nats(client, list(SHOP_LOGS))
    finally:
        await close(client)
    return [
        *tables.rows,
        *streams.rows,
        *(_files(shop.nats.store, streams, systems, whole) if shop.nats else []),
    ]


def _files(store: Path, streams: BesideBaseline, systems: Sequence[System], whole: int) -> list[Row]:
    """What is on disk of the shop's streams, and of a saga's messages where blocks are full already."""
    # Their indexes are written from time to time only.
    blocks = [file for file in store.rglob("*.blk") if not {*file.parts} & {*_BASELINE_STREAMS}]
    full = [(file.stat().st_size, before) for file in blocks if (before := _size_before(file))]
    found = []
    if full:
        left = sum(size for size, _ in full) / sum(before for _, before in full)
        [baseline] = streams[systems[0].name].values
        for system in systems[1:]:
            [messages] = streams[system.name].values
            found.append(
                Row(f"{system.name}: bytes a saga in NATS, on disk", "kB", BASELINE).add(
                    messages * left, baseline
                )
            )
    row = Row("the shop's streams: on disk", "MB", "their messages")
    return [*found, row.add(sum(file.stat().st_size for file in blocks) / _KB**2, whole / _KB**2)]


def _size_before(block: Path) -> int:
    """How large a block was before it was compressed; 0: it is not."""
    with block.open("rb") as file:
        start = file.read(14)
    size, shift = 0, 0
    for byte in start[4:] if start.startswith(_FULL) else b"":
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return size
    return 0


async def _in_postgres(shop: Shop, of_baseline: bool) -> Counter[str]:
    """The bytes of each table with its indexes."""
    total = Counter[str]()
    for name in ["baseline"] if of_baseline else DATABASES:
        connection = await asyncpg.connect(database_url(shop.postgres_url, name))
        try:
            await connection.execute("VACUUM")
            total.update({f"{name}.{table}": size for table, size in await connection.fetch(_SIZES)})
        finally:
            await connection.close()
    return total


async def _in_nats(client: NatsClient, streams: Sequence[str]) -> int:
    return sum([(await client.jsm().stream_info(name)).state.bytes for name in streams])


async def _main(orders: int) -> None:
    async with started(ROOT / ".data" / "storage") as (shop, systems):
        for system in systems:
            await measure.rates(system, orders // 10)
        for row in await rows(shop, systems, orders):
            print(f"{row.what}: {row.value:,.3g} {row.unit} ({row.ratio:.2f} × {row.base})")


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else _ORDERS))
