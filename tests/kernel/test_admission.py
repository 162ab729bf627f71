"""What is let in while there is too much to do: over a pipeline of a known capacity, in virtual time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import pytest
from structlog.testing import capture_logs

from tests.kernel.batches import grow
from tests.kernel.counter import ALARM, COUNTER, Ring, Set
from tests.virtual_time import simulated
from twinlog import Schema, StreamId, Transaction, Writer
from twinlog.log.unfinished import UnfinishedWork
from twinlog.model.errors import Overloaded
from twinlog.testing import START, CountedIds, MemoryLog

TICK = 0.01
USUAL_SECONDS = 0.05
"""What a saga takes when there is nothing else to do."""


class LoopClock:
    """The loop's time, as a clock."""

    def now(self) -> datetime:
        return START + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Order:
    """One that was accepted."""

    id: str
    began: float
    ended: float = float("inf")


@dataclass
class Pipeline:
    """Writers that accept orders, and sagas that end so many a second, through the first of them."""

    writers: list[Writer]
    capacity: float
    deadline: float
    orders: list[Order] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    waiting: deque[Order] = field(default_factory=deque)
    stuck: set[str] = field(default_factory=set)
    open: bool = True
    """Whether the sagas work."""
    _made: int = 0

    async def work(self) -> None:
        """Ends orders, the oldest first, at the capacity; endlessly."""
        budget = 0.0
        while True:
            await asyncio.sleep(TICK)
            now, done = self.now, []
            budget = min(budget + self.capacity * TICK, max(1.0, self.capacity * TICK)) if self.open else 0.0
            while self.waiting and budget >= 1 and self.waiting[0].began <= now - USUAL_SECONDS:
                budget, order = budget - 1, self.waiting.popleft()
                if order.began + self.deadline > now and order.id not in self.stuck:
                    order.ended = now
                    done.append(order.id)
            if done:
                await self.writers[0].execute(partial(_ring, done))

    async def ask(self, rate: float, seconds: float) -> None:
        """Makes orders at a rate, whatever happens, through all writers in turn."""
        until, due = self.now + seconds, 0.0
        async with asyncio.TaskGroup() as tasks:
            while self.now < until:
                due += rate * TICK
                for _ in range(int(due)):
                    due -= 1
                    self._made += 1
                    tasks.create_task(self.create(str(self._made)))
                await asyncio.sleep(TICK)

    async def create(self, id: str) -> None:
        """Makes an order, or notes that it was refused."""
        writer, began = self.writers[int(id) % len(self.writers)], self.now
        due = START + timedelta(seconds=began + self.deadline)
        try:
            await writer.execute(lambda tx: tx.do(ALARM, id, Set(due)), outside=True, begins=(ALARM, id))
        except Overloaded:
            self.refused.append(began)
            return
        order = Order(id, began)
        self.orders.append(order)
        self.waiting.append(order)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def goodput(self, since: float, until: float) -> float:
        """Orders a second that ended in that time."""
        return sum(since < order.ended <= until for order in self.orders) / (until - since)

    def expired(self) -> float:
        """The share of the accepted orders that did not end in time."""
        return sum(order.ended == float("inf") for order in self.orders) / len(self.orders)


@asynccontextmanager
async def pipeline(capacity: float, deadline: float, *, replicas: int = 1) -> AsyncIterator[Pipeline]:
    log = MemoryLog("orders")
    async with asyncio.TaskGroup() as tasks:
        writers = [Writer(log, schema=Schema(), clock=LoopClock(), ids=CountedIds()) for _ in range(replicas)]
        made = Pipeline(writers, capacity, deadline)
        for writer in writers:
            await writer.__aenter__()
        working = tasks.create_task(made.work())
        yield made
        working.cancel()
        for writer in writers:
            await writer.__aexit__()


def _ring(ids: list[str], tx: Transaction) -> None:
    for id in ids:
        tx.do(ALARM, id, Ring())


@pytest.mark.parametrize(
    ("capacity", "deadline", "replicas"),
    [(20, 10.0, 1), (20, 10.0, 2), (50, 4.0, 1), (50, 4.0, 2), (100, 30.0, 1), (200, 5.0, 2)],
)
def test_five_times_the_capacity_costs_little_and_is_over_when_it_is_over(
    capacity: float, deadline: float, replicas: int
) -> None:
    async def overload() -> None:
        async with pipeline(capacity, deadline, replicas=replicas) as shop:
            await shop.ask(capacity / 2, 5)
            assert not shop.refused
            began = shop.now
            await shop.ask(5 * capacity, 10)
            over = shop.now
            await shop.ask(capacity / 2, deadline + 10)
            await asyncio.sleep(deadline + 1)

            assert shop.goodput(began, over) >= 0.9 * capacity
            assert shop.expired() <= 0.01
            # Early: what is refused would have taken much longer than usual.
            assert len(shop.refused) >= 2.5 * capacity * (over - began)
            late = [order.began for order in shop.orders if order.ended - order.began > 1.0]
            assert max([*shop.refused, *late]) <= over + 5

    simulated(overload())


def test_what_cannot_be_finished_is_refused_until_it_can() -> None:
    """The sagas are away for longer than orders have: few of those accepted meanwhile are lost, and then all go on."""

    async def outage() -> None:
        async with pipeline(200, 10.0) as shop:
            await shop.ask(100, 5)
            shop.open = False
            away = shop.now
            await shop.ask(100, 20)
            shop.open = True
            back = shop.now
            await shop.ask(100, 10)
            await asyncio.sleep(11)

            meanwhile = [order for order in shop.orders if away < order.began <= back]
            assert len(meanwhile) < 400
            assert max(shop.refused) <= back + 2

    simulated(outage())


@pytest.mark.parametrize(
    ("capacity", "deadline", "away"), [(100, 10.0, 1.8), (40, 10.0, 1.5), (100, 30.0, 2.4)]
)
def test_a_service_that_hands_over_is_no_overload(capacity: float, deadline: float, away: float) -> None:
    """Nothing is finished for a while, and this replica is asked for what another was asked for before."""

    async def handover() -> None:
        async with pipeline(capacity, deadline, replicas=2) as shop:
            await shop.ask(0.6 * capacity, 5)
            del shop.writers[1]
            shop.open = False
            await shop.ask(0.6 * capacity, away)
            shop.open = True
            await shop.ask(0.6 * capacity, 10)
            assert not shop.refused

    simulated(handover())


def test_a_replica_that_starts_while_a_service_hands_over_refuses_nothing() -> None:
    async def start() -> None:
        async with pipeline(100, 10.0) as shop:
            shop.open = False
            await shop.ask(60, 1.8)
            shop.open = True
            await shop.ask(60, 10)
            assert not shop.refused

    simulated(start())


def test_a_service_that_hands_over_while_there_is_too_much_to_do_is_not_given_more() -> None:
    async def handover() -> None:
        async with pipeline(100, 10.0) as shop:
            await shop.ask(500, 5)
            shop.open = False
            await shop.ask(500, 1.8)
            shop.open = True
            back = shop.now
            await shop.ask(500, 5)
            assert shop.goodput(back, shop.now) >= 90
            await asyncio.sleep(11)
            assert shop.expired() <= 0.01
            assert max(order.ended - order.began for order in shop.orders if order.began > back) < 3.0

    simulated(handover())


def test_orders_that_never_end_take_nothing_from_the_others() -> None:
    async def poison() -> None:
        async with pipeline(200, 10.0) as shop:
            shop.stuck = {str(number) for number in range(1, 61)}
            await shop.ask(100, 0.6)
            await asyncio.sleep(5)  # nothing else comes in: all that waits is old
            await shop.ask(100, 10)
            await asyncio.sleep(11)

            assert len(shop.refused) <= 100
            assert sum(order.ended < float("inf") for order in shop.orders) >= 900

    simulated(poison())


def test_a_burst_is_let_in_when_it_can_be_finished_in_time() -> None:
    async def burst() -> None:
        async with pipeline(500, 30.0) as shop:
            await shop.ask(5_000, 0.1)
            await asyncio.sleep(5)
            assert not shop.refused

    simulated(burst())


def test_it_is_said_once_that_commands_are_refused_and_once_that_they_are_not() -> None:
    async def overload() -> None:
        async with pipeline(100, 5.0) as shop:
            with capture_logs() as said:
                await shop.ask(500, 5)
                await shop.ask(20, 5)
            events = [line["event"] for line in said if line["event"].startswith("admission")]
            assert events == ["admission.refusing", "admission.open"]

    simulated(overload())


def test_nothing_is_counted_that_did_not_begin() -> None:
    async def attempts() -> None:
        async with pipeline(100, 5.0) as shop:
            [writer] = shop.writers

            def fail(_tx: Transaction) -> None:
                raise ValueError

            with pytest.raises(ValueError):
                await writer.execute(fail, outside=True, begins=(ALARM, "a"))
            await writer.execute(lambda _tx: None, outside=True, begins=(ALARM, "b"))
            assert len(writer.unfinished) == 0

            due = START + timedelta(seconds=100)
            abandoned = asyncio.ensure_future(
                writer.execute(lambda tx: tx.do(ALARM, "c", Set(due)), outside=True, begins=(ALARM, "c"))
            )
            await asyncio.sleep(0)
            abandoned.cancel()
            await asyncio.sleep(60)
            assert len(writer.unfinished) == 0

    simulated(attempts())


async def test_a_new_writer_takes_what_comes_at_once() -> None:
    async with Writer(MemoryLog("orders"), schema=Schema(), clock=LoopClock(), ids=CountedIds()) as writer:
        each = [partial(_ring, [str(number)]) for number in range(300)]
        await asyncio.gather(*[writer.execute(work, outside=True) for work in each])


async def test_what_another_replica_has_gone_on_with_is_finished_for_this_one() -> None:
    log = MemoryLog("counters")
    unfinished = UnfinishedWork(log, LoopClock())
    stream = unfinished.begin((COUNTER, "a"))
    assert stream
    unfinished._open[stream].version = 1
    for seen, left in ((1, [1, 1, 1]), (2, [1, 0])):
        await grow(log, seen - await log.head())
        for expected in left:
            await unfinished._ask()
            assert len(unfinished) == expected


async def test_what_a_timer_leaves_says_within_what_time_work_has_to_be_done() -> None:
    unfinished = UnfinishedWork(MemoryLog("counters"), LoopClock())
    within, unsure = {}, {}
    for left in (0.5, 1.0, 2.0, 5.0, 10.0, 60.0):
        unfinished._allow(left)
        within[left], unsure[left] = unfinished._within, unfinished._unsure_within
    assert within == {0.5: 0.25, 1.0: 0.5, 2.0: 1.0, 5.0: pytest.approx(5 / 3), 10.0: 2.5, 60.0: 2.5}
    assert unsure == {0.5: 0.25, 1.0: 0.5, 2.0: 1.0, 5.0: 2.5, 10.0: 5.0, 60.0: 6.0}


async def test_the_window_is_narrowed_as_more_is_known_of_how_much_is_finished() -> None:
    calm, slow, nothing = [0.1] * 10, [1.0] * 10, list[float]()
    cases: dict[str, tuple[list[list[float]], list[int]]] = {
        "work becomes slow": (
            [calm] * 4 + [slow] * 4 + [calm, slow],
            [400] * 4 + [200] * 3 + [100] + [200, 100],
        ),
        "it is slow from the beginning": ([slow] * 4, [400] * 3 + [100]),
        "a look in between is not": (
            [slow] * 2 + [nothing] + [slow] * 3,
            [400] * 3 + [200] * 2 + [100],
        ),
        "nothing is finished at first": ([nothing] * 4 + [slow] * 2, [400] * 5 + [120]),
    }
    for what, (looks, windows) in cases.items():
        unfinished = UnfinishedWork(MemoryLog("counters"), LoopClock())
        unfinished._allow(10.0)
        seen = []
        for number, took in enumerate(looks, 1):
            unfinished._took = took
            unfinished._look(number * 0.25)
            seen.append(unfinished.window)
        assert seen == windows, what


def test_what_began_before_a_writer_watches_is_measured_from_there() -> None:
    """A process may be hours old by then, in which nothing was finished."""

    async def start() -> None:
        await asyncio.sleep(3_600)
        unfinished = UnfinishedWork(MemoryLog("counters"), LoopClock())
        unfinished._allow(10.0)
        unfinished.begin((COUNTER, "a"))
        watching = asyncio.create_task(unfinished.watch())
        await asyncio.sleep(0.1)
        for _ in range(4):
            unfinished._took = [1.0] * 10
            await asyncio.sleep(0.25)
        assert unfinished.window == 100
        watching.cancel()

    simulated(start())


async def test_streams_of_two_aggregates_with_one_id_are_two_pieces_of_work() -> None:
    unfinished = UnfinishedWork(MemoryLog("counters"), LoopClock())
    begun = [unfinished.begin((aggregate, "a")) for aggregate in (COUNTER, ALARM, COUNTER)]
    assert begun == [StreamId("counter", "a"), StreamId("alarm", "a"), None]
    assert len(unfinished) == 2


async def test_work_that_begins_anew_has_the_first_window() -> None:
    unfinished = UnfinishedWork(MemoryLog("counters"), LoopClock())
    unfinished._window = 16.0
    watching = asyncio.create_task(unfinished.watch())
    await asyncio.sleep(0)
    unfinished.begin((COUNTER, "a"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert unfinished.window == 64
    watching.cancel()
