"""What only the log in Postgres has to do: guard its history, survive its server and its callers."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import asyncpg
import pytest

from stack.postgres import EmbeddedPostgres
from tests.kernel.batches import append, batch, counter, grow
from tests.waiting import until
from twinlog.errors import Unavailable
from twinlog.log import Appended, Conflict, Log, Wanted
from twinlog.postgres import PostgresLog, open_log

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
            await postgres_log.pool.execute(f"{copy.format(position, version)} recorded_at FROM events")


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
            log.load([Wanted(A)]),
            log.read(0, 1),
            log.head(),
            log.checkpoint("c"),
            log.reply("r"),
            append_and_fail(log),
        ):
            with pytest.raises(Unavailable):
                await attempt

        await own_postgres.start()
        assert await tried_until_available(log) == Appended(2)


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
