"""Rests between batches: only where more waits, and not yet a full batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.kernel.batches import recorded
from tests.kernel.counter import COUNTER, Add
from twinlog import cursor as cursors
from twinlog import pace, writer
from twinlog.cursor import BATCH, Cursor
from twinlog.event import Recorded
from twinlog.memory import MemoryLog, MemoryTwin
from twinlog.ports import RandomIds, SystemClock
from twinlog.writer import Writer


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every rest, by what the batch took; nobody sleeps."""
    taken: list[float] = []

    async def rest(took: float) -> None:
        taken.append(took)

    monkeypatch.setattr(writer, "rest", rest)
    monkeypatch.setattr(cursors, "rest", rest)
    return taken


@pytest.mark.parametrize(("took", "rest"), [(0.001, 0.003), (0.1, 0.01)])
async def test_it_is_three_times_the_batch_and_at_most_ten_milliseconds(
    took: float, rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await pace.rest(took)
    assert slept == [rest]


@pytest.mark.parametrize(("units", "expected"), [(1, 0), (256, 0), (257, 1), (512, 0), (600, 1)])
async def test_a_writer_rests_while_less_than_a_batch_waits(
    units: int, expected: int, rests: list[float]
) -> None:
    async with Writer(MemoryLog("counters"), clock=SystemClock(), ids=RandomIds()) as writes:
        await asyncio.gather(
            *(
                writes.execute(lambda tx: tx.do(COUNTER, "a", Add(1)), new=[(COUNTER, "a")])
                for _ in range(units)
            )
        )
    assert len(rests) == expected


@pytest.mark.parametrize(("events", "expected"), [(1, 0), (BATCH, 0), (BATCH + 1, 1), (2 * BATCH, 0)])
async def test_a_cursor_rests_while_less_than_a_batch_waits(
    events: int, expected: int, rests: list[float]
) -> None:
    twin, handler = MemoryTwin("counters"), Notes(events)
    await twin.create(1)
    await twin.publish(recorded("counters", events))
    following = asyncio.create_task(Cursor(twin, handler).run())
    await asyncio.wait_for(handler.done.wait(), 10)
    following.cancel()
    assert len(rests) == expected


class Notes:
    """A handler that notes how far it is."""

    consumer, types, tag = "notes", (), ""

    def __init__(self, last: int) -> None:
        self._last = last
        self.done = asyncio.Event()

    async def checkpoint(self) -> int:
        return 0

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        if events[-1].position == self._last:
            self.done.set()
        return events[-1].position
