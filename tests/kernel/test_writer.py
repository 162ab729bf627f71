"""The writer over the log's adapters: group commit, races, retries, requests, timers."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from structlog.testing import capture_logs

from tests.kernel.counter import ALARM, COUNTER, Add, Alarm, Count, Set
from tests.waiting import until
from twinlog import FailedPrecondition, Log, Recorded, Schema, StreamId, Transaction, Unavailable, Writer
from twinlog.log.lineage import Lineage
from twinlog.log.ports import Conflict
from twinlog.log.timers import Timers
from twinlog.log.units import Request
from twinlog.model.errors import Overloaded, RequestIdReused
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.internals import (
    Appended,
    Batch,
    CheckpointAdvance,
    CheckpointMoved,
    RandomIds,
    SystemClock,
    Timer,
)

ID = "0196aa00-0000-7000-8000-000000000001"


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog("counters")


@asynccontextmanager
async def writing(
    log: Log, on_commit: Callable[[Sequence[Recorded]], None] = lambda _events: None
) -> AsyncIterator[Writer]:
    async with Writer(
        log,
        schema=Schema(),
        clock=SystemClock(),
        ids=RandomIds(),
        on_commit=lambda events, _before: on_commit(events),
    ) as writer:
        yield writer


def add(amount: int, id: str = "a", limit: int = 10**9) -> Callable[[Transaction], Count]:
    return lambda tx: tx.do(COUNTER, id, Add(amount, limit))


def add_and_reply(amount: int) -> Callable[[Transaction], Int64Value]:
    return lambda tx: Int64Value(value=tx.do(COUNTER, "a", Add(amount)).value)


def request(amount: int) -> Request:
    return Request(ID, str(amount).encode(), Int64Value)


async def test_units_of_a_batch_see_the_state_so_far(log: MemoryLog) -> None:
    async with writing(log) as writer:
        outcomes = await asyncio.gather(*(writer.execute(add(1)) for _ in range(100)))
    assert [outcome.result.value for outcome in outcomes] == list(range(1, 101))
    assert [outcome.position for outcome in outcomes] == list(range(1, 101))
    assert [event.version for event in await log.read(0, 1000)] == list(range(1, 101))


async def test_a_unit_that_decides_twice_sees_its_own_first_decision_on_top_of_the_others(
    log: MemoryLog,
) -> None:
    def adds_twice(transaction: Transaction) -> Count:
        add(10)(transaction)
        return add(100)(transaction)

    async with writing(log) as writer:
        _, twice = await asyncio.gather(writer.execute(add(1)), writer.execute(adds_twice))
    assert (twice.result.value, twice.position) == (111, 3)
    assert [event.version for event in log.events] == [1, 2, 3]


async def test_a_refused_unit_leaves_no_trace(log: MemoryLog) -> None:
    def both(tx: Transaction) -> Count:
        tx.do(COUNTER, "b", Add(5))
        return tx.do(COUNTER, "a", Add(1, limit=2))

    async with writing(log) as writer:
        results = await asyncio.gather(*(writer.execute(both) for _ in range(3)), return_exceptions=True)
        assert isinstance(results[2], FailedPrecondition)
        assert (await writer.execute(add(0, "b"))).result.value == 10


async def test_commits_are_offered_in_order_and_as_they_are_stored(log: MemoryLog) -> None:
    offered: list[Recorded] = []
    async with writing(log, offered.extend) as writer:
        await asyncio.gather(*(writer.execute(add(1, str(n % 7))) for n in range(50)))
    assert offered == list(await log.read(0, 100))


async def test_a_retry_gets_the_first_answer_once_and_later(log: MemoryLog) -> None:
    async with writing(log) as writer:
        tries = [writer.execute(add_and_reply(3), request=request(3)) for _ in range(5)]
        first = await asyncio.gather(*tries)
        await writer.execute(add(10))
    async with writing(log) as writer:
        later = await writer.execute(add_and_reply(3), request=request(3))
    assert {(o.result.value, o.position) for o in (*first, later)} == {(3, 1)}
    assert await log.head() == 2


async def test_a_request_id_with_another_payload_is_refused(log: MemoryLog) -> None:
    async with writing(log) as writer:
        await writer.execute(add_and_reply(3), request=request(3))
        with pytest.raises(RequestIdReused):
            await writer.execute(add_and_reply(4), request=request(4))
    assert await log.head() == 1


async def test_a_retry_is_answered_even_where_the_state_no_longer_allows_it(log: MemoryLog) -> None:
    def work(tx: Transaction) -> Int64Value:
        return Int64Value(value=tx.do(COUNTER, "a", Add(2, limit=2)).value)

    async with writing(log) as writer:
        for _ in range(2):
            assert (await writer.execute(work, request=request(2))).result.value == 2


async def test_two_writers_race_and_both_finish(log: MemoryLog) -> None:
    async with writing(log) as one, writing(log) as two:
        await asyncio.gather(*(writer.execute(add(1)) for _ in range(50) for writer in (one, two)))
        assert (await one.execute(add(0))).result.value == 100
        assert (await two.execute(add(0))).result.value == 100
    assert [event.version for event in await log.read(0, 1000)] == list(range(1, 101))


async def test_what_a_unit_only_reads_is_checked_too(log: MemoryLog) -> None:
    """A decision on a stale reading is made again, though it writes elsewhere."""

    def copy(tx: Transaction) -> Count:
        return tx.do(COUNTER, "copy", Add(tx.state(COUNTER, "a").value))

    async with writing(log) as one, writing(log) as two:
        await one.execute(add(1))
        assert (await two.execute(copy)).result.value == 1
        await one.execute(add(1))
        assert (await two.execute(copy)).result.value == 3


async def test_a_moved_checkpoint_fails_only_its_own_unit(log: MemoryLog) -> None:
    async with writing(log) as writer:
        await writer.execute(add(1), advance=CheckpointAdvance("c", 0, 5))
        zombie, other = await asyncio.gather(
            writer.execute(add(1), advance=CheckpointAdvance("c", 0, 5)),
            writer.execute(add(1)),
            return_exceptions=True,
        )
        assert isinstance(zombie, CheckpointMoved)
        assert not isinstance(other, BaseException)
        assert other.result.value == 2
    assert await log.checkpoint("c") == 5


async def test_a_caller_that_gives_up_loses_nothing_that_was_begun(log: MemoryLog) -> None:
    gate = Gate(log)
    async with writing(gate) as writer:
        caller = asyncio.create_task(writer.execute(add_and_reply(3), request=request(3)))
        await gate.reached.wait()
        caller.cancel()
        gate.open.set()
        retried = await writer.execute(add_and_reply(3), request=request(3))
    assert (retried.result.value, await log.head()) == (3, 1)


@pytest.mark.parametrize("committed", [True, False])
async def test_a_lost_reply_is_resolved(log: MemoryLog, committed: bool) -> None:
    offered: list[Recorded] = []
    async with writing(LosesReplies(log, committed), offered.extend) as writer:
        outcome = await writer.execute(add(1))
        assert (outcome.result.value, outcome.position) == (1, 1)
        assert (await writer.execute(add(1))).result.value == 2
    assert offered == list(await log.read(0, 10))
    assert await log.head() == 2


async def test_a_writer_that_keeps_losing_shuts_the_others_out(log: MemoryLog) -> None:
    rival = Rival(log)
    async with writing(rival) as writer, writing(log) as other:
        await writer.execute(add(1))
        rival.other = other
        assert (await asyncio.wait_for(writer.execute(add(1)), 60)).result.value == 5
    assert rival.races == 3


async def test_a_log_that_was_set_back_is_read_again(log: MemoryLog) -> None:
    async with writing(log) as writer:
        for _ in range(5):
            await writer.execute(add(1))
        del log.events[2:], log.streams[StreamId("counter", "a")][2:]
        outcome = await writer.execute(add(1))
    assert (outcome.result, outcome.position) == (Count(3, 3), 3)


async def test_what_is_only_read_is_never_of_another_history(log: MemoryLog) -> None:
    lineage, clock = Lineage(log, MemoryTwin("counters")), SystemClock()
    async with Writer(log, schema=Schema(), clock=clock, ids=RandomIds(), lineage=lineage) as writer:
        await writer.execute(add(1))
        del log.events[:], log.streams[StreamId("counter", "a")]
        async with writing(log) as other:
            await other.execute(add(5))
        lineage.doubt()
        assert (await writer.execute(lambda tx: tx.state(COUNTER, "a"))).result == Count(5, 1)


async def test_timers_wake_a_stream_once() -> None:
    log = MemoryLog("alarms")
    now = datetime.now(UTC)
    async with writing(log) as writer:
        await writer.execute(lambda tx: tx.do(ALARM, "past", Set(now - timedelta(seconds=1))))
        await writer.execute(lambda tx: tx.do(ALARM, "future", Set(now + timedelta(days=1))))
        timers = Timers(log, writer, [ALARM], clock=SystemClock(), actor="test")
        assert await timers.fire() == 1
        assert await timers.fire() == 0
        rung = await writer.execute(lambda tx: tx.state(ALARM, "past"))
    assert rung.result == Alarm(None, rung=True)


async def test_timers_say_once_that_the_store_is_away_and_once_that_they_go_on() -> None:
    log = Away("alarms")
    async with writing(log) as writer:
        await writer.execute(lambda tx: tx.do(ALARM, "past", Set(datetime.now(UTC))))
        timers = Timers(log, writer, [ALARM], clock=SystemClock(), actor="test", interval_seconds=0.01)
        with capture_logs() as said:
            firing = asyncio.create_task(timers.run())
            await until(lambda: log.asked >= 3)
            assert timers.problem == str(Unavailable())
            log.away = False
            await until(lambda: timers.problem is None)
            firing.cancel()
            await asyncio.gather(firing, return_exceptions=True)
        rung = await writer.execute(lambda tx: tx.state(ALARM, "past"))
    assert rung.result == Alarm(None, rung=True)
    assert [line["event"] for line in said if line["event"] != "timers.fired"] == [
        "timers.stopped",
        "timers.firing",
    ]


async def test_nothing_is_refused_on_what_was_true_once() -> None:
    log = MemoryLog("counts")
    async with writing(log) as one, writing(log) as two:
        await one.execute(add(5))
        await two.execute(lambda tx: tx.state(COUNTER, "a"))
        await one.execute(add(-5))
        counted = await two.execute(lambda tx: tx.do(COUNTER, "a", Add(5, limit=5)))
        assert counted.result.value == 5
        with pytest.raises(FailedPrecondition):
            await one.execute(lambda tx: tx.do(COUNTER, "a", Add(1, limit=5)))


class Away(MemoryLog):
    """A log that cannot say which timers are due while it is away."""

    asked, away = 0, True

    async def due(self, now: datetime, limit: int, after: Timer | None = None) -> Sequence[Timer]:
        self.asked += 1
        if self.away:
            raise Unavailable
        return await super().due(now, limit, after)


class Gate(MemoryLog):
    """A log whose first append waits at a gate."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log.name)
        self.__dict__.update(log.__dict__)
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def append(self, batch: Batch) -> Appended | Conflict:
        self.reached.set()
        await self.open.wait()
        return await super().append(batch)


class LosesReplies(MemoryLog):
    """A log that loses the reply of its first append, committed or not."""

    def __init__(self, log: MemoryLog, committed: bool) -> None:
        super().__init__(log.name)
        self.__dict__.update(log.__dict__)
        self.committed, self.lost = committed, False

    async def append(self, batch: Batch) -> Appended | Conflict:
        if self.lost:
            return await super().append(batch)
        self.lost = True
        if self.committed:
            await super().append(batch)
        raise Unavailable


class Rival(MemoryLog):
    """A log on which another writer is always faster, unless it is shut out."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log.name)
        self.__dict__.update(log.__dict__)
        self.other: Writer | None = None
        self.races = 0

    async def append(self, batch: Batch) -> Appended | Conflict:
        if self.other and self.races < 5:
            self.races += 1
            await self.other.execute(add(1))
        return await super().append(batch)


def test_stream_ids_read_well() -> None:
    assert str(StreamId("order", "1")) == "order/1"


async def test_a_refusal_does_not_rest_on_what_was_not_committed(log: MemoryLog) -> None:
    async with writing(log) as one, writing(log) as two:
        await two.execute(add(0))
        await one.execute(add(5))
        # On the state that the second writer knows, the first unit passes and leaves nothing for the second.
        first, second = await asyncio.gather(
            two.execute(add(8, limit=10)), two.execute(add(5, limit=10)), return_exceptions=True
        )
    assert isinstance(first, FailedPrecondition)
    assert not isinstance(second, BaseException)
    assert second.result.value == 10


class TestAdmission:
    async def test_what_finishes_accepted_work_goes_before_commands_from_outside(
        self, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("twinlog.log.writer._QUEUE_SECONDS", math.inf)
        gate, done = Gate(log), list[str]()

        async def execute(name: str, outside: bool) -> None:
            await writer.execute(add(1), outside=outside)
            done.append(name)

        async with writing(gate) as writer:
            first = asyncio.create_task(execute("first", True))
            await gate.reached.wait()
            others = [asyncio.create_task(execute("outside", True)) for _ in range(300)]
            others += [asyncio.create_task(execute("inside", False)) for _ in range(20)]
            await asyncio.sleep(0)
            gate.open.set()
            await asyncio.gather(first, *others)
        assert done.index("inside") == 1
        assert done[1:21] == ["inside"] * 20

    async def test_commands_are_refused_early_while_an_append_hangs_and_go_on_after_it(
        self, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("twinlog.log.writer._QUEUE_SECONDS", 0.05)
        gate = Gate(log)
        async with writing(gate) as writer:
            first = asyncio.create_task(writer.execute(add(1), outside=True))
            await gate.reached.wait()
            # A batch of them would be next, so those may wait however long that takes.
            waiting = [asyncio.create_task(writer.execute(add(1), outside=True)) for _ in range(256)]
            await asyncio.sleep(0.1)
            with pytest.raises(Overloaded) as refused:
                await writer.execute(add(1), outside=True)
            assert refused.value.facts == {"waiting": "256"}
            inside = asyncio.create_task(writer.execute(add(1)))
            gate.open.set()
            await asyncio.gather(first, inside, *waiting)
            assert (await writer.execute(add(1), outside=True)).result.value == 259

    async def test_a_quick_log_takes_more_than_a_batch(self, log: MemoryLog) -> None:
        async with writing(log) as writer:
            await asyncio.gather(*(writer.execute(add(1), outside=True) for _ in range(2_000)))
            assert (await writer.execute(add(0))).result.value == 2_000

    async def test_no_more_than_so_many_wait(self, log: MemoryLog) -> None:
        gate = Gate(log)
        async with Writer(
            gate, schema=Schema(), clock=SystemClock(), ids=RandomIds(), max_waiting=3
        ) as writer:
            first = asyncio.create_task(writer.execute(add(1), outside=True))
            await gate.reached.wait()
            waiting = [asyncio.create_task(writer.execute(add(1), outside=True)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(Overloaded):
                await writer.execute(add(1), outside=True)
            gate.open.set()
            await asyncio.gather(first, *waiting)


@asynccontextmanager
async def hanging(
    log: MemoryLog, *, known: bool = True
) -> AsyncIterator[tuple[Writer, HeldUp, asyncio.Task[object]]]:
    """A writer with an append that hangs until the gate is open; ``known``: whether it is told who holds it up."""
    gate = HeldUp(log)
    gate.known = known
    async with writing(gate) as writer:
        yield writer, gate, asyncio.create_task(writer.execute(add(1)))


class TestStall:
    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An append is one that hangs sooner than in earnest."""
        monkeypatch.setattr("twinlog.log.stall._STALLED_SECONDS", 0.05)

    async def test_an_append_that_hangs_is_a_problem_that_names_who_holds_it_up(self, log: MemoryLog) -> None:
        with capture_logs() as said:
            async with hanging(log) as (writer, gate, waiting):
                await until(lambda: "held up by" in (writer.problem or ""))
                assert re.fullmatch(
                    r"log counters: the oldest append has been waiting for \d+ s; it is held up by pid 7 \(psql\)",
                    writer.problem or "",
                )
                gate.open.set()
                await waiting
                await until(lambda: writer.problem is None)
        events = [line["event"] for line in said]
        assert (events[0], events[-1]) == ("writer.stalled", "writer.goes_on")

    async def test_one_that_hangs_for_long_is_said_ever_more_seldom(self, log: MemoryLog) -> None:
        with capture_logs() as said:
            async with hanging(log) as (_, gate, waiting):
                await until(lambda: gate.asked >= 13)  # said each time, the last would be after 3 minutes
                times = sum(line["event"] == "writer.stalled" for line in said)
                gate.open.set()
                await waiting
        assert 2 <= times < 12

    async def test_who_holds_it_up_may_stay_unknown(self, log: MemoryLog) -> None:
        async with hanging(log, known=False) as (writer, gate, waiting):
            await until(lambda: gate.asked >= 2)
            assert re.fullmatch(
                r"log counters: the oldest append has been waiting for \d+ s", writer.problem or ""
            )
            gate.open.set()
            await waiting
            assert writer.problem is None


class HeldUp(Gate):
    """A log whose appends are held up by somebody."""

    known, asked = True, 0

    async def blockers(self) -> Sequence[str]:
        self.asked += 1
        if not self.known:
            raise Unavailable
        return ["pid 7 (psql)"]
