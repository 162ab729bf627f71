"""What a log as a file costs: ``python -m proof.bench.files`` exports a log and imports it, and prints events a second.

Of processor time, of this process and of its sessions in Postgres, so that a busy machine adds little. Beside an export
stands the bare SELECT of the same rows, beside an import the bare COPY of the same rows.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from proof.bench import apart
from proof.bench.histories import new_event
from proof.bench.report import Row
from proof.bench.sealing import rows as sealing
from shop.customers.v1.events_pb2 import CreditReserved
from twinlog import StreamId
from twinlog.dev import EmbeddedPostgres
from twinlog.testing.internals import (
    Appended,
    Batch,
    Pool,
    PostgresLog,
    SystemClock,
    checked,
    export,
    import_log,
    open_log,
)

TITLE = "A log as a file, and personal fields"
EVENTS = 20_000
ROUNDS = 5
_BATCH = 500
_READ = "SELECT * FROM events WHERE position > $1 ORDER BY position LIMIT 2000"
_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"


async def rows() -> tuple[list[Row], list[str]]:
    """The rows of the bench, measured in its own process; and why there are none, if so."""
    try:
        return await apart.rows([sys.executable, "-m", "proof.bench.files"], {}), []
    except apart.Failed as error:
        return [], [f"Files were not measured: {error}."]


async def main() -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="files-", dir="/var/tmp"))
        server = await stack.enter_async_context(EmbeddedPostgres(Path(folder) / "postgres"))
        log = await stack.enter_async_context(open_log(server.url, "bench", "customers", size=2))
        await _fill(log)
        exported = Row(f"export of {EVENTS:,} events", "events/s of processor time", base="bare SELECT")
        imported = Row("import of them", "events/s of processor time", base="bare COPY")
        for number in range(ROUNDS):
            file = BytesIO()
            least = await _rate(log.pool, lambda: _select(log.pool))

            async def write(file: BytesIO = file) -> None:
                await export(log, None, "bench", file, "customers.twinlog")

            exported.add(await _rate(log.pool, write), to=least)
            async with open_log(server.url, f"again_{number}", "customers", size=2) as other:
                least = await _copied(log.pool, other.pool)

                async def read(file: BytesIO = file, other: PostgresLog = other) -> None:
                    file.seek(0)
                    found = checked(file, "customers.twinlog")
                    await import_log(other.pool, "customers", "again", file, "customers.twinlog", found)

                imported.add(await _rate(other.pool, read), to=least)
    print(json.dumps([asdict(row) for row in [exported, imported, *await sealing()]]))


async def _fill(log: PostgresLog) -> None:
    for number in range(EVENTS // _BATCH):
        id = f"customer-{number}"
        events = [
            new_event(id, version, CreditReserved(customer_id=id, order_id=f"order-{version}"))
            for version in range(1, _BATCH + 1)
        ]
        at = SystemClock().now()
        assert isinstance(await log.append(Batch(at, {StreamId("customer", id): 0}, events)), Appended)


async def _select(pool: Pool) -> None:
    position = 0
    while rows := await pool.fetch(_READ, position):
        position = rows[-1]["position"]


async def _copied(source: Pool, target: Pool) -> float:
    """The rate of a bare COPY into a table of the same columns and indexes."""
    rows = [tuple(row) for row in await source.fetch("SELECT * FROM events ORDER BY position")]
    await target.execute("CREATE TABLE bare (LIKE events INCLUDING ALL)")

    async def copy() -> None:
        for at in range(0, len(rows), 2_000):
            await target.copy_records_to_table("bare", records=rows[at : at + 2_000])

    return await _rate(target, copy)


async def _rate(pool: Pool, work: Callable[[], Awaitable[None]]) -> float:
    """Events a second of processor time, here and in Postgres."""
    async with pool.acquire(), pool.acquire() as connection:  # both sessions are there then
        sessions = [row[0] for row in await connection.fetch(_SESSIONS)]
    here, there = time.process_time(), _processor_seconds(sessions)
    await work()
    return EVENTS / (time.process_time() - here + _processor_seconds(sessions) - there)


def _processor_seconds(sessions: list[int]) -> float:
    """What sessions have spent, to the nanosecond."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in sessions) / 1e9


if __name__ == "__main__":
    asyncio.run(main())
