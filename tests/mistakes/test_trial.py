"""Migrations are tried where nobody is in their way: what comes of them is known, and nothing has changed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests import servers
from tests.mistakes.test_refused_starts import package
from twinlog.dev import EmbeddedPostgres
from twinlog.model.errors import ConfigurationError
from twinlog.postgres.database import connect, migrate_all
from twinlog.postgres.declarations import columns_in
from twinlog.postgres.migrations import migrations
from twinlog.postgres.trial import NotTried, columns_after
from twinlog.postgres.urls import database_url

_KERNEL = "twinlog.postgres.sql"
_FIRST = """CREATE TYPE stage AS ENUM ('open', 'done');
CREATE TABLE stays (stay_id text PRIMARY KEY, nights integer NOT NULL, stage stage, position bigint);
CREATE FUNCTION doubled(nights integer) RETURNS integer LANGUAGE sql AS $$ SELECT nights * 2; $$;"""
_EVERYTHING = """SELECT nspname::text, relname::text, attname::text, atttypid::regtype::text
  FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid LEFT JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE nspname !~ '^(pg_|information_schema)' ORDER BY 1, 2, 3"""
NEW: Mapping[str, tuple[str, str]] = {
    "paid": ("ALTER TABLE stays ADD paid bigint NOT NULL DEFAULT doubled(0);", ""),
    "wider": ("ALTER TABLE stays ALTER nights TYPE bigint, DROP stage; -- public.stays", ""),
    "another": (
        "CREATE TABLE guests (guest_id text, stage stage); INSERT INTO guests VALUES ('a;commit;', 'open');",
        "",
    ),
    "block": ("DO $$ BEGIN ALTER TABLE stays DROP position; END; $$;", ""),
    "gone": ("DROP TABLE stays;", ""),
    "by_hand": (
        "ALTER TABLE stays DROP seen;",
        'NotTried: a migration meets what none has made, such as column stays.seen .column "seen" of',
    ),
    "typing": ("ALTER TABEL stays ADD paid bigint;", 'MigrationFailed: 002_stays.sql .* at or near "TABEL"'),
    "beside": (
        "CREATE INDEX CONCURRENTLY by_nights ON stays (nights);",
        "MigrationFailed: .* inside a transaction block",
    ),
    "again": ("CREATE TABLE stays ();", "ConfigurationError: .*is there already"),
    "schema": (
        "ALTER TABLE public . stays ADD paid bigint;",
        "NotTried: 002_stays.sql names schema public by itself",
    ),
    "quoted": (
        "DO $$ BEGIN EXECUTE 'DROP TABLE \"public\".stays'; END; $$;",
        "NotTried: .*names schema public",
    ),
    "path": ("SET LOCAL search_path = public;", "NotTried: 002_stays.sql names search_path by itself"),
    "ended": (
        "ALTER TABLE stays ADD paid bigint; COMMIT;",
        "NotTried: 002_stays.sql begins or ends transactions",
    ),
    "ended behind texts": (
        "INSERT INTO stays VALUES ('--', 1), (E'it\\'s', 2); -- it's\n COMMIT; SELECT ''",
        "NotTried: 002_stays.sql begins or ends transactions",
    ),
    "not ended": (
        "COMMENT ON COLUMN stays.nights IS '-- it''s;commit;'; /* it's */ ALTER TABLE stays ADD paid bigint;",
        "",
    ),
    "slow": ("SET LOCAL statement_timeout = '50ms'; SELECT pg_sleep(600);", "NotTried: .*statement timeout"),
}
"""Migrations, and what is said of those of which no columns are told."""


@asynccontextmanager
async def connected(url: str, database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(database_url(url, database))
    try:
        yield connection
    finally:
        await connection.close()


async def outcome(connection: asyncpg.Connection, *packages: str) -> Any:
    """The columns of all tables, or what is raised."""
    try:
        return await columns_after(connection, packages)
    except (NotTried, ConfigurationError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


async def applied(connection: asyncpg.Connection, *packages: str) -> Any:
    """The same of a start, which is taken back here."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await migrate_all(connection, packages)
        return await columns_in(connection)
    except ConfigurationError as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        await transaction.rollback()


def seen(told: Any) -> Any:
    """Without the tables in which migrations are noted."""
    if isinstance(told, str):
        return told
    return {table: columns for table, columns in told.items() if not table.startswith("schema_")}


async def test_what_comes_of_a_migration_is_known_before_it_is_applied(
    empty_database: str,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: str,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    own = package(tmp_path, f"{stream}_sql", _FIRST)
    second = tmp_path / own / "migrations" / "002_stays.sql"
    wrong = []
    async with (
        connected(postgres_url, empty_database) as connection,
        connected(postgres_url, empty_database) as other,
    ):
        whole = (_KERNEL, own)
        assert seen(await outcome(connection, *whole)) == seen(await applied(connection, *whole))
        await migrate_all(connection, [own])
        await connection.execute("ALTER TABLE stays ADD seen boolean")
        before = await connection.fetch(_EVERYTHING)
        for what, (statement, words) in NEW.items():
            second.write_text(statement)
            migrations.cache_clear()
            async with other.transaction():
                await other.execute("LOCK stays IN ACCESS EXCLUSIVE MODE")  # nobody waits for anybody
                found = await outcome(connection, own)
            wrong += [] if re.match(words or "$", str(found)) or not words else [f"{what}: {found}"]
            wrong += (
                [] if await connection.fetch(_EVERYTHING) == before else [f"{what}: something has changed"]
            )
            if not str(found).startswith("NotTried"):
                started = await applied(connection, own)
                wrong += [] if seen(found) == seen(started) else [f"{what}: {found}, at a start: {started}"]
    assert not wrong, "\n".join(wrong)


async def test_what_another_schema_of_the_path_has_is_not_missed_in_vain(
    empty_database: str,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: str,
) -> None:
    """As where extensions have a schema of their own: a start finds them, so a trial calls nothing wrong."""
    monkeypatch.syspath_prepend(tmp_path)
    own = package(tmp_path, f"{stream}_sql", _FIRST)
    async with connected(postgres_url, empty_database) as connection:
        await migrate_all(connection, [own])
        await connection.execute(
            "CREATE SCHEMA beside; SET search_path = public, beside; "
            "CREATE FUNCTION beside.tripled(nights integer) RETURNS integer LANGUAGE sql AS 'SELECT nights * 3'"
        )
        second = tmp_path / own / "migrations" / "002_stays.sql"
        second.write_text("ALTER TABLE stays ADD paid bigint NOT NULL DEFAULT tripled(0);")
        migrations.cache_clear()
        assert "what none has made, such as schema beside" in await outcome(connection, own)
        assert "paid" in (await applied(connection, own))["stays"]


async def test_a_user_who_may_make_no_schema_is_told_what_it_takes(own_postgres: EmbeddedPostgres) -> None:
    database = servers.unique()
    await servers.execute(own_postgres.url, f'CREATE DATABASE "{database}"')
    guest = await servers.new_user(own_postgres.url, "guest")
    async with connected(guest, database) as connection:
        told = await outcome(connection, _KERNEL)
    [way_out] = re.findall(r"GRANT CREATE ON DATABASE .* TO guest$", told)
    await servers.execute(own_postgres.url, way_out)
    async with connected(guest, database) as connection:
        assert "events" in await outcome(connection, _KERNEL)
