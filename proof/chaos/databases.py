"""A Postgres that answers, and will not do what it is asked, or not as it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from secrets import token_hex

import asyncpg

from proof.chaos.pooler import PgBouncer
from proof.chaos.stage import Stage
from proof.chaos.starts import SECOND, all_refuse
from stack.topology import DATABASES, NAMESPACE, PROJECTOR, SHOP_LOGS
from twinlog.testing.internals import named

_TAKEN_SECONDS, _AT_ONCE = 4.0, 8
_HELD_UP_SECONDS = 3.0
_WRITING = "INSERT, UPDATE, DELETE"
_KEYS = named(NAMESPACE, "twinlog_keys")
"""The database of the keys of personal data, which the services share."""
_END_A_SESSION = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'shop\\_%' ORDER BY random() LIMIT 2
"""


async def view_locked(stage: Stage) -> None:
    """An operator's session holds a view's table, and the server lets nobody wait for a lock for long."""
    pids, views = _pids(stage), PROJECTOR.database
    try:
        await _for_sessions(stage, [views], "SET lock_timeout = '300ms'")
        async with stage.rig.connected(views) as connection, connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = 0")
            await connection.execute("LOCK TABLE orders")
            stage.say("the table of orders is locked")
            await stage.go_on(3.0)
    finally:
        await _for_sessions(stage, [views], "RESET lock_timeout")
    await stage.felt("cursor.stopped")
    _nobody_gave_up(stage, pids)


async def postgres_read_only(stage: Stage) -> None:
    """Sessions are read-only, as on a server that a failover has made a replica; then new ones may write again."""
    await _refused(stage, "SET default_transaction_read_only = on", "RESET default_transaction_read_only")


async def postgres_refuses(stage: Stage) -> None:
    """The databases accept no connections for a while."""
    await _refused(stage, "ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true")


async def isolation(stage: Stage) -> None:
    """The databases' transactions are stricter by default than is needed, under two replicas that race."""
    pids = _pids(stage)
    try:
        for level in ("repeatable read", "serializable"):
            stage.say(f"transactions are {level} by default")
            await _for_sessions(stage, DATABASES, f"SET default_transaction_isolation = '{level}'")
            await stage.go_on(3.0)
    finally:
        for database in DATABASES:
            await _execute(stage, f"ALTER DATABASE {database} RESET default_transaction_isolation")
    _nobody_gave_up(stage, pids)


async def connections_taken(stage: Stage) -> None:
    """Somebody else takes every connection that Postgres has, and gives them back."""
    pids = _pids(stage)
    async with stage.rig.connected() as operator, AsyncExitStack() as taken:
        while await _taken(stage, taken):
            pass
        stage.say("every connection to Postgres is taken")
        ended = asyncio.get_running_loop().time() + _TAKEN_SECONDS
        while asyncio.get_running_loop().time() < ended:
            await operator.execute(_END_A_SESSION)
            await _taken(stage, taken)
    await stage.felt("writer.store_unavailable")
    _nobody_gave_up(stage, pids)


async def _taken(stage: Stage, taken: AsyncExitStack) -> bool:
    """Takes some connections, if there are any left."""
    more = [taken.enter_async_context(stage.rig.connected()) for _ in range(_AT_ONCE)]
    refused = [error for error in await asyncio.gather(*more, return_exceptions=True) if error]
    return not any(isinstance(error, asyncpg.TooManyConnectionsError) for error in refused)


async def tables_renamed(stage: Stage) -> None:
    """An operator renames a table of each database in turn, and back: programs find nothing where they look."""
    pids = _pids(stage)
    tables = dict(zip(SHOP_LOGS.values(), ("events", "checkpoints", "timers"), strict=True))
    for database, table in {**tables, PROJECTOR.database: "orders"}.items():
        stage.say(f"table {table} of {database} is renamed")
        await _execute(stage, f"ALTER TABLE {table} RENAME TO {table}_away", database)
        try:
            await stage.go_on(1.5)
        finally:
            await _execute(stage, f"ALTER TABLE {table}_away RENAME TO {table}", database)
        await stage.go_on(1.0)
    await stage.felt("writer.store_unavailable")
    _nobody_gave_up(stage, pids)


async def rights(stage: Stage) -> None:
    """The services run as a user that may not create anything, and for a while may not write either."""
    password = token_hex(16)
    url = f"postgresql://runner:{password}@127.0.0.1:{stage.rig.postgres.port}"
    await _execute(stage, f"CREATE ROLE runner LOGIN NOCREATEDB PASSWORD '{password}'")
    try:
        await _in_each(
            stage, "REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO runner"
        )
        await _in_each(stage, f"GRANT SELECT, {_WRITING} ON ALL TABLES IN SCHEMA public TO runner")
        stage.say("every process starts again, as a user that may not create anything")
        await _start_again(stage, url)
        stage.say("a second shop comes as that user, and has no databases")
        await all_refuse(stage, url, "this user may not create it", TWINLOG_NAMESPACE=SECOND)
        pids = _pids(stage)
        stage.say("the user may not write")
        await _in_each(stage, f"REVOKE {_WRITING} ON ALL TABLES IN SCHEMA public FROM runner")
        await stage.go_on(3.0)
        await _in_each(stage, f"GRANT {_WRITING} ON ALL TABLES IN SCHEMA public TO runner")
        await stage.felt("writer.store_unavailable")
        _nobody_gave_up(stage, pids)
        await stage.rig.ready()
    finally:
        await _start_again(stage, "")
        await _in_each(stage, "DROP OWNED BY runner; GRANT USAGE ON SCHEMA public TO PUBLIC")
        await _execute(stage, "DROP ROLE runner")


async def _start_again(stage: Stage, url: str) -> None:
    """Ends every process; the next ones use this server, or the rig's where it is empty."""
    for replica in stage.rig.all:
        replica.env.pop("POSTGRES_URL", None)
        if url:
            replica.env["POSTGRES_URL"] = url
    await asyncio.gather(*(replica.stop() for replica in stage.rig.all))
    await stage.rig.ready()


async def _in_each(stage: Stage, statements: str) -> None:
    for database in (*DATABASES, _KEYS):
        await _execute(stage, statements, database)


async def pooler(stage: Stage) -> None:
    """The operator of a pgbouncer uses every command of it that holds clients up, and ends it."""
    pids, bouncer = _pids(stage), stage.rig.pooler
    assert bouncer is not None
    for begin, end in (("PAUSE", "RESUME"), ("KILL", "RESUME"), ("DISABLE", "ENABLE")):
        stage.say(f"{begin} of each database, for {_HELD_UP_SECONDS:g} s")
        await _held_up(stage, bouncer, begin, end)
        await stage.go_on(1.0)
    async with bouncer.console() as console:
        stage.say("RECONNECT")
        await console.execute("RECONNECT")
    await stage.go_on(1.0)
    stage.say("kill -9 pgbouncer")
    await bouncer.kill()
    await stage.go_on(_HELD_UP_SECONDS)
    await bouncer.start()
    await stage.felt("writer.store_unavailable")
    _nobody_gave_up(stage, pids)


async def _held_up(stage: Stage, bouncer: PgBouncer, begin: str, end: str) -> None:
    commands: list[asyncio.Future[str]] = []
    async with AsyncExitStack() as consoles:
        try:
            for database in DATABASES:
                # PAUSE waits for sessions to end, which a service keeps for as long as the server does.
                console = await consoles.enter_async_context(bouncer.console())
                commands.append(asyncio.ensure_future(console.execute(f"{begin} {database}")))
                await _end_sessions(stage, database)
            await stage.go_on(_HELD_UP_SECONDS)
            for command in commands:
                if command.done():
                    command.result()
        finally:
            for command in commands:
                command.cancel()
            async with bouncer.console() as console:
                for database in DATABASES:
                    await console.execute(f"{end} {database}")


async def _refused(stage: Stage, begin: str, end: str) -> None:
    pids = _pids(stage)
    stage.say(begin)
    try:
        await _for_sessions(stage, DATABASES, begin)
        await stage.go_on(3.0)
    finally:
        stage.say(end)
        for database in DATABASES:
            await _execute(stage, f"ALTER DATABASE {database} {end}")
    await stage.felt("writer.store_unavailable")
    _nobody_gave_up(stage, pids)


async def _for_sessions(stage: Stage, databases: Sequence[str], what: str) -> None:
    """Changes databases, and ends the sessions that do not know of it."""
    for database in databases:
        await _execute(stage, f"ALTER DATABASE {database} {what}")
        await _end_sessions(stage, database)


async def _end_sessions(stage: Stage, database: str) -> None:
    await _execute(
        stage, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    )


async def _execute(stage: Stage, statement: str, database: str = "postgres") -> None:
    async with stage.rig.connected(database) as connection:
        await connection.execute(statement)


def _pids(stage: Stage) -> list[int]:
    return [replica.pid for replica in stage.rig.all]


def _nobody_gave_up(stage: Stage, pids: Sequence[int]) -> None:
    """Complains of processes that have ended and of events that were set aside: an outage is waited for."""
    if _pids(stage) != pids:
        stage.complain("a process has ended for an outage")
    if any('"dead_letter.parked"' in line for line in stage.rig.lines):
        stage.complain("an event was set aside for an outage")
