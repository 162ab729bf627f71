"""Timers of streams that cannot be read wait, and are reported; the others are fired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from structlog.types import EventDict

from tests.kernel.counter import ALARM, Alarm, Set
from tests.poison.kinds import KINDS, Kind, fails, learn, patched, poison, unknown_type
from tests.virtual_time import in_virtual_time
from tests.waiting import until
from twinlog import FailedPrecondition, Log, Schema, StreamId, Transaction, Unavailable, Writer
from twinlog.log import timers as timers_module
from twinlog.log.ports import Conflict, ReadRequest, StreamSlice
from twinlog.log.timers import Timers
from twinlog.model.errors import PartlyUnavailable
from twinlog.testing import START, ManualClock, MemoryLog
from twinlog.testing.internals import Appended, Batch, RandomIds, Timer

LATER = START + timedelta(seconds=30)
TOLERANT = patched(
    ALARM, evolve=lambda a, e: ALARM.evolve(a, e) if isinstance(e, StringValue) and e.value != "poison" else a
)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog("alarms")


@asynccontextmanager
async def writing(log: Log, clock: ManualClock) -> AsyncIterator[Writer]:
    async with Writer(log, schema=Schema(), clock=clock, ids=RandomIds()) as writer:
        yield writer


def alarm(id: str) -> StreamId:
    return StreamId(ALARM.name, id)


async def set_alarms(writer: Writer, *ids: str, due: datetime = START) -> None:
    def setting(id: str) -> Callable[[Transaction], Alarm]:
        return lambda tx: tx.do(TOLERANT, id, Set(due))

    await asyncio.gather(*(writer.execute(setting(id)) for id in ids))


def rung(log: MemoryLog) -> set[str]:
    """The alarms that have rung: their timers are cleared."""
    return {stream.id for stream in log.streams} - {stream.id for stream in log.timers}


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
async def test_one_that_cannot_be_read_waits_and_the_others_fire(
    log: MemoryLog, make: Callable[[], Kind], lines: list[EventDict]
) -> None:
    clock, kind = ManualClock(LATER), make()
    async with writing(log, clock) as writer:
        await set_alarms(writer, "a", "bad", "b")
        strict = patched(ALARM, evolve=fails_over_poison)
        await poison(log, alarm("bad"), kind)
    async with writing(log, clock) as writer:
        timers = Timers(log, writer, [strict], clock=clock, actor="tests")
        assert await timers.fire() == 2
        assert await timers.fire() == 0
        assert rung(log) == {"a", "b"}
        assert timers.problem and "alarm/bad" in timers.problem
        assert kind.said in timers.problem
    said = [line for line in lines if line["event"] == "timers.stuck"]
    assert [(line["stream"], line["log_level"]) for line in said] == [("alarm/bad", "error")], "once"


def fails_over_poison(alarm: Alarm, event: StringValue) -> Alarm:
    if event.value == "poison":
        raise LookupError("a defect")
    return ALARM.evolve(alarm, event)


@pytest.mark.parametrize("function", ["decide", "evolve", "due", "on_due"])
async def test_one_whose_aggregate_fails_waits_and_the_others_fire(log: MemoryLog, function: str) -> None:
    clock = ManualClock(LATER)
    async with writing(log, clock) as writer:
        await set_alarms(writer, "a", "bad", "b")

        def only_bad(*arguments: object) -> object:
            state = arguments[0]
            assert isinstance(state, Alarm)
            if state.due == LATER:
                raise LookupError("a defect")
            return getattr(ALARM, function)(*arguments)

        await set_alarms(writer, "bad", due=LATER)
        timers = Timers(log, writer, [patched(ALARM, **{function: only_bad})], clock=clock, actor="tests")
        assert await timers.fire() == 2
        assert rung(log) == {"a", "b"}
        assert timers.problem
        assert "a defect" in timers.problem


async def test_one_that_is_refused_waits_and_the_others_fire(log: MemoryLog) -> None:
    def refuses(alarm: Alarm, command: object) -> object:
        if alarm.due == LATER:
            raise FailedPrecondition("not now")
        return ALARM.decide(alarm, command)  # type: ignore[arg-type]

    clock = ManualClock(LATER)
    async with writing(log, clock) as writer:
        await set_alarms(writer, "a")
        await set_alarms(writer, "bad", due=LATER)
        timers = Timers(log, writer, [patched(ALARM, decide=refuses)], clock=clock, actor="tests")
        assert await timers.fire() == 1
        assert timers.problem == "the timer of alarm/bad cannot fire: not now; tried again every 10 s"


async def test_one_of_an_aggregate_that_is_gone_is_reported_and_left_alone(
    log: MemoryLog, lines: list[EventDict]
) -> None:
    clock = ManualClock(LATER)
    gone = StreamId("gone", "1")
    log.timers[gone] = Timer(gone, 1, START)
    async with writing(log, clock) as writer:
        await set_alarms(writer, "a")
        timers = Timers(log, writer, [ALARM], clock=clock, actor="tests")
        assert await timers.fire() == 1
        assert timers.problem == (
            "the timer of gone/1 cannot fire: No aggregate gone is declared here; "
            "deploy a version that has it, or delete the timer; tried again every 10 s"
        )
    assert gone in log.timers
    assert [line["stream"] for line in lines if line["event"] == "timers.stuck"] == ["gone/1"]


@pytest.mark.parametrize("stuck", [199, 200, 201, 450])
@in_virtual_time
async def test_those_that_wait_do_not_starve_the_ones_behind_them(log: MemoryLog, stuck: int) -> None:
    clock = ManualClock(LATER)
    async with writing(log, clock) as writer:
        bad = [f"bad{number}" for number in range(stuck)]
        await set_alarms(writer, *bad)
        kind = unknown_type()
        for id in bad:
            await poison(log, alarm(id), kind)
        await set_alarms(writer, "a", due=START + timedelta(seconds=1))
        timers = Timers(log, writer, [TOLERANT], clock=clock, actor="tests")
        assert await timers.fire() == 1
        assert rung(log) == {"a"}
        for id in ("b", "c"):
            await set_alarms(writer, id, due=LATER)
            assert await timers.fire() == 1
        assert f"; and {stuck - 5} more; tried again" in str(timers.problem)
        learn(kind)
        timers._try_again_at = 0.0
        assert await timers.fire() == stuck
        assert timers.problem is None
    assert not log.timers


class Noted(MemoryLog):
    """One that notes how many timers each look has found."""

    def __init__(self) -> None:
        super().__init__("alarms")
        self.looks: list[int] = []

    async def due(self, now: datetime, limit: int, after: Timer | None = None) -> Sequence[Timer]:
        found = await super().due(now, limit, after)
        self.looks.append(len(found))
        return found


@in_virtual_time
async def test_while_they_wait_they_are_not_read_at_every_look(log: MemoryLog) -> None:
    noted, clock = Noted(), ManualClock(LATER)
    for number in range(900):
        gone = StreamId("gone", str(number))
        noted.timers[gone] = Timer(gone, 1, START)
    async with writing(noted, clock) as writer:
        timers = Timers(noted, writer, [ALARM], clock=clock, actor="tests")
        for _ in range(3):
            await timers.fire()
    assert noted.looks == [200, 200, 200, 200, 100, 100, 100]


@pytest.mark.parametrize("apart", [timedelta(milliseconds=1), timedelta()], ids=["one by one", "at once"])
@in_virtual_time
async def test_very_many_that_wait_are_few_in_memory_in_the_logs_and_at_each_look(
    lines: list[EventDict], monkeypatch: pytest.MonkeyPatch, apart: timedelta
) -> None:
    monkeypatch.setattr(timers_module, "_REMEMBERED", 100)
    noted, clock, many = Noted(), ManualClock(LATER), 5_050
    for number in range(many):
        gone = StreamId("gone", f"{number:04}")
        noted.timers[gone] = Timer(gone, 1, START + number * apart)
    async with writing(noted, clock) as writer:
        timers = Timers(noted, writer, [ALARM], clock=clock, actor="tests")
        await set_alarms(writer, "first", due=LATER)
        assert await timers.fire() == 1, "also behind all of them"
        for again in range(8):
            noted.looks.clear()
            if again == 1:
                timers._try_again_at = 0.0
            await set_alarms(writer, str(again), due=LATER)
            assert await timers.fire() == 1
            assert len(noted.looks) <= 6, "those that wait are tried again a thousand at a time"
            assert sum(noted.looks) <= 6 * 200
            assert timers.stuck == many
            assert len(timers._told) <= 100
            assert len(timers._known) <= 200
        assert f"; and {many - 5} more; tried again every 10 s" in str(timers.problem)

        for number in range(0, many, 2):
            del noted.timers[StreamId("gone", f"{number:04}")]
        sound = alarm("sound")
        await set_alarms(writer, "sound", due=LATER)
        noted.timers[sound] = noted.timers[sound]._replace(due=START)
        timers._try_again_at = 0.0
        assert sum([await timers.fire() for _ in range(3)]) == 1, "found in the round"
        assert timers.stuck == many // 2
        noted.timers.clear()
        timers._try_again_at = 0.0
        await timers.fire()
        assert timers.problem is None
    assert len([line for line in lines if line["event"] == "timers.stuck"]) == 100


@pytest.mark.parametrize(("stuck", "seconds"), [(8, 10), (9, 10), (12, 12), (24, 24)])
@in_virtual_time
async def test_it_is_said_how_often_they_are_tried_again(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch, stuck: int, seconds: int
) -> None:
    monkeypatch.setattr(timers_module, "_BATCH", 2)
    monkeypatch.setattr(timers_module, "_PAGES_AGAIN", 1)
    clock = ManualClock(LATER)
    for number in range(stuck):
        gone = StreamId("gone", f"{number:02}")
        log.timers[gone] = Timer(gone, 1, START)
    async with writing(log, clock) as writer:
        timers = Timers(log, writer, [ALARM], clock=clock, actor="tests", interval_seconds=2.0)
        await timers.fire()
        assert str(timers.problem).endswith(f"; and {stuck - 5} more; tried again every {seconds} s")


@in_virtual_time
async def test_one_that_has_fired_is_not_named_while_the_others_are_tried_again(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers_module, "_BATCH", 2)
    monkeypatch.setattr(timers_module, "_PAGES_AGAIN", 1)
    clock = ManualClock(LATER)
    async with writing(log, clock) as writer:
        await set_alarms(writer, "a", "b", "c", "d")
        timers = Timers(log, writer, [patched(ALARM, decide=fails)], clock=clock, actor="tests")
        assert await timers.fire() == 0
        timers._aggregates[ALARM.name], timers._try_again_at = ALARM, 0.0
        assert await timers.fire() == 2
        assert "alarm/a " not in str(timers.problem)
        assert "alarm/d " in str(timers.problem)


async def test_a_timer_that_changes_is_tried_at_once(log: MemoryLog) -> None:
    clock = ManualClock(LATER)
    gone = StreamId(ALARM.name, "bad")
    async with writing(log, clock) as writer:
        await set_alarms(writer, "bad")
        broken = Timers(log, writer, [patched(ALARM, decide=fails)], clock=clock, actor="tests")
        assert await broken.fire() == 0
        broken._aggregates[ALARM.name] = ALARM
        assert await broken.fire() == 0, "it is not time yet"
        log.timers[gone] = log.timers[gone]._replace(due=START - timedelta(seconds=1))
        assert await broken.fire() == 1


@pytest.mark.parametrize(
    "changed", [{"due": lambda _alarm: None}, {"decide": lambda _alarm, _command: []}], ids=["due", "decide"]
)
async def test_one_for_which_there_is_nothing_to_do_is_reported_and_left_alone(
    log: MemoryLog, changed: dict[str, Any], lines: list[EventDict]
) -> None:
    """As of a newer program, which knows of a deadline that this one does not know."""
    clock = ManualClock(LATER)
    async with writing(log, clock) as writer:
        await set_alarms(writer, "theirs")
        timers = Timers(log, writer, [patched(ALARM, **changed)], clock=clock, actor="tests")
        problems = [(await timers.fire(), timers.problem or "") for _ in range(4)]
        assert problems[0] == (0, ""), "somebody else may just have done it"
        for fired, problem in problems[1:]:
            assert not fired
            assert "timer of alarm/theirs cannot fire: By this program" in problem
        assert log.timers.keys() == {alarm("theirs")}, "it is theirs"
        timers._aggregates[ALARM.name], timers._try_again_at = ALARM, 0.0
        assert await timers.fire() == 1
        assert timers.problem is None
    said = [(line["event"], line.get("stream")) for line in lines if line["event"].startswith("timers.")]
    assert said == [("timers.stuck", "alarm/theirs"), ("timers.fired", None)]


@in_virtual_time
async def test_very_many_for_which_there_is_nothing_to_do_are_told_by_their_number_at_every_look(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers_module, "_REMEMBERED", 100)
    clock, many = ManualClock(LATER), 1_050
    for number in range(many):
        theirs = alarm(f"{number:04}")
        log.timers[theirs] = Timer(theirs, 1, START)
    async with writing(log, clock) as writer:
        timers = Timers(log, writer, [ALARM], clock=clock, actor="tests")
        assert await timers.fire() == 0
        for look in range(12):
            if look < 6:  # one in front that is sound, so that no look passes those behind it
                await set_alarms(writer, f"sound{look}", due=START - timedelta(seconds=1))
            if look % 3 == 2:
                timers._try_again_at = 0.0
            assert await timers.fire() == (1 if look < 6 else 0)
            assert timers.stuck == many
            assert len(timers._vain | timers._vain_before) <= 3 * 100
        assert f"; and {many - 5} more; tried again" in str(timers.problem)


async def test_one_that_somebody_else_has_fired_meanwhile_is_not_reported(log: MemoryLog) -> None:
    clock = ManualClock(LATER)
    async with writing(log, clock) as writer:
        await set_alarms(writer, "a")
        timer = log.timers[alarm("a")]
        timers = Timers(log, writer, [ALARM], clock=clock, actor="tests")
        assert await timers.fire() == 1
        assert await timers._wake_all([timer], clock.now()) == {}
        assert await timers.fire() == 0
        assert timers.problem is None


async def test_an_append_that_fails_over_one_is_done_without_it(log: MemoryLog) -> None:
    class Fussy(MemoryLog):
        async def append(self, batch: Batch) -> Appended | Conflict:
            if any(event.stream.id == "bad" for event in batch.events) and clock.now() == LATER:
                raise ValueError("not a text that can be stored")
            return await super().append(batch)

    fussy, clock = Fussy("alarms"), ManualClock()
    async with writing(fussy, clock) as writer:
        await set_alarms(writer, *(f"a{number}" for number in range(20)), "bad")
        clock.advance(LATER - START)
        timers = Timers(fussy, writer, [ALARM], clock=clock, actor="tests")
        assert await timers.fire() == 20
        assert "timer of alarm/bad cannot fire: not a text that can be stored" in (timers.problem or "")


@in_virtual_time
async def test_one_whose_cause_cannot_be_read_waits_and_the_others_fire(lines: list[EventDict]) -> None:
    """As one in an archive that is away, or on a damaged page."""

    class Damaged(MemoryLog):
        damaged = True

        async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
            if self.damaged and any(each.stream.id == "bad" and each.upto == 1 for each in wanted):
                raise PartlyUnavailable(why="invalid page in block 7")
            return await super().load(wanted)

    damaged, clock = Damaged("alarms"), ManualClock(LATER)
    async with writing(damaged, clock) as writer:
        await set_alarms(writer, "a", "bad", "b")
        timers = Timers(damaged, writer, [ALARM], clock=clock, actor="tests")
        assert await timers.fire() == 2
        assert "What is stored there cannot be read (invalid page in block 7)" in (timers.problem or "")
        damaged.damaged, timers._try_again_at = False, 0.0
        assert await timers.fire() == 1
        assert await timers.fire() == 0
        assert timers.stuck == 0
    assert [line["count"] for line in lines if line["event"] == "timers.fired"] == [2, 1], "what was, only"


@pytest.mark.parametrize("error", [Unavailable(), ConnectionError("a lock timeout"), LookupError("a defect")])
async def test_whatever_goes_wrong_timers_go_on(
    log: MemoryLog, error: Exception, lines: list[EventDict]
) -> None:
    """One that the store's adapter knows as an outage, and others that it lets through."""

    class Failing(MemoryLog):
        async def due(self, now: datetime, limit: int, after: Timer | None = None) -> list[Timer]:
            if failing:
                raise error
            return list(await super().due(now, limit, after))

    failing, clock = True, ManualClock(LATER)
    failed = Failing("alarms")
    async with writing(failed, clock) as writer:
        await set_alarms(writer, "a")
        timers = Timers(failed, writer, [ALARM], clock=clock, actor="tests", interval_seconds=0.0)
        running = asyncio.create_task(timers.run())
        await until(lambda: timers.problem == str(error))
        failing = False
        await until(lambda: not failed.timers)
        assert not running.done()
        running.cancel()
    assert [line["event"] for line in lines if line["event"].startswith("timers.s")] == ["timers.stopped"]


class Silent(MemoryLog):
    """A log whose table of timers somebody locks."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.free = asyncio.Event()

    async def due(self, now: datetime, limit: int, after: Timer | None = None) -> Any:
        await self.free.wait()
        return await super().due(now, limit, after)


@in_virtual_time
async def test_a_store_that_does_not_tell_what_is_due_shows_before_its_statement_is_given_up() -> None:
    clock, silent = ManualClock(LATER), Silent("alarms")
    async with writing(silent, clock) as writer:
        timers = Timers(silent, writer, [ALARM], clock=clock, actor="tests")
        running = asyncio.create_task(timers.run())
        await asyncio.sleep(4)
        assert timers.problem is None
        await asyncio.sleep(2)
        assert str(timers.problem).startswith("log alarms has not told for 5 s which timers are due")
        silent.free.set()
        await until(lambda: timers.problem is None)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
