"""One clock decides: the store's, whatever the machine of a process has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from tests.kernel.batches import append, batch
from tests.servers import own_clock, set_clock
from tests.virtual_time import in_virtual_time
from twinlog import StreamId, Unavailable
from twinlog.log import system
from twinlog.log.ports import Timer, TimerChange
from twinlog.testing import START, ManualClock
from twinlog.testing.internals import StoreClock, SystemClock, open_log


class Rig:
    """A store, a machine, and a way between them that takes its time."""

    def __init__(self, ahead: float, there: Sequence[float] = (0.0,), back: Sequence[float] = (0.0,)) -> None:
        """``ahead``: seconds of the machine's clock. ``there``, ``back``: seconds of each question and answer."""
        self.passed = 100.0
        self.ahead = ahead
        self.set_by = 0.0
        """Seconds by which the store's clock was set."""
        self.pauses = 0.0
        """Seconds for which the process stands still when it has asked for the machine's time."""
        self.away = False
        self._ways = list(zip(there, back, strict=True))
        self.asked = 0
        self.clock = StoreClock(self._ask, self, passed=lambda: self.passed)

    def now(self) -> datetime:
        """The machine's."""
        told = START + timedelta(seconds=self.passed + self.ahead)
        self.passed += self.pauses
        return told

    @property
    def true(self) -> datetime:
        """The store's."""
        return START + timedelta(seconds=self.passed + self.set_by)

    @property
    def error(self) -> float:
        return (self.clock.now() - self.true).total_seconds()

    async def _ask(self) -> datetime:
        there, back = self._ways[self.asked % len(self._ways)]
        self.asked += 1
        if self.away:
            raise Unavailable
        self.passed += there
        told = self.true
        self.passed += back
        return told


@pytest.mark.parametrize("ahead", [-3600.0, -60.0, -0.5, 0.0, 0.5, 60.0, 3600.0])
async def test_the_time_is_the_stores(ahead: float) -> None:
    rig = Rig(ahead)
    await rig.clock.measure()
    assert abs(rig.error) < 0.001
    rig.passed += 50
    assert abs(rig.error) < 0.001


async def test_the_error_is_at_most_half_of_the_shortest_round_trip() -> None:
    rig = Rig(60, there=(2.0, 0.01, 0.5), back=(0.0, 0.0, 0.0))
    await rig.clock.measure()
    assert abs(rig.error) <= 0.0051


async def test_a_machine_whose_clock_is_set_meanwhile_changes_nothing() -> None:
    rig = Rig(0)
    await rig.clock.measure()
    rig.ahead = 3600
    assert abs(rig.error) < 0.001


async def test_a_slow_answer_does_not_replace_a_good_one() -> None:
    rig = Rig(0, there=(0, 0, 0, 4, 4, 4), back=(0, 0, 0, 0, 0, 0))
    await rig.clock.measure()
    await rig.clock.measure()
    assert abs(rig.error) < 0.001


async def test_what_is_known_well_is_kept_until_it_is_known_better() -> None:
    rig = Rig(0, there=(0.0,) * 3 + (0.9,) * 3 + (0.4,) * 3, back=(0.0,) * 9)
    for _ in range(3):
        await rig.clock.measure()
        assert abs(rig.error) < 0.01


@pytest.mark.parametrize("way", [0.0, 0.3, 4.0])
async def test_a_clock_of_the_database_that_is_set_is_learned_at_once(way: float) -> None:
    for by in (-3600.0, -10.0, 10.0, 3600.0):
        rig = Rig(0, there=(0.0,) * 3 + (way,) * 3, back=(0.0,) * 6)
        await rig.clock.measure()
        rig.set_by = by
        with capture_logs() as said:
            await rig.clock.measure()
        assert abs(rig.error) <= way / 2 + 0.001
        assert [line["event"] for line in said] == ["clock.off"]
        assert (rig.clock.ahead_seconds < 0) is (by > 0)


async def test_a_machine_that_is_set_is_learned_at_once_also_where_answers_are_slow() -> None:
    rig = Rig(0, there=(0.0,) * 3 + (9.0,) * 6, back=(0.0,) * 9)
    await rig.clock.measure()
    for ahead, event in ((2.0, "clock.off"), (0.0, "clock.right")):
        rig.ahead = ahead
        with capture_logs() as said:
            await rig.clock.measure()
        assert [line["event"] for line in said] == [event]


@pytest.mark.parametrize(("there", "back"), [(8.0, 0.0), (0.0, 8.0), (4.0, 4.0)])
async def test_nothing_is_told_that_a_slow_answer_leaves_open(there: float, back: float) -> None:
    """Neither that a clock is off, nor that it is right again."""
    rig = Rig(0, (there,), (back,))
    with capture_logs() as said:
        await rig.clock.measure()
        rig.ahead = 9.5
        await rig.clock.measure()
        rig.ahead = 0
        await rig.clock.measure()
    assert [line["event"] for line in said] == ["clock.off"], "of 9.5 seconds, 4 are open"
    assert rig.clock.problem


async def test_a_machine_that_pauses_while_it_is_compared_tells_nothing() -> None:
    rig = Rig(0)
    rig.pauses = 5.0
    with capture_logs() as said:
        await rig.clock.measure()
    assert not said


async def test_a_slow_answer_is_better_than_none() -> None:
    rig = Rig(60, there=(4,), back=(0,))
    await rig.clock.measure()
    assert abs(rig.error) <= 2.001


async def test_until_it_is_measured_the_machine_counts() -> None:
    rig = Rig(60)
    assert rig.clock.now() == rig.now()


async def test_an_outage_leaves_what_is_known() -> None:
    rig = Rig(60)
    await rig.clock.measure()
    rig.away = True
    with pytest.raises(Unavailable):
        await rig.clock.measure()
    assert abs(rig.error) < 0.001


@pytest.mark.parametrize(
    ("ahead", "off"), [(0.9, ""), (-0.9, ""), (1.1, "1.1 s ahead of"), (-60, "60.0 s behind")]
)
async def test_a_machine_that_is_off_by_more_than_a_second_says_so_once(ahead: float, off: str) -> None:
    rig = Rig(ahead)
    with capture_logs() as said:
        for _ in range(3):
            await rig.clock.measure()
    assert [line["event"] for line in said] == (["clock.off"] if off else [])
    if off:
        assert f"this machine's clock is {off} the database's" in str(rig.clock.problem)
        assert str(rig.clock.problem).isascii()
    else:
        assert rig.clock.problem is None


async def test_a_machine_that_was_set_right_says_so() -> None:
    rig = Rig(60)
    await rig.clock.measure()
    rig.ahead = 0
    with capture_logs() as said:
        await rig.clock.measure()
    assert [line["event"] for line in said] == ["clock.right"]
    assert rig.clock.problem is None


@in_virtual_time
async def test_it_is_measured_again_soon_while_answers_are_slow() -> None:
    """With pauses that grow to those of quiet times, so that a way that is long costs next to nothing."""
    loop = asyncio.get_running_loop()
    slow, asked = [True], list[float]()

    async def ask() -> datetime:
        asked.append(loop.time())
        await asyncio.sleep(2.0 if slow[0] else 0.0)
        return START + timedelta(seconds=loop.time())

    clock = StoreClock(ask, ManualClock(START), passed=loop.time)
    await clock.measure()
    running = asyncio.create_task(clock.run())
    await asyncio.sleep(600)
    for _ in range(2):
        pauses = [then - before - 6 for before, then in pairwise(asked[::3])]
        assert pauses[0] <= 1.0, "soon"
        assert all(pause >= 0.5 for pause in pauses), "never without a pause"
        assert all(30 <= pause <= 60 for pause in pauses[6:]), "bounded"
        slow[0] = False
        await asyncio.sleep(120)
        asked.clear()
        await asyncio.sleep(601)
        assert len(asked[::3]) in (60, 61), "every ten seconds"
        slow[0] = True
        asked.clear()
        await asyncio.sleep(600)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_a_clock_that_is_set_is_noticed_in_ten_seconds() -> None:
    """Whichever of the two it is; until then a deadline may be set by the old time."""
    loop, set_by = asyncio.get_running_loop(), [0.0]

    async def ask() -> datetime:
        return START + timedelta(seconds=loop.time() + set_by[0])

    clock = StoreClock(ask, ManualClock(START), passed=loop.time)
    await clock.measure()
    running = asyncio.create_task(clock.run())
    for by in (60.0, -3600.0, 0.0):
        set_by[0] = by
        await asyncio.sleep(10.1)
        assert clock.now() == await ask()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_is_measured_again_and_again_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "MEASURE_EVERY_SECONDS", 0.01)
    rig = Rig(60)
    running = asyncio.create_task(rig.clock.run())
    try:
        async with asyncio.timeout(60):
            rig.away = True
            while rig.asked < 2:
                await asyncio.sleep(0.01)
            rig.away = False
            while rig.clock.problem is None:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_postgres_tells_its_time(postgres_url: str, database: str) -> None:
    async with open_log(postgres_url, database, "own") as log:
        skewed = StoreClock(log.time, ManualClock(datetime.now(UTC) + timedelta(seconds=60)))
        await skewed.measure()
        right = SystemClock().now()
        assert abs(skewed.now() - right) < timedelta(seconds=1)
        assert "ahead of" in str(skewed.problem)


async def test_no_deadline_comes_early_where_the_clock_of_the_database_was_set_back(
    postgres_url: str, database: str
) -> None:
    """Until a replica measures it again, it is ahead of those that have set timers since."""
    async with open_log(postgres_url, database, "own") as log:
        await own_clock(postgres_url, database)
        await log.pool.expire_connections()
        now, order = await log.time(), StreamId("order", "a")
        await append(log, batch(timers=[TimerChange(order, 1, now)]))
        [timer] = await log.due(now, 9)
        await set_clock(postgres_url, database, "-1 hour")
        assert await log.due(now, 9) == await log.due(now, 9, Timer(order, 0, now)) == []
        assert timer.stream == order
