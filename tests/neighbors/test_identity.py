"""Whose log a database holds: said once, alike for all services that belong together, and never changed."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests import servers
from twinlog import ConfigurationError
from twinlog.dev import EmbeddedPostgres
from twinlog.log.installation import Identity
from twinlog.postgres.database import connect
from twinlog.postgres.identity import AnotherLog, identify, only
from twinlog.postgres.urls import database_url
from twinlog.testing.internals import open_log


async def identity(url: str, database: str, installation: str = "", namespace: str = "") -> Identity:
    async with open_log(url, database, "own") as log:
        return await identify(log.pool, installation, namespace)


async def test_services_that_share_a_server_and_a_namespace_are_one_installation(postgres_url: str) -> None:
    async with servers.database(postgres_url) as one, servers.database(postgres_url) as two:
        first, second = await identity(postgres_url, one), await identity(postgres_url, two)

    assert first.installation == second.installation
    assert first.log_id != second.log_id


async def test_another_namespace_or_another_server_is_another_installation(
    postgres_url: str, own_postgres: EmbeddedPostgres
) -> None:
    async with servers.database(postgres_url) as one, servers.database(postgres_url) as two:
        found = [
            await identity(postgres_url, one),
            await identity(postgres_url, two, namespace="staging"),
            await identity(own_postgres.url, "three"),
        ]
    assert len({each.installation for each in found}) == 3


async def test_it_is_said_once(postgres_url: str, database: str) -> None:
    first = await identity(postgres_url, database, "prod")

    assert first.installation == "prod"
    assert await identity(postgres_url, database, "prod") == first
    assert await identity(postgres_url, database, "", "staging") == first


async def test_replicas_that_start_at_once_say_the_same(postgres_url: str, database: str) -> None:
    async with open_log(postgres_url, database, "own") as log:
        found = await asyncio.gather(*(identify(log.pool, "", "") for _ in range(5)))
    assert len(set(found)) == 1


async def test_a_log_of_another_installation_is_refused_by_name(postgres_url: str, database: str) -> None:
    await identity(postgres_url, database, "prod")
    with pytest.raises(ConfigurationError) as refused:
        await identity(postgres_url, database, "staging")

    said = str(refused.value)
    assert said.startswith(
        f"TWINLOG_INSTALLATION=staging: database {database} belongs to installation prod; set it to that or leave "
    )
    assert "POSTGRES_URL or TWINLOG_NAMESPACE" in said
    assert "\n" not in said
    assert (await identity(postgres_url, database, "prod")).installation == "prod"


async def test_a_user_who_may_only_read_and_write_rows_will_do(own_postgres: EmbeddedPostgres) -> None:
    async with open_log(own_postgres.url, "own", "own"):
        pass
    statements = "CREATE ROLE plain LOGIN PASSWORD 'plain'; GRANT ALL ON ALL TABLES IN SCHEMA public TO plain"
    await servers.execute(own_postgres.url, statements, "own")
    plain = f"postgresql://plain:plain@127.0.0.1:{own_postgres.port}"

    derived = await identity(plain, "own")
    assert derived.installation == (await identity(own_postgres.url, "other")).installation


async def test_where_the_server_does_not_tell_who_it_is_a_name_has_to_be_set(
    own_postgres: EmbeddedPostgres,
) -> None:
    async with open_log(own_postgres.url, "own", "own"):
        pass
    await servers.execute(
        own_postgres.url,
        "CREATE ROLE plain LOGIN PASSWORD 'plain'; GRANT ALL ON ALL TABLES IN SCHEMA public TO plain; "
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC",
        "own",
    )
    plain = f"postgresql://plain:plain@127.0.0.1:{own_postgres.port}"
    with pytest.raises(
        ConfigurationError, match=r"^TWINLOG_INSTALLATION is not set.*one name for all services"
    ):
        await identity(plain, "own")

    assert (await identity(plain, "own", "prod")).installation == "prod"


async def test_a_row_that_is_there_is_only_read(postgres_url: str, database: str) -> None:
    first = await identity(postgres_url, database)
    async with open_log(postgres_url, database, "own") as log:
        async with log.pool.acquire() as connection:
            await connection.execute("SET default_transaction_read_only = on")
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                await connection.execute("DELETE FROM log_identity")
            await connection.execute("SET default_transaction_read_only = off")
        assert await identify(log.pool, "", "") == first


async def test_a_database_that_holds_another_log_is_refused_before_anything_is_made(
    postgres_url: str, database: str
) -> None:
    async with open_log(postgres_url, database, "rooms") as log:
        await identify(log.pool, "", "", "rooms")
        with pytest.raises(AnotherLog):  # as where two that are new begin at once
            await identify(log.pool, "", "", "payments")
        await identify(log.pool, "", "staging", "rooms")  # restored under another namespace
    with pytest.raises(ConfigurationError) as refused:
        async with open_log(postgres_url, database, "payments", "projector.sql", admit=only("payments")):
            pass

    said = str(refused.value)
    assert said.startswith(
        f"POSTGRES_DATABASE: database {database} holds log rooms, and this service's log is payments"
    )
    assert f"{database}/payments" in said and "call it rooms again" in said
    assert await tables(postgres_url, database, "timeline") == 0
    async with open_log(postgres_url, f"{database}/payments", "payments", admit=only("payments")) as log:
        await identify(log.pool, "", "", "payments")  # the way out


async def test_a_log_of_before_gets_its_name_from_its_next_start(postgres_url: str, database: str) -> None:
    async with open_log(postgres_url, database, "rooms") as log:
        await identify(log.pool, "", "")  # as a replica of an older release does
        await servers.execute(postgres_url, "ALTER TABLE log_identity RENAME log TO later", database)
        connection = await connect(database_url(postgres_url, database))
        await only("rooms")(connection, database)  # which it finds before the migration
        await connection.close()
        await servers.execute(postgres_url, "ALTER TABLE log_identity RENAME later TO log", database)
        first = await identify(log.pool, "", "", "rooms")
        assert await identify(log.pool, "", "") == first
        with pytest.raises(AnotherLog, match="holds log rooms"):
            await identify(log.pool, "", "", "other")


async def tables(url: str, database: str, name: str) -> int:
    """How many tables of that name there are."""
    connection = await connect(database_url(url, database))
    try:
        return int(await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname = $1", name))
    finally:
        await connection.close()
