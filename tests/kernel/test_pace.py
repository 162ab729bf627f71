"""Rests between batches: only where more waits, and not yet a full batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.kernel.batches import recorded
from tests.kernel.counter import COUNTER, Add
from twinlog import Recorded, Schema, Writer
from twinlog.consume.cursor import _LOOK_SECONDS, BATCH
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.internals import Cursor, Linger, RandomIds, SystemClock


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long somebody rests; nobody does."""
    return sleeps(monkeypatch, [])


@pytest.mark.parametrize(("took", "rest"), [(0.001, 0.003), (0.1, 0.01)])
async def test_it_is_three_times_the_batch_and_at_most_ten_milliseconds(
    took: float, rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = sleeps(monkeypatch, [took])
    await Linger().wait(0.0, 1, 5)
    assert slept == [rest]


@pytest.mark.parametrize(("waiting", "rest"), [(0, [0.05]), (1, [0.05]), (4, [0.05]), (5, []), (6, [])])
async def test_what_nobody_waits_for_rests_after_every_batch_that_is_not_full(
    waiting: int, rest: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = sleeps(monkeypatch, [0.1])
    await Linger(least=0.05).wait(0.0, waiting, 5)
    assert slept == rest


@pytest.mark.parametrize(("began", "rests"), [(1.0, 0), (2.0, 0), (3.0, 1)])
async def test_nobody_rests_twice_for_one_batch(
    began: float, rests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Linger()
    second = Linger(behind=first)
    slept = sleeps(monkeypatch, [1.5, 2.0, 4.0, 4.0])
    await first.wait(1.0, 1, 5)
    slept.clear()
    await second.wait(began, 1, 5)
    assert len(slept) == rests


def sleeps(monkeypatch: pytest.MonkeyPatch, times: Sequence[float]) -> list[float]:
    """How long somebody sleeps, while the loop's time is one after the other of these, if any; nobody does."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:  # else it only gives others a turn
            slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    if times:
        loop, left = asyncio.get_running_loop(), [*times]
        monkeypatch.setattr(loop, "time", lambda: left.pop(0) if len(left) > 1 else left[0])
    return slept


@pytest.mark.parametrize(("units", "expected"), [(1, 0), (256, 0), (257, 1), (512, 0), (600, 1)])
async def test_a_writer_rests_while_less_than_a_batch_waits(
    units: int, expected: int, rests: list[float]
) -> None:
    async with Writer(MemoryLog("counters"), schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writes:
        await asyncio.gather(
            *(
                writes.execute(lambda tx: tx.do(COUNTER, "a", Add(1)), assume_empty=[(COUNTER, "a")])
                for _ in range(units)
            )
        )
    assert len([rest for rest in rests if rest != _LOOK_SECONDS]) == expected


@pytest.mark.parametrize(("events", "expected"), [(1, 0), (BATCH, 0), (BATCH + 1, 1), (2 * BATCH, 0)])
async def test_a_cursor_rests_while_less_than_a_batch_waits(
    events: int, expected: int, rests: list[float]
) -> None:
    twin, handler = MemoryTwin("counters"), Notes(events)
    await twin.create(1)
    await twin.publish(recorded("counters", events))
    following = asyncio.create_task(Cursor(twin, handler).run())
    await asyncio.wait_for(handler.done.wait(), 60)
    following.cancel()
    assert len([rest for rest in rests if rest != _LOOK_SECONDS]) == expected


class Notes:
    """A handler that notes how far it is."""

    name, types, routing_key = "notes", (), ""

    def __init__(self, last: int) -> None:
        self._last = last
        self.done = asyncio.Event()

    async def checkpoint(self) -> int:
        return 0

    async def last_handled(self) -> None:
        return None

    async def stored(self) -> int:
        return 0

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        if events[-1].position == self._last:
            self.done.set()
        return events[-1].position
