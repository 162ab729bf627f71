"""Rows of views as they were: folded from the log of their stream, from the nearest kept row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from structlog.testing import capture_logs

from twinlog import Log, Metadata, Recorded, Schema, StreamId, View
from twinlog.log import past_rows
from twinlog.log.history import History, LogHistory
from twinlog.log.past import KeepsRows, Moment, RowKey
from twinlog.log.past_rows import PastRows
from twinlog.memory.log import MemoryLog
from twinlog.model.errors import StreamUnreadable
from twinlog.model.event import NewEvent
from twinlog.testing.internals import Batch, RandomIds

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
STREAM = StreamId("counter", "a")
KEY = RowKey("counts", "counters", str(STREAM))


class Row(NamedTuple):
    """How far it has counted, and when."""

    id: str
    counted: int
    at: datetime


def evolve(row: Row | None, event: Recorded, message: Any) -> Row:
    return Row(event.stream.id, (row.counted if row else 0) + message.value, event.recorded_at)


COUNTS = View("counts", lambda event, _message: event.stream.id, evolve, events=[Int64Value])


class Watched(LogHistory):
    """A history that counts the events it gives."""

    given = 0

    async def events(
        self, stream: StreamId, moment: Moment, after: int = 0, after_id: UUID | None = None
    ) -> AsyncIterator[Sequence[Recorded]]:
        async for events in super().events(stream, moment, after, after_id):
            self.given += len(events)
            yield events


@pytest.fixture(autouse=True)
def kept_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_rows, "KEEP_EVERY", 10)


@pytest.fixture
async def source() -> MemoryLog:
    """The log of another service, with 35 events of a counter, a second apart."""
    log = MemoryLog("counters")
    await append(log, 35)
    return log


async def append(log: MemoryLog, count: int) -> None:
    for version in range(len(log.events) + 1, len(log.events) + count + 1):
        event = NewEvent.of(STREAM, version, RandomIds().uuid7(), Int64Value(value=1), Metadata(), "one")
        await log.append(Batch(BEGAN + timedelta(seconds=version), {STREAM: version - 1}, [event]))


class Reading:
    """A read side whose rows are kept in ``log``."""

    def __init__(self, source: MemoryLog, store: Log) -> None:
        self.history = Watched(source)
        self.rows = PastRows(self._of, store, Schema())

    async def _of(self, log: str) -> History:
        assert log == "counters"
        return self.history

    async def count(self, upto: Moment, of: type = Row) -> int | None:
        """What the row had counted to; ``history.given`` then is how many events that took."""
        self.history.given = 0
        found = await self.rows.row(COUNTS, of, "counters", STREAM, STREAM.id, upto)
        assert found.row is None or (found.version, found.position) == (found.row.counted, found.row.counted)
        return found.row.counted if found.row else None


async def test_a_row_is_folded_from_the_nearest_kept_one(source: MemoryLog, log: Log) -> None:
    reading = Reading(source, log)
    assert await reading.count(Moment()) == 35
    assert reading.history.given == 35
    for moment, count, given in (
        (Moment(), 35, 5),
        (Moment(version=20), 20, 0),
        (Moment(version=19), 19, 9),
        (Moment(position=31), 31, 1),
        (Moment(time=BEGAN + timedelta(seconds=25.5)), 25, 5),
        (Moment(time=BEGAN), None, 0),
    ):
        assert await reading.count(moment) == count
        assert reading.history.given == given, moment
    assert isinstance(log, KeepsRows)
    assert await log.drop_rows("counts", "counter/b") == 0
    assert await log.drop_rows("counts") == 3


async def test_one_that_is_damaged_or_of_another_history_is_made_anew(source: MemoryLog, log: Log) -> None:
    reading = Reading(source, log)
    await reading.count(Moment())
    assert isinstance(log, KeepsRows)
    kept = await log.nearest_row(KEY, await schema(reading), Moment())
    assert kept is not None
    assert kept.version == 30
    for wrong in (
        replace_row(kept, row=b"garbage"),
        replace_row(kept, row=b'["a"]'),
        replace_row(kept, event_id=RandomIds().uuid7()),
    ):
        await log.keep_row(KEY, wrong)
        assert await reading.count(Moment(version=31)) == 31
        assert reading.history.given == 31
        assert await reading.count(Moment(version=31)) == 31
        assert reading.history.given == 1, "it is sound again"


def replace_row(kept: Any, **changed: Any) -> Any:
    return kept._replace(**changed)


async def schema(reading: Reading) -> str:
    codec = reading.rows._codec(COUNTS, Row)
    assert codec is not None
    return reading.rows._marked(codec)


async def test_rows_that_cannot_be_written_are_folded_from_the_first_event(
    source: MemoryLog, log: Log
) -> None:
    class Odd:
        """No class that pydantic understands."""

    reading = Reading(source, log)
    with capture_logs() as said:
        assert await reading.count(Moment(version=31), Odd) == 31
        assert await reading.count(Moment(version=31), Odd) == 31
    assert [line["event"] for line in said] == ["rows.not_kept"]
    assert reading.history.given == 31


async def test_an_event_that_cannot_be_read_is_named() -> None:
    log = MemoryLog("counters")
    event = NewEvent.of(STREAM, 1, RandomIds().uuid7(), StringValue(value="x"), Metadata(), "one")
    await log.append(Batch(BEGAN, {STREAM: 0}, [event]))
    every = replace(COUNTS, events=[StringValue])
    reading = Reading(log, MemoryLog("views"))
    with pytest.raises(StreamUnreadable, match="view counts fails over"):
        await reading.rows.row(every, Row, "counters", STREAM, STREAM.id, Moment())
