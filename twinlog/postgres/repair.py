"""Repairs of logs in Postgres (:mod:`twinlog.log.repair`), and what other databases of the server show about them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import asyncpg

from twinlog.log.chain import Unlinked
from twinlog.log.relinking import LostLinks
from twinlog.log.repair import (
    GIVEN_UP,
    Difference,
    GivenUp,
    Plan,
    Unrepairable,
    notes_of_given_up,
    plan,
)
from twinlog.model.errors import ConfigurationError, Unavailable, WrongSetting
from twinlog.model.event import Recorded, known_stream
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import Pool, connection_of, fetch, on_connection, open_pool
from twinlog.postgres.database import all_databases, connected, is_missing, refused_at_start
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.meaning import outages
from twinlog.postgres.migrations import pending
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.timeouts import without_timeouts
from twinlog.postgres.urls import database_url, parted
from twinlog.postgres.view_builds import quoted

_PACKAGE = "twinlog.postgres.sql"
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"
_EVERYTHING = 2**31 - 1
_CLOCKS = timedelta(minutes=10)
"""The most that two clocks may be apart: an effect may seem to be earlier than its cause."""
EVENT_COLUMNS = (
    "position", "stream_type", "stream_id", "version", "event_id", "type", "payload", "metadata", "partition_key",
    "tag", "recorded_at", "extra",
)  # fmt: skip
"""Of table events, in the order of a :class:`Recorded`."""


class FollowerState(NamedTuple):
    """A consumer of a log."""

    consumer: str
    position: int
    event_position: int | None
    event_id: UUID | None


_WITH_LOG = """
SELECT n.nspname, coalesce(c.oid = to_regclass('log_head'), false) AS usual,
       coalesce(has_table_privilege(i.oid, 'SELECT'), false) AS has_id
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_class i ON i.relnamespace = n.oid AND i.relname = 'log_identity'
 WHERE c.relname = 'log_head' AND has_schema_privilege(n.oid, 'USAGE')
   AND (c.oid = to_regclass('log_head') OR n.nspname ~ '^[a-z_][a-z0-9_]*$')
 ORDER BY NOT c.oid = to_regclass('log_head'), n.nspname
"""
_LOG_ID = "SELECT log_id FROM {}.log_identity"


async def databases(server_url: str, only: str = "") -> Sequence[str]:
    """The databases of a server that hold a log, and the schemas that hold one besides, as ``database/schema``.

    ``only``: the one to look in. Raises Unavailable.
    """
    found: list[str] = []
    with outages():
        for name in [parted(only)[0]] if only else await all_databases(server_url):
            async with connected(database_url(server_url, name)) as connection:
                found += [f"{name}/{schema}" if schema else name for schema in await _with_log(connection)]
    return found


async def has_log(server_url: str, database: str) -> bool:
    """Whether this one of them does; what is true of its neighbors counts for nothing. Raises Unavailable."""
    try:
        return database in await databases(server_url, database)
    except WrongSetting as error:
        if is_missing(error.__cause__):
            return False
        raise


async def has_database(server_url: str, database: str) -> bool:
    """Whether a server has a database of a name, with or without a log. Raises Unavailable."""
    with outages():
        return database in await all_databases(server_url)


async def _with_log(connection: Connection) -> Sequence[str]:
    """The schemas that hold a log; the usual one is empty. A copy of its log, as for a restore, does not count."""
    rows = await connection.fetch(_WITH_LOG)
    ids = {
        schema: await connection.fetchval(_LOG_ID.format(quoted(schema)))
        for schema, _, has_id in rows
        if has_id
    }
    own = next((ids.get(schema) for schema, usual, _ in rows if usual), None)
    return [
        "" if usual else schema for schema, usual, _ in rows if usual or not own or ids.get(schema) != own
    ]


async def older(server_url: str, databases: Sequence[str]) -> Mapping[str, str]:
    """Of the databases whose tables a dry run would have to change before it can read them: why it does not.

    Raises Unavailable, ConfigurationError.
    """
    found = {}
    for each in databases:
        with refused_at_start(), outages():
            async with connected(database_url(server_url, each)) as connection:
                lacks = ", ".join(await pending(connection, _PACKAGE))
        if lacks:
            found[each] = (
                f"a dry run changes nothing, and the tables of database {each} lack {lacks}, which a repair applies "
                "first. Start its service with this program, or run the `twinlog` of its own version"
            )
    return found


@asynccontextmanager
async def opened(server_url: str, database: str, *, as_it_is: bool = False) -> AsyncIterator[Pool]:
    """A pool for a database that has a log, with its schema up to date, or ``as_it_is``.

    Raises Unavailable, ConfigurationError.
    """
    url = database_url(server_url, database)
    async with open_pool(url, *([] if as_it_is else [_PACKAGE]), size=2, waits=False) as pool:
        yield pool


async def followers(pool: Pool, log: str) -> Sequence[FollowerState]:
    """The consumers of a log in a database."""
    return [FollowerState(*row) for row in await fetch(pool, QUERIES["followers"], log)]


async def effects(pool: Pool, of: Sequence[Recorded]) -> Sequence[Recorded]:
    """The events of a database that were caused by others; the first of these has to be the oldest."""
    log = PostgresLog(pool, "")  # its own name does not matter
    before = await log.position_at(of[0].recorded_at - _CLOCKS) if of else 0
    return await log.related(before, await log.head(), [], [event.address for event in of])


async def set_back(pool: Pool, consumer: str, position: int, back_to: int) -> None:
    """Moves a checkpoint from a position. Raises Unavailable where it is elsewhere, as after another repair."""
    if not await fetch(pool, QUERIES["repair_set_back"], consumer, position, back_to):
        raise Unavailable(f"consumer {consumer} has gone on meanwhile; try again")


async def planned(log: PostgresLog, found: Difference) -> Plan:
    """What a repair would do."""
    return await on_connection(log.pool, lambda connection: _plan(connection, log, found))


async def carry_out(
    log: PostgresLog, found: Difference, handled: Mapping[tuple[str, int], UUID] | None = None
) -> Plan:
    """Repairs a log, in one transaction, and says what it did. Raises Unavailable, ConfigurationError.

    ``handled``: the ids of events that consumers have handled, by consumer and position.
    """
    async with _as_the_owner(log.pool) as connection:
        await connection.execute(QUERIES["place_head"])  # wherever it was
        made = await _plan(connection, log, found)
        await _write(connection, made, handled or {})
        return made


async def place_head(pool: Pool) -> None:
    """Has a log end with its last event, in a new era. Raises Unavailable, ConfigurationError."""
    async with _as_the_owner(pool) as connection:
        await connection.execute(QUERIES["place_head"])


async def note_given_up(log: PostgresLog, head: int, span: GivenUp) -> None:
    """Records behind ``head``, the last event, what is gone. Raises Unavailable, ConfigurationError."""
    async with _as_the_owner(log.pool) as connection:
        await connection.execute(QUERIES["place_head"])
        if await connection.fetchval(QUERIES["head"]) != head:
            raise Unavailable(f"log {log.name} has changed meanwhile; try again")
        before = await connection.fetch(QUERIES["versions_before"], head + 1, [GIVEN_UP], [log.name])
        now = await connection.fetchval(QUERIES["clock"])
        await connection.execute(QUERIES["repair_chain"], span.first)
        notes = notes_of_given_up(log.name, span, head, before[0][2] if before else 0, now)
        await connection.copy_records_to_table(
            "events", records=[row_of(note) for note in notes], columns=EVENT_COLUMNS
        )
        await connection.execute(QUERIES["repair_head"], notes[-1].position)


async def put_links(pool: Pool, lost: LostLinks) -> None:
    """Puts back links, and has events sealed that nobody has noted. Raises Unavailable, ConfigurationError."""
    try:
        async with _as_the_owner(pool) as connection:
            await connection.copy_records_to_table("chain", records=lost.made)
            await connection.execute(QUERIES["note_lacking"], *_columns(lost.unnoted))
    except asyncpg.UniqueViolationError as error:  # of another repair
        raise Unavailable("the chain has changed meanwhile; try again") from error


def _columns(runs: Sequence[Unlinked]) -> tuple[list[int], list[int]]:
    return [run.first for run in runs], [run.last for run in runs]


async def begin_chain(pool: Pool) -> None:
    """Forgets all links, so that every event is sealed. Raises Unavailable, ConfigurationError."""
    async with _as_the_owner(pool) as connection:
        await connection.execute(QUERIES["lock_head"])  # as appends do: first the head, then the chain
        await connection.execute(QUERIES["begin_chain"])


@asynccontextmanager
async def _as_the_owner(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction of a repair. Raises Unavailable, ConfigurationError."""
    try:
        async with connection_of(pool) as connection, connection.transaction():
            await without_timeouts(connection)
            await connection.execute(_LOCK_TIMEOUT)
            yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            f"POSTGRES_URL: a repair takes the owner of table events, or a superuser ({error})"
        ) from error


async def _plan(connection: Connection, log: PostgresLog, found: Difference) -> Plan:
    archived = await connection.fetchval(QUERIES["archived_upto"])
    if found.since <= archived:
        why = (
            f"its stream has another event {found.since}, and the log has archived its own, up to {archived}; find out "
            "whose stream it is. If nobody needs it, delete it, and the relay makes it anew"
        )
        raise Unrepairable(log=log.name, why=why)
    events = await log.read_by(connection.fetch, max(0, found.since - 2), _EVERYTHING)
    if found.shared and (not events or events[0].event_id != found.shared.event_id):
        raise Unavailable(f"log {log.name} has changed meanwhile; try again")
    ours = [event for event in events if event.position >= found.since]
    streams = list({event.stream for event in [*ours, *found.theirs]})
    types, ids = [stream.type for stream in streams], [stream.id for stream in streams]
    versions = await connection.fetch(QUERIES["versions_before"], found.since, types, ids)
    checkpoints = await connection.fetch(QUERIES["checkpoints"])
    return plan(
        ours,
        found.theirs,
        {known_stream((row[0], row[1])): row[2] for row in versions},
        {row[0]: row[1] for row in checkpoints},
    )


async def _write(connection: Connection, made: Plan, handled: Mapping[tuple[str, int], UUID]) -> None:
    await connection.execute(QUERIES["repair_begin"])
    await connection.execute(QUERIES["repair_give_up"], [event.position for event in made.given_up])
    await connection.execute(QUERIES["repair_chain"], made.since)
    await connection.execute(QUERIES["repair_cut"], made.since)
    events = [*made.restored, *made.kept]
    await connection.copy_records_to_table(
        "events", records=[row_of(event) for event in events], columns=EVENT_COLUMNS
    )
    await connection.execute(QUERIES["repair_head"], events[-1].position)
    await connection.execute(
        QUERIES["repair_requests"], made.since, list(made.moved), list(made.moved.values())
    )
    await connection.execute(
        QUERIES["repair_checkpoints"],
        list(made.checkpoints),
        list(made.checkpoints.values()),
        [handled.get(each) for each in made.checkpoints.items()],
    )
    streams = sorted(made.streams)
    types, ids = [stream.type for stream in streams], [stream.id for stream in streams]
    await connection.execute(QUERIES["repair_timers"], types, ids)
    await connection.execute(QUERIES["repair_snapshots"], types, ids)
    await connection.execute(QUERIES["repair_end"])


def row_of(event: Recorded) -> tuple[object, ...]:
    """As the append writes it: what the domain says besides has its own column."""
    if not event.metadata.extra:
        return (event.position, *event.stream, *event[3:], None)
    extra, metadata = event.metadata.extra, event.metadata._replace(extra={})
    return (event.position, *event.stream, *event._replace(metadata=metadata)[3:], extra)
