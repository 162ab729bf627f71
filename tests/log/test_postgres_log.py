"""What only the log in Postgres has to do: guard its history, survive its server and its callers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from tests import servers
from tests.dead_letters.journal import Row, Source
from tests.kernel.batches import append, batch, counter, grow
from tests.waiting import until
from twinlog import Log, PostgresViews, Unavailable
from twinlog.dev import EmbeddedPostgres
from twinlog.log.ports import Conflict, ReadRequest, Tip
from twinlog.postgres import connection
from twinlog.postgres import database as database_module
from twinlog.postgres import lease as lease_module
from twinlog.postgres.lease import PostgresLease
from twinlog.postgres.named_queries import QUERIES
from twinlog.testing.internals import Appended, CheckpointAdvance, Connection, Pool, PostgresLog, open_log

A = counter("a")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET payload = ''",
        "UPDATE events SET payload = '' WHERE false",
        "DELETE FROM events",
        "TRUNCATE events",
        "INSERT INTO events SELECT * FROM events ON CONFLICT (position) DO UPDATE SET version = 9",
    ],
)
async def test_the_history_takes_inserts_only(postgres_log: PostgresLog, statement: str) -> None:
    before = await grow(postgres_log, 2)

    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="takes inserts only"):
        await postgres_log.pool.execute(statement)

    assert await postgres_log.read(0, 10) == before


async def test_a_position_and_a_version_are_taken_once(postgres_log: PostgresLog) -> None:
    await grow(postgres_log, 1)
    copy = "INSERT INTO events SELECT {}, stream_type, stream_id, {}, event_id, type, payload, metadata, partition_key,"

    for position, version in ((1, 2), (2, 1)):
        with pytest.raises(asyncpg.UniqueViolationError):
            await postgres_log.pool.execute(f"{copy.format(position, version)} tag, recorded_at FROM events")


async def test_metadata_that_a_newer_version_adds_is_no_concern_of_this_one(
    postgres_log: PostgresLog,
) -> None:
    [before] = await grow(postgres_log, 1)
    async with postgres_log.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("""UPDATE events SET metadata = metadata || '{"tenant": "north"}'""")

    assert await postgres_log.read(0, 10) == [before]
    [stream] = await postgres_log.load([ReadRequest(A)])
    assert stream.events == [before]


async def test_page_tokens_are_signed_with_one_secret_a_database(postgres_url: str, database: str) -> None:
    async with open_log(postgres_url, database, "one") as one, open_log(postgres_url, database, "one") as two:
        secret = await one.page_token_secret()
        assert secret == await two.page_token_secret()
        made = secret
        for taken_out in ("TRUNCATE page_token_secret", "UPDATE page_token_secret SET secret = ''"):
            await one.pool.execute(taken_out)
            before, made = made, await one.page_token_secret()
            assert made == await two.page_token_secret() != before
            assert len(made) == len(secret)
    async with servers.empty_database(postgres_url) as other, open_log(postgres_url, other, "one") as three:
        assert await three.page_token_secret() != secret
    assert len(secret) == 32


async def test_a_cancelled_append_finishes(postgres_log: PostgresLog) -> None:
    async with postgres_log.exclusive():
        caller = asyncio.create_task(postgres_log.append(batch((A, 0, 1))))
        await until(lambda: waits_for_the_lock(postgres_log))
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await postgres_log.head() == 0

    await until(lambda: reaches(postgres_log, 1))


async def test_an_exclusive_block_that_fails_commits_nothing(postgres_log: PostgresLog) -> None:
    with pytest.raises(KeyError):
        await append_and_fail(postgres_log)

    assert await postgres_log.head() == 0
    assert await postgres_log.append(batch((A, 0, 1))) == Appended(1)


async def test_a_connection_that_is_cut_commits_nothing_and_frees_the_lock(postgres_log: PostgresLog) -> None:
    async with asyncio.TaskGroup() as group:
        blocked = None
        with suppress(Unavailable):
            async with postgres_log.exclusive() as session:
                await session.append(batch((A, 0, 3)))
                blocked = group.create_task(postgres_log.append(batch((A, 0, 1))))
                await until(lambda: waits_for_the_lock(postgres_log))
                await cut_the_lock_holder(postgres_log)
        assert blocked is not None

    assert blocked.result() == Appended(1)
    assert await postgres_log.head() == 1


async def test_a_stopped_server_is_unavailable_until_it_is_back(own_postgres: EmbeddedPostgres) -> None:
    async with open_log(own_postgres.url, "counters", "counters") as log:
        await append(log, batch((A, 0, 1)))
        await own_postgres.stop()

        for attempt in (
            log.append(batch((A, 1, 1))),
            log.load([ReadRequest(A)]),
            log.read(0, 1),
            log.head(),
            log.checkpoint("c"),
            log.reply("r"),
            append_and_fail(log),
        ):
            with pytest.raises(Unavailable):
                await attempt
        with pytest.raises(Unavailable, match=rf"\(Connection refused: 127\.0\.0\.1:{own_postgres.port}\)"):
            await log.head()

        await own_postgres.start()
        assert await tried_until_available(log) == Appended(2)


async def test_asyncpg_says_nothing_of_its_own_about_an_outage(
    own_postgres: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    """It would log a traceback each time that it cannot keep a floor of connections."""
    async with open_log(own_postgres.url, "counters", "counters") as log:
        await asyncio.gather(*(log.head() for _ in range(5)))
        await own_postgres.kill()
        for _ in range(3):
            with pytest.raises(Unavailable):
                await log.head()
        await own_postgres.start()
        await until(lambda: answers(log))
        assert log.pool.get_min_size() == 0
    assert [record for record in caplog.records if record.name.startswith("asyncpg")] == []


async def test_nothing_is_appended_over_a_connection_that_nobody_has_compared_by(
    postgres_url: str, database: str
) -> None:
    """It may lead to a server that lacks what other replicas committed, and that has all that this one knows."""
    async with open_log(postgres_url, database, "one") as log:
        compared = log.connections
        await log.pool.expire_connections()
        write = replace(batch((A, 0, 1)), tip=Tip(0, 0, None, compared))

        assert await log.append(write) == Conflict(forked=True)
        assert log.connections == compared + 1
        async with log.exclusive() as session:
            assert await session.append(write) == Conflict(forked=True)
        assert await log.head() == 0

        assert await log.append(replace(write, tip=Tip(0, 0, None, log.connections))) == Appended(1)


async def test_the_connection_that_looked_at_a_database_is_the_first_of_its_pool(
    postgres_url: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To connect takes a server and a process milliseconds each, at every start."""
    monkeypatch.setattr(connection, "_STATEMENT_SECONDS", 0.5)
    made = counting_connections(monkeypatch)
    async with open_log(postgres_url, database, "one") as log:
        assert await log.head() == 0
        assert (len(made), log.connections) == (1, 1)
        with pytest.raises(TimeoutError):  # as of any other
            await log.pool.execute("SELECT pg_sleep(300)")
    assert all(each.is_closed() for each in made)


async def test_a_pool_is_opened_although_the_connection_that_looked_at_the_database_has_broken(
    postgres_url: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = database_module.connect_to_database

    async def broken(*arguments: Any, **options: Any) -> asyncpg.Connection:
        found = await looked(*arguments, **options)
        found.terminate()
        return found

    monkeypatch.setattr(connection, "connect_to_database", broken)
    async with open_log(postgres_url, database, "one") as log:
        assert await log.head() == 0
        assert log.connections == 1


async def test_a_pool_that_cannot_take_over_a_connection_makes_its_own(
    postgres_url: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would with an asyncpg that keeps its limits elsewhere."""

    def refuse(taken: asyncpg.Connection, _seconds: float) -> None:
        taken.terminate()
        raise AttributeError("_config")

    monkeypatch.setattr(database_module.PlacedConnection, "limit", refuse)
    async with open_log(postgres_url, database, "one") as log:
        assert await log.head() == 0
        assert log.connections == 1


def counting_connections(monkeypatch: pytest.MonkeyPatch) -> list[asyncpg.Connection]:
    """Those that are made from now on by this library."""
    made: list[asyncpg.Connection] = []
    opened = database_module._opened

    async def noted(*arguments: Any, **options: Any) -> asyncpg.Connection:
        made.append(await opened(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(database_module, "_opened", noted)
    return made


async def test_an_exhausted_pool_is_an_outage_and_nobody_waits_for_ever(
    postgres_log: PostgresLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_ACQUIRE_SECONDS", 0.05)
    log, views = postgres_log, PostgresViews(postgres_log, "tests.dead_letters.sql", {"journal": Row})
    async with AsyncExitStack() as taken:
        for _ in range(log.pool.get_max_size()):
            await taken.enter_async_context(log.pool.acquire(timeout=60))
        for attempt in (
            log.append(batch((A, 0, 1))),
            log.load([ReadRequest(A)]),
            log.head(),
            append_and_fail(log),
            views.checkpoint("c"),
            views.checkpoints(),
            views.rows(Source().view(), ["a"]),
            views.commit({}, CheckpointAdvance("c", 0, 1)),
        ):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(attempt, 60)
    assert await log.append(batch((A, 0, 1))) == Appended(1)
    assert await views.commit({}, CheckpointAdvance("c", 0, 1)) is None


async def test_a_lease_outlasts_an_exhausted_pool(
    postgres_log: PostgresLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_ACQUIRE_SECONDS", 0.05)
    asked: list[str] = []
    monkeypatch.setattr(lease_module, "fetch", counting(asked))
    lease = PostgresLease(postgres_log.pool, "work", "me", seconds=0.3)
    working = asyncio.Event()

    async def work() -> None:
        working.set()
        await asyncio.Event().wait()

    holding = asyncio.create_task(lease.hold(work))
    async with asyncio.timeout(60):
        await working.wait()
    await until(lambda: lease.problem is None)
    with capture_logs() as said:
        async with AsyncExitStack() as taken:
            for _ in range(postgres_log.pool.get_max_size()):
                await taken.enter_async_context(postgres_log.pool.acquire(timeout=60))
            tried = len(asked)
            await until(lambda: len(asked) >= tried + 3)
            assert not holding.done()
            assert "the database is out of reach" in (lease.problem or "")
        await until(lambda: lease.problem is None)
    assert [line["event"] for line in said] == ["lease.unconfirmed", "lease.confirmed"]
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    await until(lambda: is_free(postgres_log))


def counting(asked: list[str]) -> Callable[..., Awaitable[object]]:
    """Fetches, and notes what."""
    fetch = connection.fetch

    async def noted(pool: Pool, query: str, *arguments: object) -> object:
        asked.append(query)
        return await fetch(pool, query, *arguments)

    return noted


async def is_free(log: PostgresLog) -> bool:
    return not await log.pool.fetchval("SELECT count(*) FROM leases")


async def test_what_was_committed_survives_a_crash(own_postgres: EmbeddedPostgres) -> None:
    async with open_log(own_postgres.url, "counters", "counters") as log:
        written = await grow(log, 50)
        await own_postgres.kill()
        await own_postgres.start()
        await until(lambda: answers(log))
        assert await log.read(0, 100) == written


async def test_an_argument_that_does_not_fit_is_no_outage(postgres_log: PostgresLog) -> None:
    with pytest.raises(asyncpg.DataError, match="out of int32 range"):
        await postgres_log.append(batch((A, 2**40, 1)))


async def append_and_fail(log: Log) -> None:
    async with log.exclusive() as session:
        assert await session.append(batch((A, 0, 1))) == Appended(1)
        raise KeyError


async def tried_until_available(log: Log) -> Appended | Conflict:
    await until(lambda: answers(log))
    return await log.append(batch((A, 1, 1)))


async def answers(log: Log) -> bool:
    with suppress(Unavailable):
        await log.head()
        return True
    return False


async def reaches(log: Log, head: int) -> bool:
    return await log.head() == head


async def waits_for_the_lock(log: PostgresLog) -> bool:
    return bool(
        await log.pool.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )


async def cut_the_lock_holder(log: PostgresLog) -> None:
    await log.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND state = 'idle in transaction'"
    )


async def test_a_moment_is_looked_for_by_the_index_however_long_its_stream_is(
    postgres_log: PostgresLog,
) -> None:
    """Where most streams are short, a plan takes each for one: joined, a long one would be read whole at each step."""
    for number in range(50):
        await grow(postgres_log, 1, str(number))
    stream, time = counter("0"), datetime(2100, 1, 1, tzinfo=UTC)
    looks = {
        "version_at_position": (*stream, 50),
        "version_at_time": (*stream, time),
        "position_at_time": (time,),
    }
    async with postgres_log.pool.acquire() as connection:
        await connection.execute("ANALYZE events")
        for name, arguments in looks.items():
            explained = await connection.fetch(f"EXPLAIN {QUERIES[name]}", *arguments)
            plan = "\n".join(row[0] for row in explained)
            assert not re.search("Hash|Merge|Materialize|Seq Scan", plan), f"{name}\n{plan}"


async def test_no_plan_scans_a_table_that_an_index_serves(postgres_log: PostgresLog) -> None:
    """Plans are made while tables are empty, and kept: without more, this one would scan."""
    query = "EXPLAIN SELECT position FROM requests WHERE request_id = ANY ($1::text[])"
    ids = [str(number) for number in range(300)]

    async def scans(connection: Connection) -> bool:
        return any("Seq Scan" in row[0] for row in await connection.fetch(query, ids))

    async with postgres_log.pool.acquire() as connection:
        assert not await scans(connection)
        async with connection.transaction():
            await connection.execute("SET LOCAL enable_seqscan = on")
            assert await scans(connection)


async def test_says_which_session_keeps_appends_waiting(
    postgres_log: PostgresLog, postgres_url: str, database: str
) -> None:
    assert await postgres_log.blockers() == []
    operator = await asyncpg.connect(
        f"{postgres_url}/{database}", server_settings={"application_name": "an operator"}
    )
    waiting: list[asyncio.Task[object]] = []
    try:
        async with operator.transaction():
            await operator.execute("SELECT position FROM log_head FOR UPDATE")
            waiting = [
                asyncio.create_task(append_to(postgres_log, name)) for name in ("b", "c")
            ]  # the second waits for the first
            await until(lambda: _is_blocked(postgres_log, 2))
            [holder] = await postgres_log.blockers()
            assert holder.startswith(
                f"pid {operator.get_server_pid()} (an operator, idle in transaction, for "
            )
    finally:
        await operator.close()
    assert {Appended(1), Appended(2)} == set(await asyncio.gather(*waiting))
    assert await postgres_log.blockers() == []


@pytest.mark.parametrize(
    "lock",
    [
        "SELECT position FROM log_head FOR UPDATE",
        "UPDATE log_head SET position = position",
        "LOCK TABLE events IN SHARE MODE",
    ],
)
async def test_says_who_holds_what_an_append_takes_before_anybody_waits(
    lock: str, postgres_log: PostgresLog, postgres_url: str, database: str
) -> None:
    operator = await asyncpg.connect(
        f"{postgres_url}/{database}", server_settings={"application_name": "an operator"}
    )
    try:
        async with operator.transaction():
            await operator.execute("SELECT FROM log_head, events, timers")
            assert await postgres_log.holders() == {}, "who reads holds up nobody"
            await operator.execute(lock)
            [(transaction, told)] = (await postgres_log.holders()).items()
            assert told.startswith(f"pid {operator.get_server_pid()} (an operator, idle in transaction, for ")
            waiting = asyncio.create_task(append_to(postgres_log, "b"))
            await until(lambda: _is_blocked(postgres_log, 1))
            assert [*await postgres_log.holders()] == [transaction], "who waits is no holder"
    finally:
        await operator.close()
    await waiting
    assert await postgres_log.holders() == {}


async def test_a_transaction_without_a_session_that_holds_up_appends_is_named(
    own_postgres: EmbeddedPostgres,
) -> None:
    await servers.execute(own_postgres.url, "ALTER SYSTEM SET max_prepared_transactions = 1")
    await own_postgres.stop()
    await own_postgres.start()
    async with open_log(own_postgres.url, "counters", "counters") as log:
        held = "BEGIN; SELECT position FROM log_head FOR UPDATE; PREPARE TRANSACTION 'a''b'"
        await servers.execute(own_postgres.url, held, "counters")
        assert await log.blockers() == []
        [held] = (await log.holders()).values()
        waiting = asyncio.create_task(append_to(log, "a"))
        await until(lambda: _is_blocked(log, 1))
        [holder] = await log.blockers()
        for told in (held, holder):
            assert re.fullmatch(
                r"prepared transaction 'a''b' \(for \d+ s; (ROLLBACK PREPARED 'a''b') ends it\)", told
            )
        await servers.execute(own_postgres.url, "ROLLBACK PREPARED 'a''b'", "counters")
        assert await waiting == Appended(1)


async def test_a_replica_that_commits_wait_for_is_told(own_postgres: EmbeddedPostgres) -> None:
    async with open_log(own_postgres.url, "counters", "counters") as log:
        await log.head()
        names = "ALTER SYSTEM SET synchronous_standby_names = '{}'"
        await servers.execute(own_postgres.url, names.format("nobody"))
        await servers.execute(own_postgres.url, "SELECT pg_reload_conf()")
        waiting = asyncio.create_task(append_to(log, "a"))

        async def told() -> bool:
            return [*await log.blockers()] == ["a replica that does not answer (synchronous_standby_names)"]

        await until(told)
        await servers.execute(own_postgres.url, names.format(""))
        await servers.execute(own_postgres.url, "SELECT pg_reload_conf()")
        assert await waiting == Appended(1)


async def test_a_start_waits_for_a_standby_to_be_promoted(own_postgres: EmbeddedPostgres) -> None:
    """Also where transactions are serializable by default, which a standby refuses before it reads anything."""
    async with open_log(own_postgres.url, "counters", "counters"):
        pass
    isolation = "default_transaction_isolation"
    await servers.execute(own_postgres.url, f"ALTER SYSTEM SET {isolation} = serializable")
    await own_postgres.stop()
    (own_postgres.folder / "data" / "standby.signal").touch()
    await own_postgres.start()

    async def started() -> object:
        async with open_log(own_postgres.url, "counters", "counters") as log:
            return await log.append(batch((counter("a"), 0, 1)))

    with capture_logs() as said:
        starting = asyncio.create_task(started())
        await until(lambda: bool(said))
        operator = await asyncpg.connect(
            f"{own_postgres.url}/postgres", server_settings={isolation: "read committed"}
        )
        await operator.execute("SELECT pg_promote()")
        await operator.close()
        async with asyncio.timeout(60):
            assert await starting == Appended(1)
    assert "hot standby" in said[0]["why"]


async def append_to(log: PostgresLog, name: str) -> object:
    return await log.append(batch((counter(name), 0, 1)))


async def _is_blocked(log: PostgresLog, sessions: int) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await log.pool.fetchval(query) >= sessions)
