"""Two aggregates may have the same id: their streams, states, timers and snapshots have nothing in common."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.kernel.batches import append, batch, new_event
from tests.kernel.counter import ALARM, COUNTER, Add, Alarm, Count, Set
from tests.kernel.test_writer import writing
from tests.waiting import until
from twinlog import Log, StreamId, Transaction
from twinlog.log.ports import Conflict, ReadRequest, TimerChange
from twinlog.log.snapshots import EVERY, Snapshots
from twinlog.log.timers import Timers
from twinlog.log.transaction import Entry
from twinlog.testing.internals import Snapshot, SystemClock

ID = "one-id"
A, B = StreamId("alpha", ID), StreamId("beta", ID)


async def test_versions_and_events_are_of_one_stream(log: Log) -> None:
    await append(log, batch((A, 0, 2), (B, 0, 1)), batch((B, 1, 1)))
    both = await log.load([ReadRequest(A), ReadRequest(B)])
    assert [[(event.stream, event.version) for event in found.events] for found in both] == [
        [(A, 1), (A, 2)],
        [(B, 1), (B, 2)],
    ]
    refused = await log.append(batch((A, 1, 1), (B, 2, 1)))
    assert isinstance(refused, Conflict)
    assert list(refused.streams) == [A]


async def test_timers_and_snapshots_are_of_one_stream(log: Log) -> None:
    now = datetime.now(UTC)
    await append(
        log,
        batch((A, 0, 1), (B, 0, 1), timers=[TimerChange(A, 1, now), TimerChange(B, 1, now)]),
        batch((A, 1, 1), timers=[TimerChange(A, 2, None)]),
    )
    assert [(timer.stream, timer.version) for timer in await log.due(now, 10)] == [(B, 1)]
    await log.save([Snapshot(A, 1, 1, "schema", b'"a"'), Snapshot(B, 1, 2, "schema", b'"b"')])
    found = await log.load([ReadRequest(B, schema="schema"), ReadRequest(A, schema="schema")])
    assert [slice.snapshot and slice.snapshot.state for slice in found] == [b'"b"', b'"a"']
    assert [len(slice.events) for slice in found] == [0, 1]


async def test_both_are_saved_that_are_due_together(log: Log) -> None:
    streams = {StreamId(of.name, ID): of for of in (COUNTER, ALARM)}
    await append(log, batch(*((stream, 0, EVERY) for stream in streams)))
    saving = Snapshots(log)
    saving.offer_all({stream: Entry(of, of.initial, EVERY, EVERY, 0) for stream, of in streams.items()})
    wanted = [ReadRequest(stream, schema=saving.schema(of)) for stream, of in streams.items()]

    async def both() -> bool:
        return all([slice.snapshot for slice in await log.load(wanted)])

    task = asyncio.create_task(saving.run())
    await until(both)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("cold", [False, True], ids=["remembered", "read again"])
async def test_a_unit_decides_for_both(log: Log, cold: bool) -> None:
    due = datetime.now(UTC) - timedelta(seconds=1)

    def both(tx: Transaction) -> tuple[Count, Alarm]:
        counted = tx.do(COUNTER, ID, Add(7))
        return counted, tx.do(ALARM, ID, Set(due))

    def state(tx: Transaction) -> tuple[Count, Alarm]:
        return tx.state(COUNTER, ID), tx.state(ALARM, ID)

    async with writing(log) as writer:
        assert (await writer.execute(both)).result == (Count(7, 1), Alarm(due))
        if not cold:
            assert (await writer.execute(state)).result == (Count(7, 1), Alarm(due))
    async with writing(log) as writer:
        if cold:
            assert (await writer.execute(state)).result == (Count(7, 1), Alarm(due))
        assert await Timers(log, writer, [ALARM], clock=SystemClock(), actor="test").fire() == 1
        assert (await writer.execute(state)).result == (Count(7, 1), Alarm(None, rung=True))
    assert new_event(A, 1).stream != new_event(B, 1).stream
