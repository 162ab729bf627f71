"""Migrations: the schema is what they make it, once, however many start at the same time."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests import servers
from tests.log.catalogue import catalogue
from twinlog import ConfigurationError
from twinlog.dev import EmbeddedPostgres
from twinlog.postgres import migrations
from twinlog.postgres.migrations import ChangedMigration, NewerSchema, migrate
from twinlog.postgres.named_queries import load_queries
from twinlog.testing.internals import Pool, database_url, ensure_database, open_log

KERNEL = "twinlog.postgres.sql"
STORED_AS = "twinlog.sql"

_CATALOGUE = Path(__file__).with_name("catalogue.json")


@pytest.fixture
async def connection(postgres_url: str, empty_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url(postgres_url, empty_database))
    yield connection
    await connection.close()


async def test_the_schema_equals_its_migrations(connection: asyncpg.Connection) -> None:
    """What a fresh database has is written down; tests/log/catalogue.py says how to do so again."""
    await migrate(connection, KERNEL)

    assert await catalogue(connection) == json.loads(_CATALOGUE.read_text())


def test_a_package_without_its_sql_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a project's queries.sql is forgotten, or git has dropped an empty folder."""
    (tmp_path / "without_sql").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    for read, name in ((load_queries, "queries.sql"), (migrations.migrations, "migrations")):
        with pytest.raises(ConfigurationError, match=f"Package without_sql has no {name}"):
            read("without_sql")


async def test_migrating_again_changes_nothing(connection: asyncpg.Connection) -> None:
    await migrate(connection, KERNEL)
    before = await catalogue(connection), await applied(connection)

    await migrate(connection, KERNEL)

    assert (await catalogue(connection), await applied(connection)) == before


async def test_many_connections_at_once_migrate_once(postgres_url: str, empty_database: str) -> None:
    async def start() -> list[tuple[str, int]]:
        async with open_log(postgres_url, empty_database, "counters") as log:
            return await applied(log.pool)

    seen = await asyncio.gather(*(start() for _ in range(12)))

    assert seen == [[(STORED_AS, m.version) for m in migrations.migrations(KERNEL)]] * 12


async def test_a_start_connects_once_to_look_and_to_migrate(
    postgres_url: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each connection costs both sides milliseconds, at every start of every process."""
    connect, made = asyncpg.connect, []

    async def counted(*arguments: Any, **options: Any) -> asyncpg.Connection:
        made.append(arguments)
        return await connect(*arguments, **options)

    monkeypatch.setattr(asyncpg, "connect", counted)
    for _ in ("new", "there already"):
        made.clear()
        async with open_log(postgres_url, empty_database, "counters"):
            assert len(made) == 1


async def test_many_processes_at_once_make_and_migrate_one_database(
    postgres_url: str, empty_database: str
) -> None:
    admin = await asyncpg.connect(database_url(postgres_url, "postgres"))
    await admin.execute(f'DROP DATABASE "{empty_database}"')
    await admin.close()
    program = """
import asyncio, sys
from twinlog.postgres.log import open_log
async def main():
    async with open_log(sys.argv[1], sys.argv[2], "counters") as log:
        assert await log.head() == 0
asyncio.run(main())
"""
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, postgres_url, empty_database)
        for _ in range(4)
    ]

    assert [await process.wait() for process in processes] == [0] * 4


async def test_a_changed_migration_is_refused(connection: asyncpg.Connection) -> None:
    await migrate(connection, KERNEL)
    await connection.execute("UPDATE schema_migrations SET checksum = 'another' WHERE version = 1")

    with pytest.raises(ChangedMigration, match=r"001_log\.sql was changed after it was applied"):
        await migrate(connection, KERNEL)


async def test_rows_of_migrations_that_are_gone_are_named_and_can_be_put_back(
    connection: asyncpg.Connection,
) -> None:
    await migrate(connection, KERNEL)
    await connection.execute("CREATE TABLE aside AS TABLE schema_migrations; TRUNCATE schema_migrations")
    with pytest.raises(ConfigurationError, match=r"does not know of 001_log\.sql, .* put back the rows"):
        await migrate(connection, KERNEL)
    await connection.execute("INSERT INTO schema_migrations TABLE aside; DROP TABLE aside")
    await migrate(connection, KERNEL)
    assert await catalogue(connection) == json.loads(_CATALOGUE.read_text())


@pytest.mark.parametrize("breaking", [False, True])
async def test_an_older_program_goes_on_until_a_migration_says_otherwise(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, breaking: bool
) -> None:
    known = migrations.migrations(KERNEL)
    sql = f"{'-- breaking' if breaking else ''}\nCREATE TABLE later ()"
    with monkeypatch.context() as newer:
        later = migrations.Migration(900, "900_later.sql", sql)
        newer.setattr(migrations, "migrations", lambda _package: [*known, later])
        await migrate(connection, KERNEL)

    with pytest.raises(NewerSchema, match=r"Migration 900_later\.sql") if breaking else nullcontext():
        await migrate(connection, KERNEL)


async def test_a_migration_that_fails_leaves_nothing_behind(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await catalogue(connection)
    broken = [
        migrations.Migration(1, "001_good.sql", "CREATE TABLE good ()"),
        migrations.Migration(2, "002_bad.sql", "CREATE TABLE bad (; "),
    ]
    monkeypatch.setattr(migrations, "migrations", lambda _package: broken)
    monkeypatch.setattr(migrations, "functions", lambda _package: [])

    with pytest.raises(
        migrations.MigrationFailed, match=r"^002_bad.sql does not run .*syntax error at or near"
    ):
        await migrate(connection, "some.package")

    assert await catalogue(connection) == before


async def test_what_takes_its_time_does_so_whatever_an_operator_allows_sessions(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt would end in the same place; a lock is waited for as long as he says."""
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout")
    for name in names:
        await connection.execute(f"SET {name} = '20min'")
    listed = ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    told = f"CREATE TABLE told AS SELECT {listed}"
    monkeypatch.setattr(
        migrations, "migrations", lambda _package: [migrations.Migration(1, "001_told.sql", told)]
    )
    monkeypatch.setattr(migrations, "functions", lambda _package: [])
    await migrate(connection, "some.package")
    assert tuple((await connection.fetch("SELECT * FROM told"))[0]) == ("0", "0", "20min")
    assert await connection.fetchval("SHOW statement_timeout") == "20min"


async def test_a_database_of_before_the_release_goes_on(connection: asyncpg.Connection) -> None:
    """Its first two migrations made the functions, and have the checksums that they had then."""
    await migrate(connection, KERNEL)
    await connection.execute("DROP TABLE schema_functions")
    for (package, version), checksum in migrations._EARLIER.items():
        assert package == STORED_AS
        await connection.execute(
            "UPDATE schema_migrations SET checksum = $2 WHERE version = $1", version, checksum
        )

    await migrate(connection, KERNEL)

    assert await catalogue(connection) == json.loads(_CATALOGUE.read_text())
    assert await revisions(connection) == {f.name: f.revision for f in migrations.functions(KERNEL)}


async def test_only_a_higher_revision_replaces_a_function(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def started_with(revision: int) -> int:
        sql = f"CREATE OR REPLACE FUNCTION answer() RETURNS integer LANGUAGE sql AS 'SELECT {revision}'"
        only = [migrations.Function("answer", revision, sql)]
        monkeypatch.setattr(migrations, "functions", lambda _package: only)
        await migrate(connection, KERNEL)
        return int(await connection.fetchval("SELECT answer()"))

    assert [await started_with(revision) for revision in (2, 1, 3, 2)] == [2, 2, 3, 3]


def test_a_function_without_its_revision_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"functions/append\.sql: the first line has to be -- revision: N"):
        migrations._function("append", "-- Appends.\n-- revision: 1\n")


async def test_nothing_has_to_be_created_where_nothing_is_missing(
    own_postgres: EmbeddedPostgres,
) -> None:
    """A user who may only read and write rows starts a program whose schema is there."""
    url = await servers.new_user(own_postgres.url, "small")
    async with open_log(own_postgres.url, "counters", "counters"):
        rights = (
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO small"
        )
        await servers.execute(own_postgres.url, rights.format("ALL TABLES IN SCHEMA public"), "counters")

    async with open_log(url, "counters", "counters") as log:
        assert await log.head() == 0

    await servers.execute(own_postgres.url, "UPDATE schema_functions SET revision = 0", "counters")
    connection = await asyncpg.connect(database_url(url, "counters"))
    with pytest.raises(ConfigurationError, match="may not set up the tables"):
        await migrate(connection, KERNEL)
    await connection.close()


async def test_a_user_who_may_not_create_the_database_is_told_what_is_needed(
    own_postgres: EmbeddedPostgres,
) -> None:
    url = await servers.new_user(own_postgres.url, "small")

    with pytest.raises(ConfigurationError, match=r"no database counters .* grant CREATEDB"):
        await ensure_database(url, "counters")


async def applied(connection: asyncpg.Connection | Pool) -> list[tuple[str, int]]:
    rows = await connection.fetch("SELECT package, version FROM schema_migrations ORDER BY package, version")
    return [tuple(row) for row in rows]


async def revisions(connection: asyncpg.Connection) -> dict[str, int]:
    rows = await connection.fetch("SELECT name, revision FROM schema_functions")
    return {row["name"]: row["revision"] for row in rows}
