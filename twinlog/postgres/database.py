"""Connections to a database, and the database itself: it is created where it is missing, and checked at start."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, cast

import asyncpg

from twinlog._aio.reasons import reason
from twinlog.model.errors import ConfigurationError, Unavailable, WrongSetting
from twinlog.postgres.meaning import Meaning, outages, rule_of
from twinlog.postgres.migrations import migrate
from twinlog.postgres.urls import address_of, database_of, database_url, entry_url, parted

OLDEST_POSTGRES = 140000
CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 0.5
_KEEPALIVE = {"TCP_KEEPIDLE": 6, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 15_000}
"""A server that is gone without a word is noticed after 15 s; the last is in milliseconds."""
_POOLER_SECONDS = 2.0
_POOLER_ROUNDS = 4

SESSION = """SET default_transaction_isolation = 'read committed'; SET row_security = off;
SET quote_all_identifiers = off; SET standard_conforming_strings = on; SET transform_null_equals = off;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
SET tcp_keepalives_idle = 6; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3;
SET tcp_user_timeout = 15000; SET idle_session_timeout = 0"""
"""Every transaction relies on it: one that waited for the log's lock has to see what was committed meanwhile, and what
is acknowledged has to be on the disk; and rows that a policy hides would be taken for rows that are not there, so that
that is an error. The second line is how statements are read, and how names are told that are compared with stored ones.
Set in the session, because that goes before what the server, the database or the user has as its default, and a pooler
lets it pass. ``default_transaction_read_only`` stays as the operator has it: read-only is an outage; so do the other
ways to commit, which wait for the disk, too, or for replicas. The last line is for the server what ``_KEEPALIVE`` is
here: a process that is gone without a word may hold the log's lock, for two hours by default. A session that is there
and idle is kept for the next read, which would be the one to fail."""


@contextmanager
def refused_at_start() -> Iterator[None]:
    """Raises a wrong setting as ConfigurationError: a process that starts ends on it, and does not wait."""
    try:
        yield
    except WrongSetting as error:
        raise ConfigurationError(str(error)) from error


_LOOK_IN = "SELECT set_config('search_path', quote_ident($1), false), set_config('twinlog.schema', $1, false)"
"""Only there: what another log has in the schema public is none of this one's. The second part keeps locks apart."""


_OF_PARAMETERS = re.compile(
    "config|custom_variable|parse_and_validate|check_hook|find_option|postgres_switches"
)
"""The server's functions that refuse a session for a parameter; their codes are those of statements, too."""


class WrongParameter(WrongSetting):
    """POSTGRES_URL: the server refuses a parameter of the URL ({why}: {where}); leave it out, or correct it"""


async def connect(url: str, **options: Any) -> asyncpg.Connection:
    """A connection; where the URL's database is ``database/schema``, names are looked up in that schema.

    Raises Unavailable, and WrongSetting, with the address of the server.
    """
    database, schema = parted(database_of(url))
    try:
        with outages(address_of(url)):
            plain = database_url(url, database) if schema else url
            connection = await _opened(plain, **options)
            _watch(connection)
            if not schema:
                return connection
            try:
                # No parameter of the connection: poolers refuse those that they do not know.
                await connection.execute(_LOOK_IN, schema)
            except BaseException:
                connection.terminate()
                raise
            return connection
    except ValueError as error:  # asyncpg shows what it stumbles over, which may be a piece of the password
        raise WrongSetting(
            "POSTGRES_URL: it cannot be used as a URL; see the documentation of the setting"
        ) from error


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for a block. Raises what :func:`connect` does."""
    connection = await connect(url, timeout=CONNECT_SECONDS)
    try:
        yield connection
    finally:
        await close(connection)


async def close(connection: asyncpg.Connection) -> None:
    """Closes a connection promptly, also while the server does not answer."""
    with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await connection.close()


class PlacedConnection(asyncpg.Connection):
    """A connection that remembers in which schemas its session looks first, and that a pool may take over."""

    _config: Any  # asyncpg's

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.path = ""
        self._own_path = ""

    async def go_to(self, path: str) -> None:
        """Has names looked up in these schemas first; empty: as the session began."""
        self._own_path = self._own_path or str(await self.fetchval("SHOW search_path"))
        await self.execute(f"SET search_path TO {path + ', ' if path else ''}{self._own_path}")
        self.path = path

    def limit(self, seconds: float) -> None:
        """Has every statement from now on end within this time, unless it says another."""
        self._config = self._config._replace(command_timeout=seconds)  # asyncpg has no public word for it


async def _opened(url: str, **options: Any) -> asyncpg.Connection:
    """A session; no statement of ours is at fault where none is to be had, whatever a server or a pooler says.

    A trigger of logins may raise what it likes, and poolers have codes of their own.
    """
    try:
        return await asyncpg.connect(url, **options)
    except asyncpg.PostgresError as error:
        where = address_of(url)
        if _OF_PARAMETERS.search(getattr(error, "server_source_function", None) or ""):
            raise WrongParameter(why=reason(error), where=where) from error
        if (rule := rule_of(error)) and rule.meaning is not Meaning.DEFECT:
            raise
        raise Unavailable(f"the database is out of service ({reason(error)}: {where})") from error


def _watch(connection: asyncpg.Connection) -> None:
    """Has the system ask a server that says nothing whether it is there, and end the connection if it is not.

    A statement may take long, and nobody who waits for its answer would find out otherwise.
    """
    transport = getattr(connection, "_transport", None)  # asyncpg has no public word for it
    sock = transport.get_extra_info("socket") if transport else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


Admit = Callable[[asyncpg.Connection, str], Awaitable[None]]
"""Looks at a database, by a connection and its name, before anything is made in it."""


async def everything(_connection: asyncpg.Connection, _database: str) -> None:
    """Whatever is in the database."""


async def all_databases(server_url: str) -> list[str]:
    """The databases of a server that take connections, in order. Raises what asyncpg does.

    One with a slash in its name is none of Twinlog's.
    """
    async with connected(entry_url(server_url)) as connection:
        rows = await connection.fetch(
            "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate AND strpos(datname, '/') = 0 "
            "ORDER BY datname"
        )
    return [row[0] for row in rows]


async def ensure_database(server_url: str, database: str) -> str:
    """As :func:`connect_to_database`, for its URL."""
    await close(await connect_to_database(server_url, database))
    return database_url(server_url, database)


async def connect_to_database(
    server_url: str, database: str, *packages: str, admit: Admit = everything
) -> PlacedConnection:
    """Creates the database, and its schema, if it is missing, checks that it can be used, and returns a connection.

    The migrations of ``packages`` are applied on it: every start pays for each connection. ``admit`` raises
    ConfigurationError where what is in the database already is another's.

    Raises ConfigurationError, one line that says what is needed, if it cannot; and Unavailable while the server is
    not up.
    """
    url = database_url(server_url, database)
    with refused_at_start():
        try:
            connection = await connect_placed(url)
        except WrongSetting as error:
            if not is_missing(error.__cause__):
                raise
            await _create(server_url, database)
            try:
                connection = await connect_placed(url)
            except Unavailable as unavailable:
                raise Unavailable(
                    f"database {database} was made just now, and nobody is let into it yet ({unavailable}); a pooler "
                    "in between asks the server again after a while (pgbouncer: server_login_retry)"
                ) from unavailable
        try:
            with outages(address_of(url)):
                await check(connection, url)
                if (schema := parted(database)[1]) and not await connection.fetchval(HAS_SCHEMA, schema):
                    await _create_schema(connection, database)
                await admit(connection, database)
                await migrate_all(connection, packages)
        except BaseException:
            await close(connection)
            raise
    return connection


async def connect_placed(url: str) -> PlacedConnection:
    """A connection that a pool may take over. Raises what :func:`connect` does."""
    connection = await connect(url, timeout=CONNECT_SECONDS, connection_class=PlacedConnection)
    return cast(PlacedConnection, connection)


async def migrate_all(connection: asyncpg.Connection, packages: Sequence[str]) -> None:
    """Applies the migrations of these packages. Raises what :func:`migrate` does."""
    if not packages:
        return
    await connection.execute(SESSION)
    for package in packages:
        await migrate(connection, package)


async def migrate_if(
    server_url: str,
    database: str,
    packages: Sequence[str],
    agrees: Callable[[asyncpg.Connection], Awaitable[None]],
) -> None:
    """Applies the migrations of these packages in one transaction, which is taken back where ``agrees`` raises.

    Raises what that and :func:`migrate` do, and Unavailable.
    """
    url = database_url(server_url, database)
    with refused_at_start():
        async with connected(url) as connection:
            with outages(address_of(url)):
                await connection.execute(SESSION)
                async with connection.transaction():
                    for package in packages:
                        await migrate(connection, package)
                    await agrees(connection)


HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)"


async def _create_schema(connection: asyncpg.Connection, database: str) -> None:
    name, schema = parted(database)
    try:
        with suppress(
            asyncpg.DuplicateSchemaError, asyncpg.UniqueViolationError
        ):  # another process may be faster
            await connection.execute(f'CREATE SCHEMA "{schema}"')
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            f"POSTGRES_DATABASE: database {name} has no schema {schema}, and this user may not create it; as its owner "
            f"CREATE SCHEMA {schema} AUTHORIZATION this user, or GRANT CREATE ON DATABASE {name}"
        ) from error


def is_missing(error: BaseException | None) -> bool:
    """Whether a database is not there, by Postgres' word or by a pooler's."""
    return isinstance(error, asyncpg.InvalidCatalogNameError) or (
        isinstance(error, asyncpg.ProtocolViolationError) and "database" in str(error)
    )


async def check(connection: asyncpg.Connection, url: str) -> None:
    """Raises WrongSetting where the server is too old, not in UTF8, or behind a pooler that parts sessions."""
    async with connection.transaction():
        row = await connection.fetchrow(
            "SELECT current_setting('server_version_num')::integer, getdatabaseencoding(), pg_backend_pid()"
        )
    assert row is not None
    version, encoding, session = row
    if version < OLDEST_POSTGRES:
        raise WrongSetting(f"POSTGRES_URL: Postgres 14 or newer is needed, this one is {version}")
    if encoding != "UTF8":
        raise WrongSetting(
            f"POSTGRES_URL: database {database_of(url)} is encoded in {encoding}, where UTF8 is needed; "
            f"make it anew with ENCODING 'UTF8' TEMPLATE template0"
        )
    if connection.get_server_pid() != session and await _shares_sessions(connection, url):
        raise WrongSetting(
            "POSTGRES_URL: the pooler in between gives each transaction another session; use its session mode "
            "(pgbouncer: pool_mode = session) or the server's own address"
        )
    if connection.get_server_pid() != session and await _hands_on_sessions(url):
        raise WrongSetting(
            "POSTGRES_URL: the pooler in between hands on sessions as others have left them, with their locks and "
            "their schema; have it clear them (pgbouncer: server_reset_query = DISCARD ALL, as by default)"
        )


async def _shares_sessions(connection: asyncpg.Connection, url: str) -> bool:
    """Whether a pooler lets two connections use one session, or one connection use two sessions, in turn."""
    own, other = {await _session(connection)}, await connect(url, timeout=CONNECT_SECONDS)
    try:
        for _ in range(_POOLER_ROUNDS):
            if await _session(other) in own:
                return True
            own.add(await _session(connection))
            if len(own) > 1:
                return True
    except TimeoutError:
        pass  # the pool has no session left although this connection does nothing: so it has kept its own
    finally:
        other.terminate()
    return False


async def _hands_on_sessions(url: str) -> bool:
    """Whether what one connection has set in its session, the next one finds there."""
    for statement in (_MARK, _IS_MARKED):
        async with connected(url) as connection:
            marked = await connection.fetchval(statement)
    return bool(marked)


_MARK = "SELECT set_config('twinlog.marked', 'yes', false)"
_IS_MARKED = "SELECT current_setting('twinlog.marked', true)"


async def _session(connection: asyncpg.Connection) -> int:
    async with connection.transaction():
        return int(await connection.fetchval("SELECT pg_backend_pid()", timeout=_POOLER_SECONDS))


async def _create(server_url: str, database: str) -> None:
    database, _ = parted(database)
    name = f'"{database}"'
    try:
        async with connected(entry_url(server_url)) as connection:
            # Another process may be faster.
            with outages(), suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                try:
                    await connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8'")
                except asyncpg.InvalidParameterValueError:  # the server's template is in another encoding
                    await connection.execute(
                        f"CREATE DATABASE {name} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
                    )
    except WrongParameter:
        raise
    except WrongSetting as error:
        raise WrongSetting(
            f"POSTGRES_URL: there is no database {database} and this user may not create it "
            f"({reason(error.__cause__ or error)}); "
            f"create it, or grant CREATEDB; a pooler has to know it too"
        ) from error
