"""What is counted of a log and its writer, and sampled of sagas, leases, connections and signals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from tests.kernel.counter import COUNTER, Add, Count
from tests.observe.scraping import Scrape, values_of
from tests.waiting import until
from twinlog import Schema, StreamId, Transaction, Unavailable, Writer
from twinlog.log.ports import Appended, Batch, Conflict, Snapshot
from twinlog.log.saga_list import SelectedSagas
from twinlog.log.units import Request
from twinlog.memory.saga_list import MemorySagaList
from twinlog.model.saga_list import ANY, SAGA_INSTANCES, ChosenSagas, SagaRow
from twinlog.observe.metrics.clocks import Clocks
from twinlog.observe.metrics.leases import Leases
from twinlog.observe.metrics.log import LogTally
from twinlog.observe.metrics.pool import PoolUse
from twinlog.observe.metrics.problems import Problems
from twinlog.observe.metrics.sagas import Sagas
from twinlog.observe.metrics.timers import TimersDue
from twinlog.observe.metrics.writer import Writing
from twinlog.testing import START, CountedIds, ManualClock, MemoryLog
from twinlog.v1.saga_service_pb2 import SagaStatus

_LOG = {"log": "counters"}
_CONFLICTS = "twinlog_log_append_conflicts_total"
_REQUEST = "0196aa00-0000-7000-8000-000000000001"


class Stage:
    """A counted log and a writer on it."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.tally = LogTally()
        self.counted: Any = self.tally.around(log)
        self.writer = Writer(self.counted, schema=Schema(), clock=ManualClock(), ids=CountedIds())

    async def told(self) -> Scrape:
        return await values_of(self.tally)

    async def of_writer(self) -> Scrape:
        return await values_of(Writing("counters", self.writer))


@asynccontextmanager
async def staged(log: MemoryLog | None = None) -> AsyncIterator[Stage]:
    stage = Stage(log or MemoryLog("counters"))
    async with stage.writer:
        yield stage


def add(amount: int, id: str = "a") -> Callable[[Transaction], Count]:
    return lambda transaction: transaction.do(COUNTER, id, Add(amount))


def add_and_reply(amount: int) -> Callable[[Transaction], Int64Value]:
    return lambda transaction: Int64Value(value=transaction.do(COUNTER, "a", Add(amount)).value)


async def test_a_batch_is_one_append_of_all_its_events() -> None:
    async with staged() as stage:
        await asyncio.gather(*(stage.writer.execute(add(1, str(number))) for number in range(7)))
        told, writer = await stage.told(), await stage.of_writer()
    assert writer.value("twinlog_writer_batch_units_sum", **_LOG) == 7
    assert writer.value("twinlog_writer_batch_units_count", **_LOG) == 1
    assert told.value("twinlog_log_append_events_sum", **_LOG) == 7
    assert told.value("twinlog_log_append_events_count", **_LOG) == 1
    assert told.value("twinlog_log_append_events_bucket", le="5.0", **_LOG) == 0
    assert told.value("twinlog_log_append_events_bucket", le="10.0", **_LOG) == 1
    assert told.value("twinlog_log_append_duration_seconds_count", **_LOG) == 1
    of = {"aggregate": "counter", "type": "google.protobuf.Int64Value"}
    assert told.value("twinlog_log_events_total", **of, **_LOG) == 7
    assert told.value("twinlog_log_loaded_streams_total", **_LOG) == 7
    assert told.value("twinlog_log_loaded_events_total", **_LOG) == 0


async def test_loading_is_counted_with_what_it_brings() -> None:
    log = MemoryLog("counters")
    async with staged(log) as stage:
        for _ in range(3):
            await stage.writer.execute(add(1))
    async with staged(log) as stage:
        await stage.writer.execute(add(1))
        told = await stage.told()
    assert told.value("twinlog_log_load_duration_seconds_count", **_LOG) == 1
    assert told.value("twinlog_log_loaded_streams_total", **_LOG) == 1
    assert told.value("twinlog_log_loaded_events_total", **_LOG) == 3


async def test_a_lost_race_is_a_conflict_of_streams() -> None:
    log = MemoryLog("counters")
    async with staged(log) as one, staged(log) as other:
        await one.writer.execute(add(1))
        await other.writer.execute(add(1))
        await one.writer.execute(add(1))
        told = await one.told()
    assert told.value(_CONFLICTS, kind="streams", **_LOG) == 1
    assert told.sum(_CONFLICTS) == 1
    assert told.value("twinlog_log_append_events_count", **_LOG) == 2
    assert told.value("twinlog_log_append_duration_seconds_count", **_LOG) == 3


async def test_a_request_that_was_answered_already_is_a_conflict_of_requests() -> None:
    log = MemoryLog("counters")
    request = Request(_REQUEST, b"1", Int64Value)
    async with staged(log) as one, staged(log) as other:
        await other.writer.execute(add_and_reply(1), request=request)
        await one.writer.execute(add_and_reply(1), request=request)
        assert (await one.told()).value(_CONFLICTS, kind="requests", **_LOG) == 1


class Rivalled(MemoryLog):
    """A log in which a rival is always faster, unless it is locked out."""

    async def append(self, batch: Batch) -> Appended | Conflict:
        if self.events:
            return Conflict([event.stream for event in batch.events])
        return await super().append(batch)


async def test_an_append_with_others_locked_out_is_counted() -> None:
    async with staged(Rivalled("counters")) as stage:
        for _ in range(2):
            await stage.writer.execute(add(1))
        told = await stage.told()
    assert told.value("twinlog_log_exclusive_appends_total", **_LOG) == 1
    assert told.value(_CONFLICTS, kind="streams", **_LOG) == 3
    assert told.value("twinlog_log_append_events_count", **_LOG) == 2


class Away(MemoryLog):
    """A log whose store is away until it is said to be back."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.away = True

    async def append(self, batch: Batch) -> Appended | Conflict:
        if self.away:
            raise Unavailable
        return await super().append(batch)


async def test_an_append_without_answer_is_a_failure_and_waits() -> None:
    log = Away("counters")
    async with staged(log) as stage:
        adding = asyncio.ensure_future(stage.writer.execute(add(1)))
        failures = "twinlog_log_append_failures_total"
        await until(lambda: stage.tally.failures.counts["UNAVAILABLE"] > 1)
        behind = asyncio.ensure_future(stage.writer.execute(add(1, "b")))
        outside = asyncio.ensure_future(stage.writer.execute(add(1, "c"), outside=True))
        await until(lambda: stage.writer.waiting == (1, 1))
        waiting = await stage.of_writer()
        assert waiting.value("twinlog_writer_oldest_append_seconds", **_LOG) > 0
        assert waiting.value("twinlog_writer_waiting_units", origin="inside", **_LOG) == 1
        assert waiting.value("twinlog_writer_waiting_units", origin="outside", **_LOG) == 1
        log.away = False
        await asyncio.gather(adding, behind, outside)
        assert (await stage.told()).value(failures, reason="UNAVAILABLE", **_LOG) > 1
        await stage.writer.drain()
        done = await stage.of_writer()
    assert done.value("twinlog_writer_oldest_append_seconds", **_LOG) == 0
    assert done.sum("twinlog_writer_waiting_units") == 0
    assert done.value("twinlog_writer_cached_streams", **_LOG) == 3
    assert done.value("twinlog_admission_window_streams", **_LOG) > 0


async def test_snapshots_are_counted_when_they_are_saved_and_when_they_are_of_no_use() -> None:
    log = MemoryLog("counters")
    async with staged(log) as stage:
        for _ in range(101):
            await stage.writer.execute(add(1))
        await until(lambda: stage.tally.snapshots == 1)
    stream = StreamId("counter", "a")
    log.snapshots[stream] = log.snapshots[stream]._replace(state=b"rubbish")
    async with staged(log) as stage:
        await stage.writer.execute(add(1))
        told = await stage.of_writer()
        await until(lambda: stage.tally.snapshots == 1)
        assert (await stage.told()).value("twinlog_snapshots_saved_total", **_LOG) == 1
    assert told.value("twinlog_snapshots_ignored_total", **_LOG) == 1


async def test_a_stream_that_cannot_be_read_is_counted() -> None:
    log = MemoryLog("counters")
    async with staged(log) as stage:
        await stage.writer.execute(add(1))
    stream = StreamId("counter", "a")
    log.streams[stream][0] = log.streams[stream][0]._replace(payload=b"\xff\xff")
    async with staged(log) as stage:
        with pytest.raises(Exception, match="unreadable"):
            await stage.writer.execute(add(1))
        assert (await stage.of_writer()).value("twinlog_unreadable_streams", **_LOG) == 1


async def test_a_counted_log_is_a_log_in_all_else() -> None:
    async with staged() as stage:
        await stage.writer.execute(add(1))
        assert await stage.counted.head() == 1
        assert [event.position for event in await stage.counted.read(0, 9)] == [1]
        assert stage.counted.events is stage.log.events
        await stage.counted.save([Snapshot(StreamId("counter", "a"), 0, 0, "none", b"")])
        assert stage.tally.snapshots == 0, "it only makes room for one"


async def test_sagas_are_told_by_status_with_the_age_of_the_oldest() -> None:
    clock, listed = ManualClock(), MemorySagaList()
    rows = {
        "a": row("a", SagaStatus.SAGA_STATUS_RUNNING, 50),
        "b": row("b", SagaStatus.SAGA_STATUS_RUNNING, 20),
        "c": row("c", SagaStatus.SAGA_STATUS_NEEDS_ATTENTION, 70),
        "d": row("d", SagaStatus.SAGA_STATUS_COMPLETED, 90),
    }
    listed.tables[SAGA_INSTANCES.name] = rows
    told = await values_of(Sagas(lambda: listed, ["trip", "another"], clock))
    running, attention = (
        {"saga": "trip", "status": "RUNNING"},
        {"saga": "trip", "status": "NEEDS_ATTENTION"},
    )
    assert told.value("twinlog_sagas", **running) == 2
    assert told.value("twinlog_saga_oldest_seconds", **running) == 50
    assert told.value("twinlog_sagas", **attention) == 1
    assert told.value("twinlog_saga_oldest_seconds", **attention) == 70
    assert told.value("twinlog_sagas", saga="trip", status="COMPENSATING") == 0
    assert told.sum("twinlog_sagas", saga="another") == 0
    assert told.sum("twinlog_sagas") == 3, "those that have ended are none"


async def test_a_list_that_does_not_count_is_asked_for_each_status() -> None:
    class Plain:
        """Somebody's own list."""

        async def page(self, chosen: ChosenSagas, before: int, limit: int) -> list[SagaRow]:
            return []

        async def select(self, chosen: ChosenSagas, limit: int) -> SelectedSagas:
            assert chosen.statuses < ANY
            return SelectedSagas([], 4 if SagaStatus.SAGA_STATUS_RUNNING in chosen.statuses else 0)

    told = await values_of(Sagas(Plain, ["trip"], ManualClock()))
    assert told.value("twinlog_sagas", saga="trip", status="RUNNING") == 4
    assert told.sum("twinlog_sagas") == 4


async def test_before_it_is_known_where_sagas_are_listed_nothing_is_told() -> None:
    told = await values_of(
        Sagas(lambda: None, ["trip"], ManualClock(), {("trip_saga", "twinlog.v1.SagaCompleted"): 3})
    )
    assert told.value("twinlog_sagas_ended_total", saga="trip", status="COMPLETED") == 3
    assert told.value("twinlog_sagas_ended_total", saga="trip", status="COMPENSATED") == 0


def row(id: str, status: SagaStatus.ValueType, seconds_ago: float) -> SagaRow:
    began = START - timedelta(seconds=seconds_ago)
    return SagaRow(f"trip/{id}", "trip", id, "", 1, status, "", 1, began, began)


async def test_what_parts_say_of_themselves_is_told() -> None:
    held: Any = {"relay": SimpleNamespace(mine=False, holder="b"), "x": object()}
    leases = await values_of(Leases(held))
    assert [leases.value("twinlog_lease_held", lease=work) for work in held] == [0, 1]

    inspected: Any = SimpleNamespace(
        parts=[SimpleNamespace(problem=None)],
        signals={"clock": SimpleNamespace(problem="off"), "timers": SimpleNamespace(problem=None)},
    )
    problems = await values_of(Problems(inspected))
    assert problems.value("twinlog_serving") == 1
    assert problems.value("twinlog_signal_problem", signal="clock") == 1
    assert problems.value("twinlog_signal_problem", signal="timers") == 0
    inspected.parts = [SimpleNamespace(problem="the database is away")]
    assert (await values_of(Problems(inspected))).value("twinlog_serving") == 0


async def test_the_use_of_a_pool_is_told() -> None:
    pool = SimpleNamespace(get_size=lambda: 4, get_idle_size=lambda: 1, get_max_size=lambda: 5)
    log: Any = SimpleNamespace(pool=pool, connections=9)
    told = await values_of(PoolUse(log))
    states = {
        state: told.value("twinlog_pool_connections", state=state) for state in ("busy", "idle", "free")
    }
    assert states == {"busy": 3, "idle": 1, "free": 1}
    assert told.value("twinlog_pool_connections_made_total") == 9
    assert not await PoolUse(MemoryLog("orders")).samples()


async def test_a_clock_that_is_compared_tells_by_how_much_it_is_off() -> None:
    compared: Any = SimpleNamespace(now=lambda: START, ahead_seconds=-3.5)
    assert (await values_of(Clocks(compared))).value("twinlog_clock_ahead_seconds") == -3.5
    assert not await Clocks(ManualClock()).samples()


async def test_timers_that_are_stuck_are_told() -> None:
    timers: Any = SimpleNamespace(stuck=2)
    told = await values_of(TimersDue(MemoryLog("counters"), timers, ManualClock()))
    assert told.value("twinlog_timers_stuck", **_LOG) == 2
    assert told.value("twinlog_timers_due", **_LOG) == 0
