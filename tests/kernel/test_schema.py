"""Events that older versions wrote: whatever decodes them sees what they mean today."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int32Value, Int64Value, StringValue, UInt32Value

from tests.dead_letters.journal import JOURNAL, OPERATOR, Write, dead_lettering, journal
from tests.waiting import until
from twinlog import Metadata, Policies, Projection, Recorded, Schema, StreamId, View, Writer, on
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.policies import PolicyConsumer
from twinlog.log.units import Outcome
from twinlog.model.errors import UndecodableEvent, UnknownEventType
from twinlog.model.schema import UpcasterCycle
from twinlog.testing import START, MemoryLog, MemoryTwin, MemoryViews
from twinlog.testing.internals import Batch, Cursor, NewEvent, RandomIds, SystemClock

SCHEMA = Schema(
    {
        Int32Value: (lambda old: [Int64Value(value=old.value)], [Int64Value]),
        UInt32Value: (lambda old: [Int32Value(value=old.value)], [Int32Value]),
        StringValue: (lambda old: [Int64Value(value=int(part)) for part in old.value.split()], [Int64Value]),
        Empty: (lambda _old: [Int64Value(value=1)], [Int64Value]),
    }
)
STREAM = StreamId("journal", "a")


class Old(NamedTuple):
    """An event of an older version, and the values that it means today."""

    message: Message
    values: tuple[int, ...]


OLD = {
    "renamed": Old(Int32Value(value=7), (7,)),
    "renamed twice": Old(UInt32Value(value=8), (8,)),
    "split": Old(StringValue(value="3 4"), (3, 4)),
    "default": Old(Empty(), (1,)),
}
old_events = pytest.mark.parametrize("old", OLD.values(), ids=OLD.keys())


def event(version: int, message: Message) -> NewEvent:
    return NewEvent.of(STREAM, version, UUID(int=version), message, Metadata(), "a")


def recorded(position: int, message: Message) -> Recorded:
    return Recorded("source", position, *event(position, message), START)


@asynccontextmanager
async def writing(log: MemoryLog) -> AsyncIterator[Writer]:
    async with Writer(log, schema=SCHEMA, clock=SystemClock(), ids=RandomIds()) as writer:
        yield writer


@asynccontextmanager
async def deciding(log: MemoryLog, bears: Sequence[int] = range(100)) -> AsyncIterator[DeadLettering]:
    """A policy that writes down what the events say, and fails on values that it cannot bear."""

    def rule(said: Int64Value) -> object:
        return on(JOURNAL, "a").do(Write(bears[bears.index(said.value)]))

    table = Policies(log="source", actor="tests", rules={Int64Value: rule})  # type: ignore[dict-item]
    async with writing(log) as writer:
        yield dead_lettering(PolicyConsumer(table, writer, log, SCHEMA), log)


def projecting(store: MemoryViews, bears: Sequence[int] = range(100)) -> DeadLettering:
    view = View(
        "values",
        lambda _event, _message: "a",
        lambda row, _event, said: (*(row or ()), bears[bears.index(said.value)]),
        events=[Message],
    )
    return dead_lettering(Projection("tests.source", [view], store, schema=SCHEMA), store.log)


@old_events
async def test_a_cold_stream_is_folded_through_the_upcasters(old: Old) -> None:
    log = MemoryLog("journals")
    await log.append(Batch(START, {STREAM: 0}, [event(1, old.message), event(2, Int64Value(value=9))]))
    async with writing(log) as writer:
        read: Outcome[object] = await writer.execute(lambda tx: tx.do(JOURNAL, "a", Write(10)))
    assert read.result == JOURNAL.fold([Int64Value(value=value) for value in (*old.values, 9, 10)])
    assert [stored.version for stored in log.events] == [1, 2, 3]


@old_events
async def test_a_policy_is_sent_the_old_event_and_acts_on_the_new_ones(old: Old) -> None:
    log, twin = MemoryLog("journals"), MemoryTwin("source")
    await twin.create(1)
    await twin.publish([recorded(1, old.message), recorded(2, Int64Value(value=9))])
    async with deciding(log) as handler:
        following = asyncio.create_task(Cursor(twin, handler).run())
        await until(lambda: journal(log, "a") == [*old.values, 9])
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@old_events
async def test_a_projection_folds_the_new_events(old: Old) -> None:
    store = MemoryViews()
    await projecting(store).handle([recorded(1, old.message), recorded(2, Int64Value(value=9))], 0)
    assert store.tables["values"]["a"] == (*old.values, 9)


@old_events
async def test_a_replayed_dead_letter_goes_through_the_upcasters(
    old: Old, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinlog.consume.dead_lettering.RETRIES", 0)
    log, store, parked = MemoryLog("journals"), MemoryViews(), recorded(1, old.message)
    async with deciding(log, bears=()) as handler:
        await handler.handle([parked], 0)
        assert (handler.count, journal(log, "a")) == (1, [])
    async with deciding(log) as handler:
        await handler.replay(parked, OPERATOR)
        assert (handler.count, journal(log, "a")) == (0, [*old.values])

    projection = projecting(store, bears=())
    await projection.handle([parked], 0)
    assert (projection.count, store.tables.get("values", {})) == (1, {})
    mended = projecting(store)
    await mended.replay(parked, OPERATOR)
    assert (mended.count, store.tables["values"]["a"]) == (0, old.values)


def test_a_batch_is_decoded_as_its_events_are_one_by_one() -> None:
    messages = [Int64Value(value=1), *(old.message for old in OLD.values()), Int64Value(value=2)]
    events = [recorded(position, message) for position, message in enumerate(messages, 1)]
    assert SCHEMA.decode_all(events) == [
        (each, message) for each in events for message in SCHEMA.decode(each)
    ]


@pytest.mark.parametrize(
    ("change", "error"),
    [({"type": "tests.v1.Unheard"}, UnknownEventType), ({"payload": b"\xff"}, UndecodableEvent)],
)
def test_a_batch_with_an_event_that_cannot_be_read_says_so(
    change: Mapping[str, Any], error: type[Exception]
) -> None:
    sound, bad = recorded(1, Int64Value(value=1)), recorded(2, Int64Value(value=2))._replace(**change)
    with pytest.raises(error) as one:
        SCHEMA.decode(bad)
    with pytest.raises(error, match=re.escape(str(one.value))):
        SCHEMA.decode_all([sound, bad])


def test_a_cycle_is_refused() -> None:
    with pytest.raises(UpcasterCycle, match=r"Upcasting .*Int32Value leads back"):
        Schema(
            {
                Int32Value: (lambda old: [UInt32Value(value=old.value)], [UInt32Value]),
                UInt32Value: (lambda old: [Int32Value(value=old.value)], [Int32Value]),
            }
        )


def test_consumers_are_sent_the_old_types_of_what_they_want() -> None:
    assert SCHEMA.stored_types(["Int64Value"]) == [
        "Int64Value",
        "Int32Value",
        "StringValue",
        "Empty",
        "UInt32Value",
    ]
    assert SCHEMA.stored_types(["BoolValue"]) == ["BoolValue"]
    assert SCHEMA.stored_types([]) == []
