"""Servers of one's own that will not do are told in one line, before anything is started."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stack.preflight import is_about_data
from stack.topology import DATABASES
from tests import servers
from twinlog.dev import EmbeddedNats, EmbeddedPostgres, Misconfigured, check_nats, check_postgres
from twinlog.model.schema import UpcasterCycle
from twinlog.postgres.migrations import ChangedMigration, NewerSchema
from twinlog.postgres.view_writer import OtherTables
from twinlog.testing.internals import database_url


@asynccontextmanager
async def nats_that_says(**info: object) -> AsyncIterator[str]:
    """The URL of a server that greets as NATS does, and serves nothing."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = {"server_id": "x", "proto": 1, "max_payload": 1 << 20, "headers": True, **info}
        writer.write(f"INFO {json.dumps(greeting)}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_old_nats_is_refused() -> None:
    async with nats_that_says(version="2.11.9") as url:
        with pytest.raises(Misconfigured, match=r"NATS_URL: nats-server 2.12 or newer is needed .*2.11"):
            await check_nats(url)


async def test_a_nats_without_jetstream_is_refused() -> None:
    with servers.folder() as folder:
        server = EmbeddedNats(folder / "nats", extra="jetstream: disabled")
        async with server:
            with pytest.raises(Misconfigured, match="NATS_URL: this nats-server runs without JetStream"):
                await check_nats(server.url)


async def test_a_postgres_that_refuses_is_told(own_postgres: EmbeddedPostgres) -> None:
    await servers.execute(own_postgres.url, "CREATE ROLE locked_out PASSWORD 'locked_out'")
    await servers.new_user(own_postgres.url, "poor")
    for role, says in {
        "nobody_here": "POSTGRES_URL: Postgres refuses the login",
        "locked_out": "POSTGRES_URL: Postgres refuses the login",
        "poor": "POSTGRES_URL: there is no database shop_orders and this user may not create it",
    }.items():
        with pytest.raises(Misconfigured, match=says) as refused:
            await check_postgres(servers.url_of(own_postgres.url, role), DATABASES)
        assert "\n" not in str(refused.value)


def test_only_a_refusal_of_the_data_is_about_data() -> None:
    for refusal in (
        ChangedMigration(name="0001_log.sql"),
        NewerSchema(found=9, known=4),
        OtherTables(views="orders", why="column total_nanos is missing"),
    ):
        assert is_about_data(str(refusal))
    for other in (
        "ORDERS_ADDRESS=foo is wrong: must be host:port",
        "POSTGRES_URL: Postgres refuses the login",
        str(UpcasterCycle(type="shop.orders.v1.OrderCreated")),
    ):
        assert not is_about_data(other)


async def test_servers_that_are_not_there_are_told_with_the_reason() -> None:
    why = "Connection refused: 127.0.0.1:1"
    with pytest.raises(Misconfigured, match=rf"^NATS_URL: no NATS answers at NATS_URL \({why}\); is it up"):
        await check_nats("nats://127.0.0.1:1")
    with pytest.raises(Misconfigured, match=f"POSTGRES_URL: the server cannot be used: .*{why}"):
        await check_postgres(database_url("postgresql://127.0.0.1:1", "postgres"), DATABASES)
