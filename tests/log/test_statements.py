"""A domain's own statement: in the transaction of its events, once for each decision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from tests.kernel.counter import COUNTER, Add
from tests.kernel.test_writer import add, writing
from twinlog import Transaction
from twinlog.testing import MemoryLog
from twinlog.testing.internals import PostgresLog

TABLE = "CREATE TABLE totals (id text PRIMARY KEY, added bigint NOT NULL)"
INSERT = "INSERT INTO totals VALUES ($1, $2)"


def counted(id: str, amount: int = 1) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        tx.do(COUNTER, id, Add(amount))
        tx.execute(INSERT, id, amount)

    return work


async def rows(log: PostgresLog) -> dict[str, int]:
    return {row[0]: row[1] for row in await log.pool.fetch("SELECT id, added FROM totals")}


async def test_a_statement_is_committed_with_its_event(postgres_log: PostgresLog) -> None:
    await postgres_log.pool.execute(TABLE)
    async with writing(postgres_log) as writer:
        await asyncio.gather(*(writer.execute(counted(f"{number}", number + 1)) for number in range(20)))
    assert await rows(postgres_log) == {f"{number}": number + 1 for number in range(20)}
    assert len(await postgres_log.read(0, 100)) == 20


async def test_a_unit_that_decides_nothing_executes_nothing(postgres_log: PostgresLog) -> None:
    await postgres_log.pool.execute(TABLE)
    async with writing(postgres_log) as writer:
        await writer.execute(counted("a", 0))
    assert await rows(postgres_log) == {}


async def test_a_statement_that_fails_takes_its_event_along_and_no_neighbor(
    postgres_log: PostgresLog,
) -> None:
    await postgres_log.pool.execute(TABLE)
    async with writing(postgres_log) as writer:
        await writer.execute(counted("a"))
        both = [writer.execute(counted("a")), writer.execute(counted("b")), writer.execute(add(1, "c"))]
        again, *sound = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(again, asyncpg.UniqueViolationError)
        assert not [each for each in sound if isinstance(each, BaseException)]
    assert await rows(postgres_log) == {"a": 1, "b": 1}
    assert [event.stream.id for event in await postgres_log.read(0, 9)] == ["a", "b", "c"]


async def test_a_lost_race_is_decided_again_and_the_statement_executed_once(
    postgres_log: PostgresLog,
) -> None:
    await postgres_log.pool.execute("CREATE TABLE totals (id text, added bigint)")
    async with writing(postgres_log) as one, writing(postgres_log) as other:
        await asyncio.gather(*(writer.execute(counted("a")) for writer in (one, other) for _ in range(10)))
    found = await postgres_log.pool.fetch("SELECT count(*) FROM totals")
    assert found[0][0] == len(await postgres_log.read(0, 100)) == 20


@pytest.mark.parametrize("amount", [1, 0])
async def test_a_log_in_memory_keeps_what_would_have_been_executed(amount: int) -> None:
    log = MemoryLog("source")
    async with writing(log) as writer:
        await writer.execute(counted("a", amount))
    assert [(query, [*given]) for query, given in log.statements] == [(INSERT, ["a", 1])] * amount
