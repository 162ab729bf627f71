"""Whose log a database holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID, uuid5

import asyncpg

from twinlog.log.installation import Identity
from twinlog.model.errors import ConfigurationError, WrongSetting
from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.database import Admit
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.urls import parted


class AnotherLog(ConfigurationError):
    """POSTGRES_DATABASE: database {database} holds log {theirs}, and this service's log is {ours}; name a database of
    its own there or in the ServiceSpec, or a schema of its own, as in {place}/{ours}. A log keeps its name: if it was
    renamed, call it {theirs} again."""

    reason = "ANOTHER_LOG"


class NotThatLog(ConfigurationError):
    """Database {database} holds log {theirs}, not {ours}; name that log, or the database of {ours} with --database."""

    reason = "ANOTHER_LOG"


class HiddenLog(ConfigurationError):
    """POSTGRES_URL: log {log} of database {database} is in schema {schema}, and this user's search_path leads
    elsewhere, where another log would begin. Take back what set it (ALTER ROLE … or ALTER DATABASE … RESET
    search_path); for a log of its own there, name the schema: POSTGRES_DATABASE={database}/SCHEMA."""

    reason = "HIDDEN_LOG"


class ImportUnfinished(ConfigurationError):
    """POSTGRES_URL: database {database} is being filled from a file, up to event {position} so far. Run its `twinlog
    import` again, which goes on there to its end; or drop the database."""

    reason = "IMPORT_UNFINISHED"


_DERIVED = UUID("c8a5d1f4-5d0e-4b1b-9d5c-7a9d3c0f2e61")
"""The namespace of derived names (RFC 9562, version 5)."""


def only(log: str) -> Admit:
    """Raises AnotherLog of a database that holds a log of another name, before anything is made in it, and HiddenLog of
    one that holds this log where sessions do not look."""

    async def admit(connection: asyncpg.Connection, database: str) -> None:
        if await connection.fetchval("SELECT to_regclass('log_identity')"):
            row = await connection.fetchrow(QUERIES["identity"])
            _refuse_other(row[3] if row else None, log, database)
        elif not parted(database)[1]:
            for schema, quoted in await connection.fetch(QUERIES["hidden_logs"]):
                known = f"SELECT to_jsonb(i) ->> 'log' FROM {quoted}.log_identity AS i"
                if await connection.fetchval(known) == log:
                    raise HiddenLog(database=database, log=log, schema=schema)

    return admit


def _refuse_other(known: str | None, log: str, database: str) -> None:
    if known not in (None, log):
        raise AnotherLog(database=database, theirs=known, ours=log, place=parted(database)[0])


async def identity(pool: Pool, log: str = "") -> Identity | None:
    """Whose log a database holds; None where no service has said so yet.

    Raises NotThatLog where the log that somebody names is another.
    """
    for owner, log_id, database, known in await fetch(pool, QUERIES["identity"]):
        if log and known not in (None, log):
            raise NotThatLog(database=database, theirs=known, ours=log)
        return Identity(owner, log_id)
    return None


async def identify(pool: Pool, installation: str, namespace: str, log: str = "") -> Identity:
    """Whose log the database holds; says it, where nobody has said so yet, and never changes it. So with its name,
    ``log``.

    ``installation``: its name as it is set; empty: one that all services derive alike that share a Postgres server and
    a ``namespace``. Raises ConfigurationError where the log is another installation's, or another one, and Unavailable.
    """
    found = await whose(pool, installation, namespace, log)
    if found is None:
        await fetch(pool, QUERIES["identify"], installation or await _derived(pool, namespace))
    if log:
        await fetch(pool, QUERIES["name_log"], log)
    if found is None or log:  # another process may have been faster
        found = await whose(pool, installation, namespace, log)
    assert found is not None
    return found


async def whose(pool: Pool, installation: str, namespace: str, log: str = "") -> Identity | None:
    """The same, and says nothing; None where nobody has said so yet. Raises what :func:`identify` does."""
    for database, position in await fetch(pool, QUERIES["import_unfinished"]):
        raise ImportUnfinished(database=database, position=position)
    rows = await fetch(pool, QUERIES["identity"])
    if not rows:
        if not installation:
            await _derived(pool, namespace)
        return None
    found, log_id, database, known = rows[0]
    if log:
        _refuse_other(known, log, database)
    if installation not in ("", found):
        raise ConfigurationError(
            f"TWINLOG_INSTALLATION={installation}: database {database} belongs to installation {found}; set it to that "
            "or leave it unset, or use another POSTGRES_URL or TWINLOG_NAMESPACE. To give the whole installation "
            "another name, see docs/operations.md, Neighbors"
        )
    return Identity(found, log_id)


async def name_of(pool: Pool) -> str:
    """What the log of a database is called; empty where nobody has said so yet. Raises Unavailable."""
    rows = await fetch(pool, QUERIES["identity"])
    return (rows[0][3] if rows else None) or ""


async def namesakes(pools: Mapping[str, Pool], database: str, log: str) -> Sequence[str]:
    """The databases of the same installation that hold another log of the same name. Raises Unavailable."""
    own = await identity(pools[database])
    found = []
    for each, pool in pools.items():
        theirs = await identity(pool)
        alike = own and theirs and own.installation == theirs.installation and own.log_id != theirs.log_id
        if alike and await name_of(pool) == log:
            found.append(each)
    return found


async def identity_in(connection: asyncpg.Connection) -> Identity | None:
    """Whose log the database holds; None where nobody has said so yet."""
    if not await connection.fetchval("SELECT to_regclass('log_identity')"):
        return None
    row = await connection.fetchrow(QUERIES["identity"])
    return Identity(row[0], row[1]) if row else None


async def _derived(pool: Pool, namespace: str) -> str:
    try:
        ((server_id,),) = await fetch(pool, QUERIES["server_id"])
    except WrongSetting as error:
        if not isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
            raise
        raise ConfigurationError(
            f"TWINLOG_INSTALLATION is not set, and this user may not ask the server for its identity ({error}): set "
            "it to one name for all services of this installation"
        ) from error
    return str(uuid5(_DERIVED, f"{server_id}/{namespace}"))
