"""Outcomes of requests are kept for their time, and swept in batches after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from tests.kernel.batches import append, batch, counter, new_event
from tests.kernel.counter import COUNTER
from tests.waiting import until
from twinlog import Log, Unavailable
from twinlog.log import retention
from twinlog.log.past import KeptKey
from twinlog.log.ports import NewReply, Snapshot
from twinlog.log.retention import KEPT, Retention
from twinlog.testing import MemoryLog
from twinlog.testing.internals import Batch, PostgresLog

WEEK = timedelta(days=7)


async def answered(log: Log, ages: list[timedelta]) -> list[str]:
    """Requests that were answered so long ago, each with an event; their ids."""
    ids, now = [], datetime.now(UTC)
    for age in sorted(ages, reverse=True):
        stream = counter(f"{age}")
        ids.append(f"{age}")
        reply = NewReply(ids[-1], b"fingerprint", b"reply", 1)
        await append(log, Batch(now - age, {stream: 0}, [new_event(stream, 1)], [reply]))
    return ids


async def kept(log: Log, ids: list[str]) -> list[str]:
    return [id for id in ids if await log.reply(id)]


async def test_only_what_is_past_its_time_is_swept_and_the_oldest_first(log: Log) -> None:
    days = [timedelta(days=day) for day in (0, 6, 8, 9, 10)]
    _ten, _nine, eight, six, now = ids = await answered(log, days)
    assert await log.sweep_requests(timedelta(days=30), 10) == 0
    assert await log.sweep_requests(WEEK, 2) == 2
    assert await kept(log, ids) == [eight, six, now]
    assert await log.sweep_requests(WEEK, 2) == 1
    assert await log.sweep_requests(WEEK, 2) == 0
    assert await kept(log, ids) == [six, now]
    assert await log.head() == 5, "events stay"


async def test_a_swept_request_may_come_again(log: Log) -> None:
    await answered(log, [timedelta(0), timedelta(days=8)])
    again = Batch(datetime.now(UTC), {}, [], [NewReply(f"{timedelta(days=8)}", b"other", b"another", 0)])
    with pytest.raises(AssertionError):
        await append(log, again)
    await log.sweep_requests(WEEK, 10)
    await append(log, again)
    found = await log.reply(f"{timedelta(days=8)}")
    assert found is not None
    assert found.reply == b"another"


async def test_two_replicas_may_sweep_at_once(postgres_log: PostgresLog) -> None:
    ids = await answered(postgres_log, [WEEK + timedelta(hours=n) for n in range(1, 40)])
    swept = await asyncio.gather(*(postgres_log.sweep_requests(WEEK, 5) for _ in range(8)))
    assert len(ids) - len(await kept(postgres_log, ids)) == sum(swept) <= 40


async def test_the_index_finds_them(postgres_log: PostgresLog) -> None:
    """On a large table, a look that finds nothing reads next to nothing."""
    async with postgres_log.pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO requests SELECT 'r' || n, '', '', 0, now() FROM generate_series(1, 20000) AS n;"
            "ANALYZE requests"
        )
        plan = "\n".join(
            row[0]
            for row in await connection.fetch(
                "EXPLAIN SELECT request_id FROM requests WHERE recorded_at < clock_timestamp() - '7 days'::interval "
                "ORDER BY recorded_at LIMIT 1000 FOR UPDATE SKIP LOCKED"
            )
        )
    assert "requests_recorded_at" in plan


class Outage(MemoryLog):
    """A store that is away at first."""

    failures = 2

    async def sweep_requests(self, age: timedelta, limit: int) -> int:
        if self.failures:
            self.failures -= 1
            raise Unavailable("away")
        return await super().sweep_requests(age, limit)

    async def drop_kept(self, type: str, id: str = "", *, but_multiples_of: int = 0) -> int:
        if self.failures:
            self.failures -= 1
            raise Unavailable("away")
        return await super().drop_kept(type, id, but_multiples_of=but_multiples_of)


@asynccontextmanager
async def running(work: Retention) -> AsyncIterator[None]:
    task = asyncio.create_task(work.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_batch_after_batch_is_swept_over_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)
    log = Outage("counters")
    ids = await answered(log, [timedelta(0), *(WEEK + timedelta(hours=n) for n in range(1, 6))])
    async with running(Retention(log, interval_seconds=0.01)):
        await until(lambda: len(log.replies) == 1)
    assert await kept(log, ids) == [f"{timedelta(0)}"]


async def test_snapshots_that_are_kept_no_more_are_dropped_over_an_outage() -> None:
    log = Outage("counters")
    await append(log, batch((counter("a"), 0, 2)))
    await log.keep([Snapshot(counter("a"), 2, 2, "schema", b"{}")])
    with capture_logs() as said:
        async with running(Retention(log, declared={COUNTER.name: COUNTER}, interval_seconds=0.01)):
            await until(lambda: any(line["event"] == "snapshots.dropped" for line in said))
    assert await log.kept("", "", KeptKey(), 10) == []


def test_a_week_is_the_default() -> None:
    assert KEPT == WEEK
