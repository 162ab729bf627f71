"""The shop with its old events in an archive; and from files, once everything is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proof.auditor import audit
from shop.queries.v1.order_query_service_pb2 import Order
from stack.shop import running
from tests.controls import MODES
from tests.e2e.client import Client, connect
from tests.servers import folder
from twinlog.dev import EmbeddedNats, EmbeddedPostgres
from twinlog.service.archive import ArchiveOptions, Stream, archive_log
from twinlog.service.export import Options, export_log, import_file
from twinlog.testing.internals import PostgresLog, database_url, open_pool
from twinlog.testing.servers import nats_server

LOGS = {"orders": "shop_orders", "customers": "shop_customers", "sagas": "shop_sagas"}
VIEWS = {"shop_views": ("orders", "customers", "timeline"), "shop_sagas": ("saga_instances",)}
ORDERS = 12


async def test_a_shop_goes_on_with_an_archive_and_is_restored_from_its_files(
    own_postgres: EmbeddedPostgres, own_nats: EmbeddedNats, tmp_path: Path
) -> None:
    url = own_postgres.url
    async with started(url, own_nats.url) as client:
        customer = await client.customer("100")
        placed = [await client.order(customer, "9.99", mode) for mode in MODES for _ in range(ORDERS // 2)]
        assert (await audit(url, own_nats.url, wait_seconds=240)).settled
        recorded = await events(url)
        for log in ("orders", "sagas"):
            asked = ArchiveOptions(
                log, f"file://{tmp_path}", now(), url, LOGS[log], ("order",), 10, Stream.TRIMMED
            )
            done = await archive_log(asked, lambda _line: None)
            assert done.events >= done.removed > 10
        assert await events(url) == recorded
        await client.kill("order_svc")  # which has no state in memory then
        await client.kill("customer_svc")  # whose consumers begin again in streams that are trimmed
        placed[0] = await cancelled(client, placed[0].order_id)
        assert await client.order(customer, "0.01", MODES[1])
        report = await audit(url, own_nats.url, wait_seconds=240)
        assert report.settled and report.clean, report.violations
    restored = await views(url), await events(url)
    for log, database in LOGS.items():
        await export_log(Options(log, tmp_path / log, url, database))

    for database in (*LOGS.values(), "shop_views"):
        await execute(url, f"ALTER DATABASE {database} RENAME TO lost_{database}")
    for log, database in LOGS.items():
        await import_file(Options(log, tmp_path / log, url, database))
    async with nats_server() as empty, started(url, empty.url) as client:
        report = await audit(url, empty.url, wait_seconds=240)
        assert report.settled and report.clean, report.violations
        assert (await views(url), await events(url)) == restored
        assert [await client.get(order.order_id) for order in placed] == placed
        more = await client.order(customer, "0.01", MODES[1])
        assert more.state == placed[2].state


async def cancelled(client: Client, order_id: str) -> Order:
    """An order after it was cancelled."""
    token = (await client.cancel(order_id)).consistency_token
    return await client.get(order_id, token)


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def started(postgres_url: str, nats_url: str) -> AsyncIterator[Client]:
    with folder() as path, pytest.MonkeyPatch.context() as environment:
        environment.setenv("POSTGRES_URL", postgres_url)
        environment.setenv("NATS_URL", nats_url)
        async with running(lambda _line: None, data=path) as shop, connect(shop) as client:
            yield client


async def views(url: str) -> Mapping[str, Sequence[Any]]:
    """Every row of every view."""
    found = {}
    for database, tables in VIEWS.items():
        async with open_pool(database_url(url, database)) as pool:
            for table in tables:
                found[table] = [
                    tuple(row) for row in await pool.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")
                ]
    return found


async def events(url: str) -> Mapping[str, Sequence[Any]]:
    """Every event of every log."""
    found = {}
    for log, database in LOGS.items():
        async with open_pool(database_url(url, database)) as pool:
            found[log] = await PostgresLog(pool, log).read(0, 100_000)
    return found


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url(url, "postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
