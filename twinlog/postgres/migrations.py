"""The schema of a package: migrations, applied once and in order, and functions, replaced by newer revisions.

A package has ``migrations/NNN_name.sql``, which never change once released. Older programs go on beside a newer
schema, unless a migration that they do not know begins with ``-- breaking``.

It may also have ``functions/name.sql``, one function a file, whose first line is ``-- revision: N`` and whose statement
is ``CREATE OR REPLACE FUNCTION``. An edit comes with a higher revision and serves programs of earlier revisions too: a
function is replaced only by a higher revision, so old and new replicas can run side by side, and rolling back works.
Parameters and results stay as they are; a function that needs others gets a new name. (The layout is message-db's.)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import asyncpg

from twinlog._aio.reasons import reason
from twinlog.model.errors import ConfigurationError
from twinlog.postgres.meaning import Meaning, rule_of
from twinlog.postgres.named_queries import part_of
from twinlog.postgres.timeouts import without_timeouts

_LOCK = 7_714_266_100
_THERE_ALREADY = (
    asyncpg.DuplicateColumnError,
    asyncpg.DuplicateFunctionError,
    asyncpg.DuplicateObjectError,
    asyncpg.DuplicateTableError,
)
_NAME = re.compile(r"(\d{3})_\w+\.sql")
_BREAKING = "-- breaking\n"
"""First line of a migration that programs from before it cannot work with."""
_REVISION = re.compile(r"-- revision: ([1-9]\d*)\n")

_STORED_AS = {"twinlog.postgres.sql": "twinlog.sql"}
"""Packages that have moved: the name under which databases know them."""

_EARLIER = {
    ("twinlog.sql", 1): "59ff39348c6b4f6a0ee6d1a5756f2e79fbc90b7a3ec13bb3f34e852f88612000",
    ("twinlog.sql", 2): "c28c42d204fbbb275f225ad401861626f0dbc06cbb0c1d584dd4d382aa646bf4",
}
"""Checksums that are accepted besides today's, by package and version. Before 0.1.0 these two migrations created the
functions as well; the tables and types that they create are the same."""

_TABLES = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    package    text NOT NULL,
    version    integer NOT NULL,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, version)
);
ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS breaking boolean NOT NULL DEFAULT false;
CREATE TABLE IF NOT EXISTS schema_functions (
    package     text NOT NULL,
    name        text NOT NULL,
    revision    integer NOT NULL,
    replaced_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, name)
);
"""


class Migration(NamedTuple):
    """One file of a package's ``migrations`` folder."""

    version: int
    name: str
    sql: str

    @property
    def title(self) -> str:
        """What it is called, for people."""
        return self.name

    @property
    def checksum(self) -> str:
        """Detects a change after the migration was applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def breaking(self) -> bool:
        """Whether programs from before it have to stop."""
        return self.sql.startswith(_BREAKING)


class Function(NamedTuple):
    """One file of a package's ``functions`` folder."""

    name: str
    revision: int
    sql: str

    @property
    def title(self) -> str:
        """What it is called, for people."""
        return f"function {self.name}"


class ChangedMigration(ConfigurationError):
    """Migration {name} was changed after it was applied; restore it and put the change into a new one."""

    reason = "CHANGED_MIGRATION"


class MigrationFailed(ConfigurationError):
    """{name} does not run on this database ({why}), so nothing of it is applied; correct it, or what it meets there."""

    reason = "MIGRATION_FAILED"


class NewerSchema(ConfigurationError):
    """Migration {found} of the database rules out this program, which knows {known}; deploy the newer program."""

    reason = "NEWER_SCHEMA"


@cache
def migrations(package: str) -> Sequence[Migration]:
    """The migrations of a package, in order; they are read once. Raises ConfigurationError where it has no folder."""
    files = part_of(package, "migrations", "its migrations").iterdir()
    found = [(match, file) for file in files if (match := _NAME.fullmatch(file.name))]
    return tuple(sorted(Migration(int(match[1]), file.name, file.read_text()) for match, file in found))


@cache
def functions(package: str) -> Sequence[Function]:
    """The functions of a package, by name; they are read once. Raises ValueError for a file without its revision."""
    folder = resources.files(package) / "functions"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")] if folder.is_dir() else []
    return tuple(sorted(_function(file.name.removesuffix(".sql"), file.read_text()) for file in files))


def _function(name: str, sql: str) -> Function:
    if not (match := _REVISION.match(sql)):
        raise ValueError(f"functions/{name}.sql: the first line has to be -- revision: N")
    return Function(name, int(match[1]), sql)


async def migrate(connection: asyncpg.Connection, package: str) -> None:
    """Brings the database's schema up to date, all of it or nothing; replicas wait for each other.

    Where nothing is missing it only reads, so a user without the right to create anything will do. Raises
    ChangedMigration, NewerSchema, MigrationFailed, and ConfigurationError where something is missing that the user may
    not create, or is there although no migration is known to have made it.
    """
    try:
        if any(await missing(connection, package)):
            await _create_missing(connection, package)
    except asyncpg.InsufficientPrivilegeError as error:
        raise refused_tables(error, await name_of(connection)) from error


async def name_of(connection: asyncpg.Connection) -> str:
    """The database that it is connected to."""
    name: str = await connection.fetchval("SELECT current_database()")
    return name


def refused_tables(error: asyncpg.InsufficientPrivilegeError, database: str) -> ConfigurationError:
    """What a start says where a user lacks a right."""
    return ConfigurationError(
        f"POSTGRES_URL: this user may not set up the tables of database {database} ({error}); use the owner of the "
        "database, or start once as the owner and GRANT SELECT, INSERT, UPDATE, DELETE on all tables to this user"
    )


async def pending(connection: asyncpg.Connection, package: str) -> list[str]:
    """What :func:`migrate` would apply. Raises ChangedMigration and NewerSchema."""
    return [each.title for part in await missing(connection, package) for each in part]


async def missing(
    connection: asyncpg.Connection, package: str
) -> tuple[Sequence[Migration], Sequence[Function]]:
    """The same, as it would be applied, in order."""
    stored_as, known = _STORED_AS.get(package, package), migrations(package)
    # The column is younger than the table.
    breaking = "coalesce((to_jsonb(t) ->> 'breaking')::boolean, false)"
    columns = f"version, checksum, name, {breaking}"
    rows = {row[0]: row for row in await _stored(connection, "schema_migrations", columns, stored_as)}
    for version, _, name, breaks in rows.values():
        if breaks and version > known[-1].version:
            raise NewerSchema(found=name, known=known[-1].name)
    applied = {version: row[1] for version, row in rows.items()}
    for migration in known:
        accepted = (None, migration.checksum, _EARLIER.get((stored_as, migration.version)))
        if applied.get(migration.version) not in accepted:
            raise ChangedMigration(name=migration.name)
    stored = await _stored(connection, "schema_functions", "name, revision", stored_as)
    revisions = dict(map(tuple, stored))
    return (
        [migration for migration in known if migration.version not in applied],
        [function for function in functions(package) if function.revision > revisions.get(function.name, 0)],
    )


async def _create_missing(connection: asyncpg.Connection, package: str) -> None:
    async with connection.transaction():
        await without_timeouts(connection)
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(_TABLES)
        new_migrations, new_functions = await missing(connection, package)
        package = _STORED_AS.get(package, package)
        for migration in new_migrations:
            await apply(connection, migration)
            await connection.execute(
                "INSERT INTO schema_migrations (package, version, name, checksum, breaking) "
                "VALUES ($1, $2, $3, $4, $5)",
                package,
                migration.version,
                migration.name,
                migration.checksum,
                migration.breaking,
            )
        for function in new_functions:
            await apply(connection, function)
            await connection.execute(
                "INSERT INTO schema_functions (package, name, revision) VALUES ($1, $2, $3) "
                "ON CONFLICT (package, name) DO UPDATE SET revision = excluded.revision, replaced_at = now()",
                package,
                function.name,
                function.revision,
            )


async def apply(connection: asyncpg.Connection, migration: Migration | Function) -> None:
    """Runs it, in the caller's transaction. Raises ConfigurationError, and what goes wrong with the server."""
    try:
        await connection.execute(migration.sql)
    except asyncpg.InsufficientPrivilegeError:
        raise
    except _THERE_ALREADY as error:
        raise ConfigurationError(
            f"POSTGRES_URL: table schema_migrations does not know of {migration.name}, and what that makes is there "
            f"already ({error}); put back the rows of schema_migrations, from a backup or from a database that this "
            "version of the program has set up, or use another database if these tables are somebody else's"
        ) from error
    except asyncpg.PostgresError as error:
        rule = rule_of(error)
        # What a statement names and is not there is the migration's own mistake.
        if rule and rule.meaning is not Meaning.DEFECT and (error.sqlstate or "")[:2] != "42":
            raise
        raise MigrationFailed(name=migration.title, why=reason(error)) from error


async def _stored(connection: asyncpg.Connection, table: str, columns: str, package: str) -> list[Any]:
    """Columns of a package's rows; empty until the table is made."""
    if not await connection.fetchval("SELECT to_regclass($1)", table):
        return []
    rows: list[Any] = await connection.fetch(
        f"SELECT {columns} FROM {table} AS t WHERE package = $1", package
    )
    return rows
