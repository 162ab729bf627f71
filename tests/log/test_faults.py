"""The store in trouble, on a real server: what passes is waited for and told, what does not is refused at start."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import product
from typing import Any, cast

import asyncpg
import pytest
import pytest_asyncio
from google.protobuf.wrappers_pb2 import Int64Value
from structlog.testing import capture_logs

from customer_svc import app as customer_svc
from order_svc import app as order_svc
from projector import app as projector
from proof.chaos.proxy import Proxy
from saga_orchestrator import app as saga_orchestrator
from tests import servers
from tests.dead_letters.journal import CONSUMER, Row, Source, dead_lettering, positions
from tests.kernel.batches import batch, counter
from tests.kernel.counter import ALARM, COUNTER, Add, Set
from tests.log.pooler import pooler
from tests.log.test_meaning import of
from tests.waiting import until
from twinlog import (
    ConfigurationError,
    PostgresViews,
    Projection,
    Schema,
    Service,
    StreamId,
    Unavailable,
    Writer,
)
from twinlog.consume import dead_lettering as dead_lettering_module
from twinlog.consume.cursor import Cursor
from twinlog.dev import EmbeddedPostgres
from twinlog.log import group_commit
from twinlog.log import snapshots as snapshots_module
from twinlog.log.ports import Conflict
from twinlog.model.errors import WrongSetting
from twinlog.postgres import connection
from twinlog.postgres.connection import on_connection, prepared_pool
from twinlog.postgres.database import PlacedConnection, connect, connect_placed, connected
from twinlog.postgres.lease import PostgresLease
from twinlog.postgres.meaning import LostRace
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.urls import database_url
from twinlog.service.environment import Environment
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.internals import (
    Appended,
    Batch,
    CheckpointAdvance,
    Connection,
    Pool,
    PostgresLog,
    RandomIds,
    SystemClock,
    ensure_database,
    open_log,
)

PACKAGE = "tests.dead_letters.sql"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shaken() -> AsyncIterator[EmbeddedPostgres]:
    """A server whose settings these tests change."""
    async with servers.postgres_server() as server, servers.template(server.url):
        # Its roles have no passwords, and the pooler knows none.
        (server.folder / "data" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
        await servers.execute(server.url, "SELECT pg_reload_conf()")
        yield server


@pytest.fixture
async def name(shaken: EmbeddedPostgres) -> AsyncIterator[str]:
    async with servers.database(shaken.url) as database:
        yield database


@pytest.fixture
async def empty(shaken: EmbeddedPostgres) -> AsyncIterator[str]:
    async with servers.empty_database(shaken.url) as database:
        yield database


def as_role(server: EmbeddedPostgres, role: str) -> str:
    return f"postgresql://{role}@127.0.0.1:{server.port}"


async def setting(server: EmbeddedPostgres, database: str, what: str) -> None:
    """Changes a default of the database, for its next sessions and, by ending them, for those there are."""
    await servers.execute(server.url, f'ALTER DATABASE "{database}" {what}')
    await cut(server, database)


async def cut(server: EmbeddedPostgres, database: str) -> None:
    sessions = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    await servers.execute(server.url, sessions)


async def answers(attempt: Callable[[], Awaitable[object]]) -> bool:
    try:
        await attempt()
    except Unavailable:
        return False
    return True


@asynccontextmanager
async def writing(log: Any) -> AsyncIterator[Writer]:
    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        yield writer


# --- locks, races and isolation ---


async def test_a_locked_view_is_waited_for_and_told(shaken: EmbeddedPostgres, name: str) -> None:
    source, twin = Source(), MemoryTwin("source")
    await twin.create(1)
    await servers.execute(shaken.url, f"ALTER DATABASE \"{name}\" SET lock_timeout = '50ms'")
    async with open_log(shaken.url, name, "views", PACKAGE) as log:
        views = PostgresViews(log, PACKAGE, {"journal": Row})
        projection = dead_lettering(Projection(CONSUMER, [source.view()], views, schema=Schema()), log)
        cursor = Cursor(twin, projection)
        following = asyncio.create_task(cursor.run())
        async with log.pool.acquire() as operator, operator.transaction():
            await operator.execute("LOCK TABLE journal")
            await twin.publish(source.add("a:1"))
            await until(lambda: "lock timeout" in (cursor.problem or ""))
            await twin.publish(source.add("a:2"))
            assert await views.checkpoint(CONSUMER) == 0
        await until(lambda: cursor.position == 2)
        following.cancel()
        assert (await views.rows(source.view(), ["a"]))["a"].written == "1 2"
        assert positions(await projection.dead_letters()) == {}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_transactions_set_their_isolation_themselves(
    shaken: EmbeddedPostgres, name: str, level: str
) -> None:
    """A transaction that waited for the log's lock sees what was committed meanwhile."""
    await setting(shaken, name, f"SET default_transaction_isolation = '{level}'")
    async with open_log(shaken.url, name, "counters") as one, open_log(shaken.url, name, "counters") as two:
        async with writing(one) as first, writing(two) as second:
            await asyncio.gather(
                *(
                    writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))
                    for _ in range(60)
                    for writer in (first, second)
                )
            )
            outcome = await first.execute(lambda tx: tx.do(COUNTER, "a", Add(0)))
            assert await one.head() >= 120
        async with one.exclusive() as session:
            assert isinstance(await session.append(batch((counter("b"), 0, 1))), Appended)
        assert await one.pool.fetchval("SHOW transaction_isolation") == "read committed"
        assert outcome.result.value == 120


@pytest.mark.parametrize(
    ("given", "used"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")]
)
async def test_what_is_acknowledged_is_on_the_disk_whatever_the_default(
    shaken: EmbeddedPostgres, name: str, given: str, used: str
) -> None:
    await setting(shaken, name, f"SET synchronous_commit = '{given}'")
    async with open_log(shaken.url, name, "counters") as log:
        assert await log.pool.fetchval("SHOW synchronous_commit") == used


async def test_how_a_role_writes_names_and_reads_statements_changes_nothing(
    shaken: EmbeddedPostgres, name: str
) -> None:
    given = {
        "quote_all_identifiers": "on",
        "standard_conforming_strings": "off",
        "transform_null_equals": "on",
    }
    for setting_, value in given.items():
        await setting(shaken, name, f"SET {setting_} = {value}")
    await setting(shaken, name, "SET idle_session_timeout = '1h'")
    async with open_log(shaken.url, name, "counters") as log:
        used = {each: await log.pool.fetchval(f"SHOW {each}") for each in given}
        rows = await log.pool.fetch(QUERIES["columns_of_tables"])
        assert await log.pool.fetchval("SHOW idle_session_timeout") == "0", "kept for the next read"
    assert used == {each: {"on": "off", "off": "on"}[value] for each, value in given.items()}
    assert ["events", "type", "text"] in [list(row) for row in rows]


# --- outages ---


OUTAGES = {
    "read-only": ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),
    "no connections": ("ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true"),
}


@pytest.mark.parametrize("kind", OUTAGES)
async def test_a_database_that_refuses_for_a_while_is_waited_for(
    shaken: EmbeddedPostgres, name: str, kind: str
) -> None:
    begin, end = OUTAGES[kind]
    async with open_log(shaken.url, name, "counters") as log, writing(log) as writer:
        await writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))
        await setting(shaken, name, begin)
        waiting = asyncio.create_task(writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1))))
        await until(lambda: writer.problem is not None or waiting.done())
        assert not waiting.done()
        # Sessions that began in a read-only spell stay so; these are given up.
        await servers.execute(shaken.url, f'ALTER DATABASE "{name}" {end}')
        assert (await waiting).result.value == 2
        assert writer.problem is None


async def test_a_server_that_is_gone_without_a_word_is_waited_for_once(
    shaken: EmbeddedPostgres, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover whose connections nobody ended: each that is left would be waited for in turn."""
    monkeypatch.setattr(connection, "_STATEMENT_SECONDS", 1.0)
    monkeypatch.setattr(connection, "_CANCEL_SECONDS", 0.1)
    async with Proxy(shaken.port) as proxy:
        url = shaken.url.replace(f":{shaken.port}", f":{proxy.port}")
        async with open_log(url, name, "counters") as log:
            async with log.pool.acquire(), log.pool.acquire():
                pass
            made = log.connections
            proxy.lose()
            with pytest.raises(Unavailable, match="no answer in time"):
                await log.head()
            with suppress(Unavailable):  # where the machine is as slow as that
                await log.head()
            assert log.connections > made


async def test_who_says_nothing_is_asked_whether_it_is_there(shaken: EmbeddedPostgres, name: str) -> None:
    """By the system: a statement may take long, so nobody who waits for its answer finds out.

    The server asks, too: a process that is gone may hold the log's lock."""
    async with open_log(shaken.url, name, "counters") as log:
        assert await log.pool.fetchval("SHOW tcp_keepalives_idle") == "6"
        assert await log.pool.fetchval("SHOW tcp_user_timeout") in ("15s", "15000")
    opened = await connect(database_url(shaken.url, name))
    transport = cast(Any, opened)._transport
    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
    await opened.close()


async def test_a_start_waits_for_a_free_connection(shaken: EmbeddedPostgres, name: str) -> None:
    await servers.execute(
        shaken.url, "DROP ROLE IF EXISTS crowded; CREATE ROLE crowded LOGIN CONNECTION LIMIT 0"
    )
    async with open_log(shaken.url, name, "counters") as log:
        await log.pool.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO crowded")

    async def started() -> int:
        async with open_log(as_role(shaken, "crowded"), name, "counters") as log:
            return await log.head()

    with capture_logs() as said:
        starting = asyncio.create_task(started())
        await until(lambda: any(line["event"] == "postgres.waiting" for line in said))
        await servers.execute(shaken.url, "ALTER ROLE crowded CONNECTION LIMIT 9")
        assert await starting == 0
    assert "too many connections for role" in said[0]["why"]
    assert f"127.0.0.1:{shaken.port}" in said[0]["why"]


async def test_who_may_have_few_connections_waits_for_those(shaken: EmbeddedPostgres, name: str) -> None:
    """Fewer than the pool would have; what was refused one is not offered before those that are there."""
    await servers.execute(shaken.url, "DROP ROLE IF EXISTS few; CREATE ROLE few LOGIN CONNECTION LIMIT 2")
    async with prepared_pool(database_url(as_role(shaken, "few"), "postgres"), size=6) as pool:

        async def one() -> int:
            return int(await on_connection(pool, lambda held: held.fetchval("SELECT 1")))

        await one()
        for crowd in (6, 1, 6, 1):
            assert await asyncio.gather(*(one() for _ in range(crowd))) == [1] * crowd
        assert pool.get_size() <= 2


async def test_a_setting_that_turns_out_wrong_later_is_an_outage_with_its_line(
    shaken: EmbeddedPostgres, name: str
) -> None:
    await servers.execute(shaken.url, "DROP ROLE IF EXISTS fired; CREATE ROLE fired LOGIN SUPERUSER")
    async with open_log(as_role(shaken, "fired"), name, "counters") as log:
        await log.head()
        await servers.execute(shaken.url, "ALTER ROLE fired NOLOGIN")
        await cut(shaken, name)

        async def refused() -> bool:
            try:
                await log.head()
            except WrongSetting as error:
                return bool(re.match(r"POSTGRES_URL: Postgres refuses the login .*127.0.0.1", str(error)))
            except Unavailable:
                return False  # of a connection that has not heard that it was cut
            return False

        await until(refused)
        with pytest.raises(ConfigurationError, match=r"^POSTGRES_URL: Postgres refuses the login"):
            async with open_log(as_role(shaken, "fired"), name, "counters"):
                pass
        await servers.execute(shaken.url, "ALTER ROLE fired LOGIN")
        assert await log.head() == 0


async def test_rights_that_are_taken_away_are_an_outage(shaken: EmbeddedPostgres, name: str) -> None:
    await servers.execute(shaken.url, "DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN")
    async with open_log(shaken.url, name, "counters", PACKAGE) as owner:
        rights = "INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"
        await owner.pool.execute(f"GRANT SELECT, {rights} TO poor")
        async with open_log(as_role(shaken, "poor"), name, "counters", PACKAGE) as log:
            views = PostgresViews(log, PACKAGE, {"journal": Row})
            source = Source()
            projection = dead_lettering(Projection(CONSUMER, [source.view()], views, schema=Schema()), log)
            await owner.pool.execute(f"REVOKE {rights} FROM poor")
            for attempt in (
                log.append(batch((counter("a"), 0, 1))),
                views.commit({}, CheckpointAdvance("c", 0, 1)),
                projection.handle(source.add("a:1"), 0),
            ):
                with pytest.raises(WrongSetting, match=r"^POSTGRES_URL: this user lacks a right"):
                    await attempt
            await owner.pool.execute(f"GRANT {rights} TO poor")
            assert await projection.handle(source.events, 0) == 1
            assert positions(await projection.dead_letters()) == {}

            # Rows that are there and hidden are none that are missing.
            await owner.pool.execute(
                "ALTER TABLE events ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON events USING (false)"
            )
            with pytest.raises(WrongSetting, match=r"^POSTGRES_URL: a policy hides rows from this user"):
                await log.read(0, 1)
            await owner.pool.execute("ALTER TABLE events DISABLE ROW LEVEL SECURITY")


_CHANGED = {
    "a column of a name that a function uses": (
        "ALTER TABLE events ADD COLUMN head bigint",
        "ALTER TABLE events DROP COLUMN head",
    ),
    "a column of another type": (
        "ALTER TABLE events ALTER partition_key TYPE bytea USING partition_key::bytea",
        "ALTER TABLE events ALTER partition_key TYPE text USING convert_from(partition_key, 'UTF8')",
    ),
}


async def test_a_table_that_was_changed_is_an_outage_until_it_is_as_before(
    shaken: EmbeddedPostgres, name: str
) -> None:
    wrong: list[str] = []
    async with open_log(shaken.url, name, "counters") as log:
        await log.append(batch((counter("a"), 0, 1)))
        for number, (what, (change, undo)) in enumerate(_CHANGED.items(), 1):
            await log.pool.execute(change)
            try:
                wrong.append(f"{what}: {await log.append(batch((counter('a'), number, 1)))}")
            except WrongSetting as error:
                if not str(error).startswith("POSTGRES_URL: the database does not have what"):
                    wrong.append(f"{what}: {error}")
            except Exception as error:
                wrong.append(f"{what}: {type(error).__name__}: {error}")
            await log.pool.execute(undo)
            await log.append(batch((counter("a"), number, 1)))
    assert not wrong, "\n".join(wrong)


async def test_a_value_that_a_column_cannot_hold_is_the_events_fault(
    shaken: EmbeddedPostgres, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_lettering_module, "RETRIES", 0)
    source = Source()
    async with open_log(shaken.url, name, "views", PACKAGE) as log:
        views = PostgresViews(log, PACKAGE, {"journal": Row})

        for nonsense in (7, object(), "\0", "\ud800"):

            def misfitting(row: Row | None, event: Any, _message: Any, nonsense: Any = nonsense) -> Row:
                written = nonsense if event.partition_key == "bad" else "fine"
                return Row(event.partition_key, written, event.recorded_at)

            view = source.view()
            view = type(view)(view.name, view.key, misfitting)
            projection = dead_lettering(Projection("c", [view], views, schema=Schema()), log)
            events = source.add("bad:1", "good:2")
            after = await projection.checkpoint()
            dead = positions(await projection.dead_letters()).get("bad", [])
            assert await projection.handle(events, after) == events[-1].position
            assert positions(await projection.dead_letters()) == {"bad": [*dead, events[0].position]}


# --- what is refused at start ---


async def test_a_database_that_is_not_in_utf8_is_refused(shaken: EmbeddedPostgres, name: str) -> None:
    other = f"{name}_latin"
    await servers.execute(
        shaken.url,
        f"CREATE DATABASE \"{other}\" ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    )
    with pytest.raises(ConfigurationError, match=rf"^POSTGRES_URL: database {other} is encoded in LATIN1"):
        await ensure_database(shaken.url, other)
    await servers.execute(shaken.url, f'DROP DATABASE "{other}"')


async def test_a_database_is_made_in_utf8_whatever_the_template_is_in(
    shaken: EmbeddedPostgres, name: str
) -> None:
    encoding = "UPDATE pg_database SET encoding = pg_char_to_encoding('{}') WHERE datname = 'template1'"
    await servers.execute(shaken.url, encoding.format("LATIN1"))
    try:
        url = await ensure_database(shaken.url, f"{name}_new")
    finally:
        await servers.execute(shaken.url, encoding.format("UTF8"))
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    await connection.close()
    await servers.execute(shaken.url, f'DROP DATABASE "{name}_new"')


async def test_a_parameter_that_the_server_refuses_is_named(shaken: EmbeddedPostgres, name: str) -> None:
    """Those of libpq's that asyncpg does not know, too. A database that is to be made changes nothing."""
    wrong = {
        "connect_timeout=3": 'unrecognized configuration parameter "connect_timeout"',
        "work_mem=abc": 'invalid value for parameter "work_mem": "abc"',
        "work_mem=1": 'outside the valid range for parameter "work_mem"',
        "timezone=Mars": 'invalid value for parameter "TimeZone": "Mars"',
        "role=nobody_here": 'role "nobody_here" does not exist',
        "options=-cmax_connections%3D5": 'parameter "max_connections" cannot be changed',
        "options=-z": "invalid command-line argument for server process: -z",
    }
    silent = []
    for parameter, said in wrong.items():
        for database in (name, f"{name}_missing"):
            with pytest.raises((ConfigurationError, Unavailable)) as refused:
                await ensure_database(f"{shaken.url}/?{parameter}", database)
            told = str(refused.value)
            if not (told.startswith("POSTGRES_URL: the server refuses a parameter") and said in told):
                silent.append(f"{parameter}: {told}")
            assert "\n" not in told
    assert not silent, "\n".join(silent)


@pytest.mark.parametrize("fifo", [False, True], ids=["last in first out", "first in first out"])
@pytest.mark.parametrize("sessions", [0, 3])
async def test_a_pooler_that_parts_sessions_is_refused(
    shaken: EmbeddedPostgres, name: str, fifo: bool, sessions: int
) -> None:
    async with pooler(shaken.port, first_in_first_out=fifo) as between:
        for _ in range(sessions):
            await between.open({"user": "postgres", "database": name, "client_encoding": "utf-8"})
        with pytest.raises(ConfigurationError, match=r"^POSTGRES_URL: the pooler .*pool_mode = session"):
            await ensure_database(f"postgresql://postgres@127.0.0.1:{between.port}", name)


async def test_a_pooler_that_hands_on_sessions_as_they_were_left_is_refused(
    shaken: EmbeddedPostgres, name: str
) -> None:
    async with pooler(shaken.port, keeps_sessions=True) as between:
        with pytest.raises(ConfigurationError, match=r"^POSTGRES_URL: the pooler .*server_reset_query"):
            await ensure_database(f"postgresql://postgres@127.0.0.1:{between.port}", name)


SPECS = [order_svc.SPEC, customer_svc.SPEC, saga_orchestrator.SPEC, projector.SPEC]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
async def test_a_user_without_the_right_to_create_runs_a_service(
    shaken: EmbeddedPostgres, empty: str, spec: Any
) -> None:
    await servers.execute(shaken.url, "DROP ROLE IF EXISTS runner; CREATE ROLE runner LOGIN NOCREATEDB")
    rights = (
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO runner; "
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO runner"
    )
    url = as_role(shaken, "runner")

    async def is_refused() -> None:
        line = rf"^POSTGRES_URL: this user may not set up .* {empty} .*; use the owner .* GRANT SELECT"
        with pytest.raises(ConfigurationError, match=line):
            async with open_log(url, empty, spec.log, *spec.migrations):
                pass

    await is_refused()
    async with open_log(shaken.url, empty, spec.log, *spec.migrations) as owner:
        await is_refused()
        await owner.pool.execute(rights)
    async with open_log(url, empty, spec.log, *spec.migrations) as log:
        twins = {spec.log: MemoryTwin(spec.log)}
        crashed: list[BaseException] = []
        service = Service(
            spec.name,
            log,
            Environment(
                twin=lambda of: twins[of],
                lease=lambda work: PostgresLease(log.pool, work, "me"),
                clock=SystemClock(),
                ids=RandomIds(),
                on_crash=lambda _task, error: crashed.append(error),
            ),
            schema=spec.schema,
            aggregates=[ALARM],
        )
        async with service.running():
            past = Set(SystemClock().now())
            await service.writer.execute(lambda tx: tx.do(ALARM, "x", past))
            await until(lambda: twins[spec.log].last == 2)  # the timer has fired
            await service.page_tokens()
        assert crashed == []
        await owner_is_gone(log)


async def owner_is_gone(log: PostgresLog) -> None:
    """The role may be dropped again once it owns nothing."""
    assert await log.pool.fetchval("SELECT count(*) FROM pg_class WHERE relowner = 'runner'::regrole") == 0


# --- one after the other ---


class Ill(MemoryLog):
    """A log that fails as it is told, attempt by attempt."""

    def __init__(self) -> None:
        super().__init__("counters")
        self.errors: list[Exception] = []

    async def append(self, batch: Batch) -> Appended | Conflict:
        if self.errors:
            raise self.errors.pop(0)
        return await super().append(batch)


KINDS: dict[str, Callable[[], Exception]] = {
    "outage": lambda: Unavailable("the database is out of reach (connection lost)"),
    "lock": lambda: Unavailable("the database is out of service (canceling statement due to lock timeout)"),
    "race": lambda: LostRace(why="deadlock detected"),
    "setting": lambda: WrongSetting("POSTGRES_URL: Postgres refuses the login"),
    "defect": lambda: KeyError("x"),
}


@pytest.mark.parametrize("first", KINDS)
async def test_whatever_comes_after_an_outage_the_writer_comes_back(
    monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(group_commit, "_FAIL_FAST_AFTER_SECONDS", -1.0)
    for kinds in product([first], KINDS, KINDS):
        log = Ill()
        with capture_logs():  # each defect would show its traceback
            async with writing(log) as writer:
                writer._group_commit._retrying._limits = (0.0001, 0.0001, random)
                await _through(writer, log, kinds)


async def _through(writer: Writer, log: Ill, kinds: Sequence[str]) -> None:
    log.errors = [KINDS[kind]() for kind in kinds]
    outcomes = await asyncio.gather(*(added(writer, 1) for _ in range(3)), return_exceptions=True)
    while log.errors:
        await asyncio.gather(added(writer, 1), return_exceptions=True)
    assert not writer._group_commit.down
    assert writer.problem is None
    assert "defect" in kinds or not any(isinstance(each, Exception) for each in outcomes)
    assert await added(writer, 0) == len(log.streams.get(counter("a"), ()))


async def added(writer: Writer, amount: int) -> int:
    outcome = await writer.execute(lambda tx: tx.do(COUNTER, "a", Add(amount)))
    return outcome.result.value


# --- all at once ---


class Stumbling:
    """A pool whose statements fail now and then, before they were carried out or, in an outage, after it."""

    def __init__(self, pool: Pool, errors: Sequence[Exception], seed: int) -> None:
        self._pool = pool
        self._errors = errors
        self._random = random.Random(seed)
        self.failed = 0
        self.well = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    async def acquire(self, *, timeout: float) -> Any:
        return _Stumbling(await self._pool.acquire(timeout=timeout), self)

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        await self._pool.release(connection.connection, timeout=timeout)

    def stumble(self, *, done: bool) -> None:
        error = self._random.choice(self._errors)
        if not self.well and self._random.random() < 0.2 and (not done or unknown(error)):
            self.failed += 1
            raise error


def unknown(error: Exception) -> bool:
    """Whether the statement may have been carried out all the same."""
    return (getattr(error, "sqlstate", "08") or "")[:2] == "08"


class _Stumbling:
    def __init__(self, connection: Connection, pool: Stumbling) -> None:
        self.connection = connection
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.connection, name)
        if name not in ("fetch", "fetchrow", "fetchval", "execute"):
            return real

        async def stumbling(*arguments: Any) -> Any:
            self._pool.stumble(done=False)
            result = await real(*arguments)
            self._pool.stumble(done=True)
            return result

        return stumbling


@pytest.mark.parametrize(
    "errors",
    [
        [of("08006"), asyncpg.ConnectionDoesNotExistError("closed"), ConnectionResetError(104, "reset")],
        [of("40001"), of("40P01")],
        [of("55P03"), of("57014"), of("25006"), of("53300"), of("XX000"), of("58030")],
        [of("28P01"), of("3D000"), of("42501"), of("26000"), of("08P01", "no such database: x")],
        [TimeoutError(), asyncpg.InterfaceError("connection is closed"), asyncpg.InternalClientError("?")],
    ],
    ids=["connections", "races", "the server", "settings", "the client"],
)
async def test_a_service_lives_through_it_all(
    shaken: EmbeddedPostgres, name: str, errors: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policies, views, timers, snapshots, relay and leases: nobody ends, nothing becomes a dead letter."""
    monkeypatch.setattr(snapshots_module, "EVERY", 2)
    source, crashed = Source(), list[BaseException]()
    twins = {log: MemoryTwin(log) for log in ("source", "counters")}
    await twins["source"].create(1)
    async with open_log(shaken.url, name, "counters", PACKAGE) as real:
        pool = Stumbling(real.pool, errors, seed=1)
        log = PostgresLog(cast(Pool, pool), "counters")
        views = PostgresViews(log, PACKAGE, {"journal": Row})
        service = Service(
            "tests",
            log,
            Environment(
                twin=lambda of: twins[of],
                lease=lambda work: PostgresLease(log.pool, work, "me", seconds=0.5),
                clock=SystemClock(),
                ids=RandomIds(),
                on_crash=lambda _task, error: crashed.append(error),
            ),
            schema=Schema(),
            aggregates=[ALARM],
        )
        async with service.running():
            service.subscribe(
                source.policies(),
                Projection("tests.views", [source.view()], views, schema=Schema(), source="source"),
            )
            for number in range(12):
                await twins["source"].publish(source.add(f"a:{number}", f"b:{number}"))
                past = Set(SystemClock().now())
                await asyncio.gather(
                    service.writer.execute(lambda tx, past=past: tx.do(ALARM, "x", past)),  # type: ignore[misc]
                    return_exceptions=True,
                )
                await asyncio.sleep(0.05)
            await until(lambda: pool.failed > 5)
            pool.well = True
            await until(lambda: reached(views, len(source.events)))
            await until(lambda: policies_reached(real, len(source.events)))
            await until(lambda: all(part.problem is None for part in service.watched))
            assert service.dead_letters.counts() == {}
            head = await real.head()
            await until(lambda: twins["counters"].last >= head)
        assert crashed == []
        rows = await views.rows(source.view(), ["a", "b"])
        wanted = " ".join(map(str, range(12)))
        assert [rows[key].written for key in ("a", "b")] == [wanted, wanted]
        assert await written(real, "a") == await written(real, "b") == list(range(12))


async def reached(views: PostgresViews, position: int) -> bool:
    return await views.checkpoint("tests.views") == position


async def policies_reached(log: PostgresLog, position: int) -> bool:
    return await log.checkpoint("tests.source") == position


async def written(log: PostgresLog, key: str) -> list[int]:
    return [
        Int64Value.FromString(event.payload).value
        for event in await log.read(0, 1000)
        if event.stream == StreamId("journal", key)
    ]


async def test_a_database_that_was_made_just_now_and_lets_nobody_in_yet_says_what_is_waited_for(
    postgres_url: str, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler, which has heard that there is none and does not ask again at once."""
    asked = 0

    async def refuses_the_second(url: str) -> PlacedConnection:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise Unavailable("no answer in time")
        return await connect_placed(url)

    async with connected(postgres_url) as admin:
        await admin.execute(f'DROP DATABASE "{empty_database}"')
    monkeypatch.setattr("twinlog.postgres.database.connect_placed", refuses_the_second)
    made = rf"database {empty_database} was made just now, .*no answer in time.*server_login_retry"
    with pytest.raises(Unavailable, match=made):
        await ensure_database(postgres_url, empty_database)
    assert await ensure_database(postgres_url, empty_database)
