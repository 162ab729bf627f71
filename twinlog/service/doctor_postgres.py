"""What a doctor looks at in Postgres: databases, their tables, and what a start compares with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from twinlog.log.installation import Identity, named
from twinlog.model.errors import ConfigurationError, WrongSetting
from twinlog.postgres.archive import Fetch
from twinlog.postgres.connection import Pool
from twinlog.postgres.database import CONNECT_SECONDS, HAS_SCHEMA, check, connect, connected, is_missing
from twinlog.postgres.identity import identity_in, only
from twinlog.postgres.indexes import astray
from twinlog.postgres.log import head_astray
from twinlog.postgres.meaning import outages
from twinlog.postgres.migrations import pending
from twinlog.postgres.trial import Columns, NotTried, columns_after
from twinlog.postgres.urls import address_of, database_of, database_url, entry_url, parted
from twinlog.service.doctor_findings import SEARCH_SECONDS, Finding, State, held, state_of
from twinlog.service.settings import Settings
from twinlog.service.spec import ServiceSpec
from twinlog.service.start import Start, database_in

_TOLERATED_SECONDS = 1.0
_KERNEL = "twinlog.postgres.sql"
_KEYS = "twinlog.postgres.keys_sql"


@dataclass
class Seen:
    """A service, as far as its servers could be asked."""

    spec: ServiceSpec
    settings: Settings
    pool: Pool
    """Connects when it is asked, and changes nothing."""
    identity: Identity | None = None
    start: Start | None = None
    """None: its tables are not there."""
    columns: Columns | None = None
    """Those that the tables have after the program's migrations; None: there are none, or they cannot be tried."""


async def service_database(settings: Settings, seen: Seen | None) -> AsyncIterator[Finding]:
    """A service's database; without a service, that of the settings. Adds to ``seen`` what the rest is judged by."""
    server, spec = settings.postgres_url, seen.spec if seen else None
    if spec:
        database = database_in(spec, settings)
    else:
        given = settings.postgres_database
        database = named(settings.twinlog_namespace, given) if given else database_of(server) or "postgres"
    url, subject = database_url(server, database), f"database {database}"
    async with _connected_to(url) as connection:
        if connection is None:
            yield await _not_there(server, subject)
            return
        yield Finding(subject, State.OK, f"at {address_of(url)}: version, encoding and sessions will do")
        yield _clock(subject, await connection.fetchval("SELECT clock_timestamp()"))
        if seen and spec:
            await only(spec.log)(connection, database)
            packages = (_KERNEL, *spec.migrations)
            async for finding in _schema(connection, packages, subject, parted(database)[1]):
                yield finding
                if finding.state is State.NOTE:
                    yield await _tried(connection, packages, seen)
            seen.identity = await identity_in(connection)
            whose = f"installation {seen.identity.installation}" if seen.identity else "nobody yet"
            yield Finding(subject, State.OK, f"it belongs to {whose}")
            if await pending(connection, _KERNEL):
                if await connection.fetchval(_HAS_LOG):
                    what = "what is stored is compared once Twinlog's own migrations are applied"
                    yield Finding(f"start of {spec.name}", State.NOTE, f"{what}; a start does that first")
                return
            yield await _head(connection, spec, subject)
            yield await indexes(connection.fetch, subject)
            start = Start(spec, settings, seen.pool, reads_only=True)
            for condition in start.conditions:
                yield await held(spec, condition)
            seen.start = start


@asynccontextmanager
async def _connected_to(url: str) -> AsyncIterator[asyncpg.Connection | None]:
    """A connection to a database that will do; None where it is not there."""
    try:
        connection = await connect(url, timeout=CONNECT_SECONDS)
    except WrongSetting as error:
        if not is_missing(error.__cause__):
            raise
        yield None
        return
    try:
        with outages(address_of(url)):
            await check(connection, url)
            yield connection
    finally:
        await connection.close()


def keys_of(settings: Settings) -> tuple[str, str]:
    """The server and the database of the keys of persons."""
    server = settings.personal_keys_url or settings.postgres_url
    return server, named(settings.twinlog_namespace, settings.personal_keys_database)


async def keys_database(server: str, database: str) -> AsyncIterator[Finding]:
    """The database of the keys of persons."""
    subject = f"database {database}"
    async with _connected_to(database_url(server, database)) as connection:
        if connection is None:
            yield await _not_there(server, subject)
            return
        async for finding in _schema(connection, [_KEYS], subject, parted(database)[1]):
            yield finding


async def _not_there(server: str, subject: str) -> Finding:
    async with connected(entry_url(server)) as connection:
        may = await connection.fetchval(
            "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
        )
    if may:
        return Finding(subject, State.NOTE, "it is not there yet; the service makes it when it starts")
    what = "it is not there, and this user may not create it"
    way_out = "create it, or grant CREATEDB; a pooler has to know it too"
    return Finding(subject, State.WRONG, f"{what}: {way_out}")


def _clock(subject: str, told: datetime) -> Finding:
    ahead = (datetime.now(UTC) - told).total_seconds()
    if abs(ahead) <= _TOLERATED_SECONDS:
        return Finding("clock", State.OK, f"this machine's agrees with that of {subject}")
    direction = "ahead of" if ahead > 0 else "behind"
    what = f"this machine's is {abs(ahead):.1f} s {direction} that of {subject}, which decides"
    return Finding("clock", State.WRONG, f"{what}; have one of them set (NTP)")


_MAY_CREATE = "SELECT current_schema() IS NOT NULL AND has_schema_privilege(current_schema(), 'CREATE')"
_HAS_LOG = "SELECT to_regclass('log_head') IS NOT NULL"
_MAY_CREATE_SCHEMA = "SELECT has_database_privilege(current_database(), 'CREATE')"


async def _schema(
    connection: asyncpg.Connection, packages: Sequence[str], subject: str, schema: str
) -> AsyncIterator[Finding]:
    names = [name for package in packages for name in await pending(connection, package)]
    missing = bool(schema) and not await connection.fetchval(HAS_SCHEMA, schema)
    if not names:
        yield Finding(subject, State.OK, "its tables are those of this program")
    elif await connection.fetchval(_MAY_CREATE_SCHEMA if missing else _MAY_CREATE):
        yield Finding(subject, State.NOTE, f"the service applies at its start: {', '.join(names)}")
    else:
        what = f"this user may not set up the tables ({', '.join(names)}); use the owner of the database"
        yield Finding(subject, State.WRONG, what)


async def _tried(connection: asyncpg.Connection, packages: Sequence[str], seen: Seen) -> Finding:
    """Whether what a service applies at its start can be applied."""
    subject = f"start of {seen.spec.name}"
    try:
        async with asyncio.timeout(SEARCH_SECONDS):
            seen.columns = await columns_after(connection, packages)
    except (NotTried, TimeoutError) as error:
        why = str(error) or f"they take more than {SEARCH_SECONDS:g} s"
        said = f"its migrations cannot be tried here: {why}. A start that is refused takes them back"
        return Finding(subject, State.NOTE, said)
    except ConfigurationError as error:
        return Finding(subject, state_of(error), " ".join(str(error).split()))
    return Finding(subject, State.OK, "its migrations, tried in a schema that was taken back")


async def _head(connection: asyncpg.Connection, spec: ServiceSpec, subject: str) -> Finding:
    """Whether the log ends where it says."""
    if astray := await head_astray(connection.fetch, spec.log):
        return Finding(subject, State.WRONG, str(astray))
    return Finding(subject, State.OK, "its log ends where table log_head says")


async def indexes(fetch: Fetch, subject: str) -> Finding:
    """Whether its tables have their indexes."""
    if wrong := await astray(fetch):
        return Finding(subject, State.WRONG, "; ".join(f"{index.why}: {index.statement}" for index in wrong))
    return Finding(subject, State.OK, "its tables have their indexes")
