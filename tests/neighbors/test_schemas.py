"""Services that share a database, each with its log in a schema of its own, as ``hotel/rooms``."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from customer_svc.app import SPEC
from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED, ORDER_STATE_REJECTED
from stack.clients import connect as connect_clients
from tests import servers
from tests.controls import MODES
from tests.e2e.client import Client
from tests.kernel.batches import grow
from tests.waiting import until
from twinlog import ConfigurationError, Shutdown
from twinlog.audit.project import open_auditor
from twinlog.dev import EmbeddedPostgres, free_port
from twinlog.model.saga_list import SAGA_INSTANCES
from twinlog.postgres.database import connect
from twinlog.postgres.identity import HiddenLog, identify, only
from twinlog.postgres.log import open_log
from twinlog.postgres.named_queries import load_queries
from twinlog.postgres.repair import databases
from twinlog.postgres.urls import psql
from twinlog.postgres.view_builds import ViewBuilds
from twinlog.service.doctor import examine
from twinlog.service.doctor_findings import State
from twinlog.service.export import Options, export_log, import_file
from twinlog.service.process import main_of
from twinlog.testing.internals import database_url

SHOP = {
    "order_svc": ("ORDERS_ADDRESS", "orders"),
    "customer_svc": ("CUSTOMERS_ADDRESS", "customers"),
    "saga_orchestrator": ("SAGAS_ADDRESS", "sagas"),
    "projector": ("QUERIES_ADDRESS", "queries"),
}
"""Its services, with the setting of each one's address, and its schema."""


@pytest.fixture
def database(empty_database: str) -> str:
    """Without tables beside the schemas."""
    return empty_database


@pytest.fixture
def mains(
    namespace: str, postgres_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> Mapping[str, Any]:
    """The shop's programs, all of which have their log in one database."""
    settings = {"POSTGRES_URL": postgres_url, "NATS_URL": nats_url, "TWINLOG_NAMESPACE": namespace}
    addresses = {setting: f"127.0.0.1:{free_port()}" for setting, _ in SHOP.values()}
    for name, value in {**settings, **addresses, "LOG_LEVEL": "error"}.items():
        monkeypatch.setenv(name, value)

    def placed(service: str) -> Any:
        async def main(shutdown: Shutdown) -> None:
            monkeypatch.setenv("POSTGRES_DATABASE", f"hotel/{SHOP[service][1]}")
            app = importlib.import_module(f"{service}.app")
            await main_of(app.SPEC, app.wire)(shutdown)

        return main

    return {service: placed(service) for service in SHOP}


@asynccontextmanager
async def running(mains: Mapping[str, Any]) -> AsyncIterator[Client]:
    """The shop, in this process, with a client."""
    asked: list[Shutdown] = []

    async def run(main: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        asked.append(Shutdown(task))
        await main(asked[-1])

    async with asyncio.TaskGroup() as services:
        for main in mains.values():
            services.create_task(run(main))
        at = {name.removesuffix("_ADDRESS").lower(): os.environ[name] for name, _ in SHOP.values()}
        for address in at.values():
            await until(lambda: listens(address))  # noqa: B023
        async with connect_clients(SimpleNamespace(**at)) as stubs:
            yield Client(**vars(stubs), shop=cast(Any, None))
        for each in asked:
            each.request("the test ends")


async def listens(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


async def test_the_shop_runs_in_one_database_and_its_audit_passes(
    mains: Mapping[str, Any], namespace: str, postgres_url: str
) -> None:
    async with running(mains) as client:
        customer = await client.customer(limit="30")
        for mode in MODES:
            ended = [await client.order(customer, total, mode) for total in ("12", "40")]
            assert [order.state for order in ended] == [ORDER_STATE_APPROVED, ORDER_STATE_REJECTED]
        async with open_auditor(mains) as auditor:
            report = await auditor.until_settled(30)
        assert report.violations == []
        assert report.figures.checked["view rows"] > 4

    found = [each for each in await databases(postgres_url) if each.startswith(f"{namespace}_hotel")]
    assert found == sorted(f"{namespace}_hotel/{schema}" for _, schema in SHOP.values())
    connection = await connect(database_url(postgres_url, f"{namespace}_hotel"))
    try:
        in_public = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert await connection.fetchval(in_public) == 0
        assert await connection.fetchval("SELECT count(*) FROM orders.events WHERE stream_type = 'order'") > 4
    finally:
        await connection.close()


async def test_builds_of_views_of_one_name_take_schemas_of_their_own(
    postgres_url: str, database: str
) -> None:
    queries = load_queries("twinlog.postgres.sql")
    async with (
        open_log(postgres_url, f"{database}/one", "one") as one,
        open_log(postgres_url, f"{database}/two", "two") as two,
    ):
        first, second = ViewBuilds(one.pool, queries), ViewBuilds(two.pool, queries)
        view = cast(Any, SAGA_INSTANCES)
        begun = await asyncio.gather(*(builds.begin_build(view, 1, 100) for builds in (first, second)))
        assert sorted(build.number for build in begun) == [2, 3]
        await first.drop_build(begun[0], [], SAGA_INSTANCES.table)
        again = await first.begin_build(view, 1, 100)
        assert again.number not in {build.number for build in begun}
        await second.drop_build(begun[1], [], SAGA_INSTANCES.table)
        kept = [[b.number for b in await of.builds() if not (b.home or b.dropped)] for of in (first, second)]
        assert kept == [[again.number], []]


async def test_locks_of_two_schemas_are_apart(postgres_url: str, database: str) -> None:
    queries = load_queries("twinlog.postgres.sql")
    async with (
        open_log(postgres_url, f"{database}/one", "one") as one,
        open_log(postgres_url, f"{database}/two", "two") as two,
        one.pool.acquire() as first,
        two.pool.acquire() as second,
        one.pool.acquire() as third,
    ):
        assert await first.fetchval(queries["archive_lock"])
        assert await second.fetchval(queries["archive_lock"])
        assert not await third.fetchval(queries["archive_lock"])
        async with first.transaction(), second.transaction():
            await first.execute(queries["lock_view"], "rooms")
            await asyncio.wait_for(second.execute(queries["lock_view"], "rooms"), 60)


async def test_a_log_goes_from_a_schema_into_another(
    postgres_url: str, database: str, tmp_path: Path
) -> None:
    file = tmp_path / "one.log"
    async with open_log(postgres_url, f"{database}/one", "one") as one:
        events = await grow(one, 5)
    out = await export_log(Options("one", file, postgres_url, f"{database}/one"))
    back = await import_file(Options("one", file, postgres_url, f"{database}/two"))
    assert (out.events, back.events) == (5, 5)
    async with open_log(postgres_url, f"{database}/two", "one") as two:
        assert await two.read(0, 10) == events


async def test_the_schema_public_beside_is_another_log(postgres_url: str, database: str) -> None:
    """Whoever has no schema lies in public; nothing of it is taken for the schema's own."""
    async with open_log(postgres_url, database, "plain") as plain:
        await grow(plain, 3)
        async with open_log(postgres_url, f"{database}/rooms", "rooms") as rooms:
            assert (await plain.head(), await rooms.head()) == (3, 0)
            await grow(rooms, 1)
        assert await plain.head() == 3
        await identify(plain.pool, "", "", "plain")
        await plain.pool.execute(
            "CREATE SCHEMA kept; CREATE TABLE kept.log_head AS SELECT * FROM public.log_head; "
            "CREATE TABLE kept.log_identity AS SELECT * FROM public.log_identity"
        )
    found = [each for each in await databases(postgres_url) if each.startswith(database)]
    assert found == [database, f"{database}/rooms"], "a copy is none of its own"


async def test_a_log_that_the_search_path_leads_away_from_is_not_begun_anew(
    postgres_url: str, database: str
) -> None:
    async with open_log(postgres_url, database, "rooms", admit=only("rooms")) as log:
        await grow(log, 3)
        await identify(log.pool, "", "", "rooms")
    name = f'"{database}"'
    path = f"CREATE SCHEMA elsewhere; ALTER DATABASE {name} SET search_path = elsewhere"
    await servers.execute(postgres_url, path, database)
    with pytest.raises(HiddenLog, match=rf"log rooms of database {database} is in schema public"):
        async with open_log(postgres_url, database, "rooms", admit=only("rooms")):
            pass
    async with open_log(postgres_url, database, "cellar", admit=only("cellar")) as other:
        assert await other.head() == 0
    await servers.execute(postgres_url, f"ALTER DATABASE {name} RESET search_path", database)
    async with open_log(postgres_url, database, "rooms", admit=only("rooms")) as log:
        assert await log.head() == 3


async def test_who_may_not_make_the_schema_is_told_what_to_do(own_postgres: EmbeddedPostgres) -> None:
    await servers.execute(own_postgres.url, "CREATE DATABASE hotel")
    guest = await servers.new_user(own_postgres.url, "guest")
    way_out = r"POSTGRES_DATABASE: database hotel has no schema rooms.*CREATE SCHEMA rooms AUTHORIZATION"
    with pytest.raises(ConfigurationError, match=way_out):
        async with open_log(guest, "hotel/rooms", "rooms"):
            pass
    await servers.execute(own_postgres.url, "CREATE SCHEMA rooms AUTHORIZATION guest", "hotel")
    async with open_log(guest, "hotel/rooms", "rooms") as log:
        await grow(log, 2)


async def test_a_doctor_tells_of_a_schema_that_is_to_be_made(
    postgres_url: str, nats_url: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_URL", postgres_url)
    monkeypatch.setenv("NATS_URL", nats_url)
    spec = replace(SPEC, database=f"{database}/rooms", log=database)
    findings = await examine([spec])
    assert {each.state for each in findings} == {State.OK, State.NOTE}, findings
    connection = await asyncpg.connect(database_url(postgres_url, database))
    assert not await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'rooms'")
    await connection.close()


def test_a_way_out_names_the_schema() -> None:
    assert psql("hotel") == "psql hotel"
    assert psql("hotel/rooms") == "PGOPTIONS='-c search_path=rooms' psql hotel"
