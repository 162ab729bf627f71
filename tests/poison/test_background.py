"""No background task ends for what passes, and none ends unheard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest
from structlog.types import EventDict

from tests.dead_letters.journal import CONSUMER, Source, replica
from tests.kernel.counter import COUNTER, Add, Count
from tests.waiting import until
from twinlog import Schema, StreamId, TwinlogError, Unavailable, Writer
from twinlog.consume import dead_letter_operations, dead_lettering
from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.consume.dead_letters import DeadLetters
from twinlog.log import system, unreadable
from twinlog.log.heads import Heads
from twinlog.log.lineage import Lineage
from twinlog.log.retention import Retention
from twinlog.log.snapshots import EVERY, Snapshots, StateCodec
from twinlog.log.system import StoreClock
from twinlog.log.transaction import Entry
from twinlog.log.twin import TwinDamaged
from twinlog.model.errors import StreamUnreadable
from twinlog.rpc import read_model
from twinlog.testing import START, MemoryLog, MemoryTwin
from twinlog.testing.internals import RandomIds, Snapshot, SystemClock

ERRORS = [Unavailable(), ConnectionError("canceling statement due to lock timeout"), LookupError("a defect")]
STREAM = StreamId(COUNTER.name, "a")


class Breaks:
    """Stands for any port: whatever is asked of it fails once, and then gives one answer."""

    name, connections = "counters", 0

    def __init__(self, error: Exception, answer: object) -> None:
        self._left = [error]
        self._answer = answer
        self.asked = 0

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def asked(*_arguments: object) -> Any:
            if self._left:
                raise self._left.pop()
            self.asked += 1
            return self._answer

        return asked


def task_of(kind: str, port: Any) -> Coroutine[Any, Any, None]:
    match kind:
        case "requests":
            return Retention(port, interval_seconds=0.001).run()
        case "heads":
            return Heads("counters", port, interval_seconds=0.001).run()
        case "clock":
            return StoreClock(port.time, SystemClock()).run()
        case "changes of views":
            return read_model._forget(port, 1.0)
    return Lineage(port, MemoryTwin("counters")).run()


@pytest.mark.parametrize("error", [*ERRORS, TwinDamaged(stream="counters", damage="it is", remedy="mend it")])
@pytest.mark.parametrize(
    ("kind", "answer"),
    [("requests", 0), ("heads", None), ("clock", START), ("lineage", 0), ("changes of views", None)],
)
async def test_no_task_of_a_service_ends_for_what_its_port_raises(
    kind: str, answer: object, error: Exception, monkeypatch: pytest.MonkeyPatch, lines: list[EventDict]
) -> None:
    """It goes on by itself; a defect is logged once, with its traceback."""
    monkeypatch.setattr(system, "MEASURE_EVERY_SECONDS", 0.001)
    monkeypatch.setattr(read_model, "_FORGET_EVERY_SECONDS", 0.001)
    port = Breaks(error, answer)
    running = asyncio.create_task(task_of(kind, port))
    await until(lambda: port.asked > 0 or running.done())
    assert not running.done()
    running.cancel()
    traced = [line for line in lines if isinstance(line.get("exc_info"), Exception)]
    assert len(traced) == (0 if isinstance(error, TwinlogError) else 1)


class Failing(MemoryLog):
    """Its snapshots cannot be saved while there is an error."""

    error: Exception | None = None
    failed = 0

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        if self.error:
            self.failed += 1
            raise self.error
        await super().save(snapshots)


@pytest.mark.parametrize("error", ERRORS)
async def test_snapshots_are_saved_again_after_whatever_went_wrong(
    error: Exception, lines: list[EventDict]
) -> None:
    log = Failing("counters")
    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:

        async def count(number: int) -> None:
            await asyncio.gather(
                *(writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1))) for _ in range(number))
            )

        log.error = error
        await count(EVERY)
        await until(lambda: log.failed == 1)
        await count(EVERY)
        await until(lambda: log.failed == 2)
        log.error = None
        await count(EVERY)
        await until(lambda: STREAM in log.snapshots)
        await until(lambda: writer._snapshots.problem is None)
    assert log.snapshots[STREAM].version == 3 * EVERY
    said = [line["event"] for line in lines if line["event"].startswith("snapshots.")]
    assert said == ["snapshots.failing", "snapshots.saving"]


async def test_a_state_that_cannot_be_encoded_costs_no_other_its_snapshot(
    monkeypatch: pytest.MonkeyPatch, lines: list[EventDict]
) -> None:
    log, encode = MemoryLog("counters"), StateCodec.encode

    def fussy(codec: StateCodec, state: Count) -> bytes:
        if state.value == 2:
            raise ValueError("not a state that can be stored")
        return encode(codec, state)

    monkeypatch.setattr(StateCodec, "encode", fussy)
    snapshots = Snapshots(log, every=1)
    for number in (1, 2, 3):
        stream = StreamId(COUNTER.name, str(number))
        snapshots.offer_all({stream: Entry(COUNTER, Count(number, 1), 1, number, 0)})
    running = asyncio.create_task(snapshots.run())
    await until(lambda: {stream.id for stream in log.snapshots} == {"1", "3"})
    assert not running.done()
    running.cancel()
    assert [line["stream"] for line in lines if line["event"] == "snapshot.not_encoded"] == ["counter/2"]


async def test_what_waits_for_its_snapshot_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlog.log.snapshots._MOST_WAITING", 3)
    snapshots = Snapshots(MemoryLog("counters"), every=1)
    for number in range(10):
        stream = StreamId(COUNTER.name, str(number))
        snapshots.offer_all({stream: Entry(COUNTER, Count(1, 1), 1, number, 0)})
    assert [stream.id for stream in snapshots._waiting] == ["7", "8", "9"]


@pytest.mark.parametrize("error", ERRORS)
async def test_dead_letters_are_counted_whatever_went_wrong(
    error: Exception, monkeypatch: pytest.MonkeyPatch, lines: list[EventDict]
) -> None:
    """One consumer's trouble hides no other's count, and ends nothing."""
    monkeypatch.setattr(dead_letter_operations, "_LOOK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(dead_lettering, "RETRY_FIRST_SECONDS", 0.0)
    source, other, log = Source(), Source(), MemoryLog("own")
    source.poison = {"a:1"}
    async with replica(source, log) as sound, replica(other, MemoryLog("other")) as failing:
        failing.name = "tests.failing"
        counted = failing.dead_letters

        async def fails() -> DeadLetters:
            raise error

        monkeypatch.setattr(failing, "dead_letters", fails)
        operations = DeadLetterOperations(log)
        operations.add(failing)
        operations.add(sound)
        running = asyncio.create_task(operations.run())
        await sound.handle(source.add("a:1"), 0)
        await until(lambda: any(line["event"] == "dead_letters" for line in lines))
        assert operations.counts() == {CONSUMER: 1}
        quiet = isinstance(error, Unavailable)
        aside = (
            f"{CONSUMER} has set 1 event aside: twinlog dead-letters list tells why; "
            "what this version cannot read is replayed by itself once one can; "
            "replay the others once that is mended, or discard them"
        )
        uncounted = "" if quiet else f"; the dead letters of tests.failing cannot be counted: {error}"
        assert operations.problem == aside + uncounted
        monkeypatch.setattr(failing, "dead_letters", counted)
        await until(lambda: operations.problem == aside)
        assert not running.done()
        running.cancel()
    said = [line for line in lines if line["event"] == "dead_letters.failing"]
    assert len(said) == (0 if quiet else 1), "once"


@pytest.mark.parametrize("error", ERRORS)
async def test_unreadable_streams_are_tried_again_whatever_went_wrong(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreadable, "_AGAIN_SECONDS", 0.0)
    streams, tried = unreadable.UnreadableStreams(), 0
    at = Entry(COUNTER, Count(), 0, 0, 0)
    why = StreamUnreadable(stream=STREAM, version=1, why="it is poison")
    streams.add(STREAM, unreadable.Unreadable(at, why))

    async def read(refs: object) -> None:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise error
        streams.discard(STREAM)

    running = asyncio.create_task(streams.run(read))
    await until(lambda: streams.problem is None)
    assert not running.done()
    running.cancel()
