"""Spans of appends and publishes where things go wrong: conflicts, outages, twins that are made again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from tests.dead_letters.journal import Source, event
from tests.tracing.receiver import Receiver
from twinlog import Log, Metadata, Recorded, StreamId, Unavailable
from twinlog.log.ports import Appended, Batch, Conflict
from twinlog.log.twin import Counting, WrongLastSequence
from twinlog.model.event import NewEvent
from twinlog.observe.tracing_spans import APART
from twinlog.testing import START, ManualClock, MemoryLog, MemoryTwin

SPAN_ID = "00f067aa0ba902b7"
FIRST, SECOND = "1" * 32, "2" * 32
STREAM = StreamId("journal", "a")


@pytest.fixture
def traces() -> Receiver:
    return Receiver()


def new_event(version: int, trace_id: str = FIRST) -> NewEvent:
    metadata = Metadata("correlation", "rpc/Say", f"00-{trace_id}-{SPAN_ID}-01", "client")
    return NewEvent.of(STREAM, version, UUID(int=version), Int64Value(value=version), metadata, "a")


def batch(*events: NewEvent, expected: int = 0) -> Batch:
    return Batch(START, {STREAM: expected}, events)


def recorded(*trace_ids: str) -> Sequence[Recorded]:
    events = [event(position, "a:1") for position in range(1, len(trace_ids) + 1)]
    return [
        each._replace(metadata=each.metadata._replace(traceparent=f"00-{trace_id}-{SPAN_ID}-01"))
        for each, trace_id in zip(events, trace_ids, strict=True)
    ]


def traced_log(traces: Receiver, log: Log) -> Log:
    return traces.tracing("tests", ManualClock()).log(log)


async def test_an_append_says_where_each_commands_events_are(traces: Receiver) -> None:
    log = traced_log(traces, MemoryLog("log"))
    events = [new_event(1), new_event(2, SECOND), new_event(3, SECOND)]
    assert isinstance(await log.append(batch(*events)), Appended)
    assert [(span.trace_id, span.attributes["twinlog.position"]) for span in traces.spans] == [
        (FIRST, 1),
        (SECOND, 2),
    ]
    assert await log.head() == 3  # everything else is the log's own


async def test_a_conflict_is_told(traces: Receiver) -> None:
    log = traced_log(traces, MemoryLog("log"))
    assert isinstance(await log.append(batch(new_event(1), expected=7)), Conflict)
    [span] = traces.spans
    assert span.attributes["twinlog.conflict"]
    assert not span.failed


async def test_an_exclusive_append_has_a_span_as_well(traces: Receiver) -> None:
    async with traced_log(traces, MemoryLog("log")).exclusive() as session:
        await session.append(batch(new_event(1)))
    [span] = traces.spans
    assert (span.name, span.trace_id, span.parent_id) == ("append log", FIRST, SPAN_ID)


async def test_an_outage_is_the_spans_error(traces: Receiver) -> None:
    class Away(MemoryLog):
        async def append(self, batch: Batch) -> Appended | Conflict:
            raise Unavailable("no route")

    with pytest.raises(Unavailable):
        await traced_log(traces, Away("log")).append(batch(new_event(1)))
    [span] = traces.spans
    assert (span.failed, span.attributes["error.type"]) == (True, "Unavailable")


async def test_a_publish_that_is_refused_is_the_spans_error(traces: Receiver) -> None:
    twin = traces.tracing("tests", ManualClock()).twin(MemoryTwin("source"))
    await twin.create(1)
    with pytest.raises(WrongLastSequence):
        await twin.publish(recorded(FIRST, SECOND)[1:])
    [span] = traces.spans
    assert (span.failed, span.attributes["error.type"]) == (True, "WrongLastSequence")


async def test_a_twin_that_is_made_again_is_one_span_a_batch(traces: Receiver) -> None:
    twin = traces.tracing("tests", ManualClock(START + APART)).twin(MemoryTwin("source"))
    await twin.create(1)
    *old, new = recorded(FIRST, SECOND, FIRST, "3" * 32)
    await twin.publish([*old, new._replace(recorded_at=START + timedelta(seconds=59))])
    late, fresh = traces.spans
    assert (late.parent_id, late.linked) == ("", [(FIRST, SPAN_ID), (SECOND, SPAN_ID)])
    assert (fresh.trace_id, fresh.parent_id) == ("3" * 32, SPAN_ID)
    assert {span.attributes["messaging.batch.message_count"] for span in traces.spans} == {4}
    assert (await twin.state()).last == 4


async def test_what_is_not_sampled_goes_through(traces: Receiver) -> None:
    twin = traces.tracing("tests", ManualClock()).twin(MemoryTwin("source"))
    await twin.create(1)
    await twin.publish(Source().add("a:1", "b:2"))
    assert not traces.spans
    assert isinstance(twin, Counting) is isinstance(MemoryTwin("source"), Counting)
