"""Migrations that are tried before they are applied: in a schema that nobody else sees, in a transaction that is taken
back.

All that a database has was made by migrations, so they are run there from the first one on: nothing is copied, no row
is read, and no table that is in use is locked. What a migration meets in rows is not seen.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg

from twinlog._aio.reasons import reason
from twinlog.model.errors import ConfigurationError
from twinlog.postgres.database import SESSION
from twinlog.postgres.declarations import columns_in
from twinlog.postgres.migrations import (
    Function,
    Migration,
    MigrationFailed,
    apply,
    functions,
    migrations,
    missing,
    name_of,
    refused_tables,
)

Columns = Mapping[str, Mapping[str, str]]
"""By table, the types of its columns."""
_Steps = Sequence[Migration | Function]

_TIMEOUTS = "SET LOCAL lock_timeout = '500ms'; SET LOCAL statement_timeout = '5s'"
_COMMENTS = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_TEXTS = re.compile(
    r"""--[^\n]*|/\*.*?\*/|\bE'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"[^"]*"|(\$\w*\$).*?\1""",
    re.DOTALL | re.IGNORECASE,
)
"""Texts and comments: a semicolon inside ends no statement. All at once, since one may hold what looks like another."""
_ENDS = re.compile(
    r"(?:^|;)\s*(?:begin|start\s+transaction|commit|end|rollback|abort|prepare\s+transaction)\b",
    re.IGNORECASE,
)
_WHO = "SELECT quote_ident(current_user), quote_ident(current_database())"
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
_NAMED = """
SELECT relname::text FROM pg_class
 WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
   AND relname <> ALL ($1::text[])
UNION
SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
UNION
SELECT 'type ' || typname FROM pg_type
 WHERE typnamespace = current_schema()::regnamespace AND typtype IN ('d', 'e', 'r')
UNION
SELECT 'extension ' || extname FROM pg_extension WHERE extnamespace = current_schema()::regnamespace
UNION
SELECT 'schema ' || name FROM unnest(current_schemas(false)) AS s (name) WHERE name <> current_schema()
ORDER BY 1
"""
"""What statements may name of what a schema has, or a later one of the path."""
_OF_MIGRATIONS = ["schema_migrations", "schema_functions"]
_UNDEFINED = ("42703", "42704", "42883", "42P01")


class NotTried(Exception):
    """Why they cannot be tried, and what to do about that."""


async def columns_after(connection: asyncpg.Connection, packages: Sequence[str]) -> Columns:
    """The columns of all tables, as they are once the migrations of these packages are applied; nothing is changed.

    Raises ConfigurationError where a start would, NotTried, and what goes wrong with the server.
    """
    applied: list[Migration | Function] = []
    new: list[Migration | Function] = []
    for package in packages:
        later, replaced = await missing(connection, package)
        applied += [each for each in migrations(package) if each not in later]
        applied += [each for each in functions(package) if each not in replaced]
        new += [*later, *replaced]
    _refuse_others([*applied, *new], [row[0] for row in await connection.fetch(_SCHEMAS)])
    database, there, here = await name_of(connection), await columns_in(connection), await _named(connection)
    async with _out_of_sight(connection):
        try:
            await _run(connection, applied)
        except (ConfigurationError, asyncpg.PostgresError) as error:
            raise NotTried(f"what is applied does not run in an empty schema ({reason(error)})") from error
        before = await columns_in(connection)
        others = sorted((here - await _named(connection)) | (_parts(there) - _parts(before)))
        try:
            await _run(connection, new)
        except MigrationFailed as error:
            if others and getattr(error.__cause__, "sqlstate", "") in _UNDEFINED:
                why = reason(error.__cause__ or error)
                raise NotTried(
                    f"a migration meets what none has made, such as {others[0]} ({why})"
                ) from error
            raise
        except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError) as error:
            raise NotTried(reason(error)) from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise refused_tables(error, database) from error
        return _changed(there, before, await columns_in(connection))


@asynccontextmanager
async def _out_of_sight(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """A schema to work in, which is taken back with all that was done. Raises NotTried where there can be none."""
    schema = f"twinlog_trial_{uuid4().hex}"
    await connection.execute(SESSION)
    [(user, database)] = await connection.fetch(_WHO)
    transaction = connection.transaction()
    await transaction.start()
    try:
        try:
            await connection.execute(f"{_TIMEOUTS}; CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}")
        except asyncpg.InsufficientPrivilegeError as error:
            way_out = f"GRANT CREATE ON DATABASE {database} TO {user}"
            raise NotTried(f"this user may not make a schema for that; {way_out}") from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            raise NotTried("the server is read-only") from error
        yield
    finally:
        await transaction.rollback()


def _refuse_others(steps: _Steps, schemas: Collection[str]) -> None:
    """Raises NotTried where one works elsewhere, or would end the transaction."""
    elsewhere = re.compile(
        rf'(?<![\w$.])"?({"|".join(map(re.escape, schemas))})"?\s*\.\s*["\w]|\b(search_path)\b', re.IGNORECASE
    )
    for step in steps:
        text = _COMMENTS.sub(" ", step.sql)
        if found := elsewhere.search(text):
            what = f"schema {found[1]}" if found[1] else "search_path"
            raise NotTried(
                f"{step.title} names {what} by itself; leave that out where it can still be changed"
            )
        if _ENDS.search(_TEXTS.sub(" ", step.sql)):
            raise NotTried(f"{step.title} begins or ends transactions; leave that to the start")


async def _run(connection: asyncpg.Connection, steps: _Steps) -> None:
    for step in steps:
        await apply(connection, step)


async def _named(connection: asyncpg.Connection) -> set[str]:
    return {row[0] for row in await connection.fetch(_NAMED, _OF_MIGRATIONS)}


def _parts(columns: Columns) -> set[str]:
    tables = {table: names for table, names in columns.items() if table not in _OF_MIGRATIONS}
    return {f"column {table}.{name}" for table, names in tables.items() for name in names}


def _changed(there: Columns, before: Columns, after: Columns) -> Columns:
    """What is there, with what has changed in the trial: a table may have columns that somebody made by hand."""
    found = {}
    for table in {*there, *after}:
        gone = before.get(table, {}).keys() - after.get(table, {}).keys()
        new = {
            name: type
            for name, type in after.get(table, {}).items()
            if before.get(table, {}).get(name) != type
        }
        kept = {name: type for name, type in there.get(table, {}).items() if name not in gone}
        if (table in after or table not in before) and (columns := {**kept, **new}):
            found[table] = columns
    return found
