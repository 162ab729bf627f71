"""Spans of events that a consumer handles: each try, each replay, and what rows and log lines see of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

import pytest
import structlog
from google.protobuf.wrappers_pb2 import StringValue
from structlog.contextvars import get_contextvars, merge_contextvars
from structlog.testing import LogCapture

from tests.dead_letters.journal import JOURNAL, OPERATOR, Source, Write, journal
from tests.memory_shop import NoContext
from tests.tracing.receiver import Receiver
from twinlog import Attempt, Clock, Effects, Policies, Projection, Recorded, Schema, View, Writer, on
from twinlog.consume import Consumer, dead_lettering
from twinlog.consume.consumer import Progress
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.effects import EffectConsumer
from twinlog.consume.logged import Logged
from twinlog.consume.policies import PolicyConsumer
from twinlog.log.ports import CheckpointAdvance
from twinlog.observe.tracing_spans import APART
from twinlog.rpc import Method
from twinlog.testing import ManualClock, MemoryLog, MemoryViews
from twinlog.testing.internals import RandomIds

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACE = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture
def traces() -> Receiver:
    return Receiver()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_lettering, "RETRY_FIRST_SECONDS", 0.0)


@pytest.fixture
def lines() -> Iterator[LogCapture]:
    """What is logged, as the process's logging gets it."""
    captured = LogCapture()
    structlog.configure(processors=[merge_contextvars, captured])
    yield captured


def traced(source: Source, *texts: str) -> Sequence[Recorded]:
    """Events of a sampled call."""
    return [
        event._replace(metadata=event.metadata._replace(traceparent=TRACE)) for event in source.add(*texts)
    ]


def wrapped(consumer: Consumer, traces: Receiver, clock: Clock) -> Consumer:
    [put_around] = traces.tracing("tests", clock).consumers(Schema())
    return Logged(put_around(consumer))


@asynccontextmanager
async def replica(
    policies: Policies, log: MemoryLog, traces: Receiver, clock: Clock
) -> AsyncIterator[DeadLettering]:
    ids, schema = RandomIds(), Schema()
    async with Writer(log, schema=schema, clock=clock, ids=ids) as writer:
        consumer = wrapped(PolicyConsumer(policies, writer, log, schema), traces, clock)
        yield DeadLettering(consumer, log, clock=clock, ids=ids, schema=schema)


async def test_each_try_has_a_span(traces: Receiver, clock: ManualClock, lines: LogCapture) -> None:
    log, source = MemoryLog("log"), Source()
    source.poison.add("a:1")
    async with replica(source.policies(), log, traces, clock) as consumer:
        await consumer.handle(traced(source, "a:1", "b:2"), 0)
    failed = [span for span in traces.trace(TRACE_ID) if span.failed]
    assert len(failed) >= 1 + dead_lettering.RETRIES
    assert {span.attributes["error.type"] for span in failed} == {"Broken"}
    [handled] = [span for span in traces.trace(TRACE_ID) if not span.failed]
    assert handled.attributes["messaging.message.id"] == "source/2"
    [parked] = [line for line in lines.entries if line["event"] == "dead_letter.parked"]
    assert (parked["trace_id"], parked["correlation_id"]) == (TRACE_ID, "correlation")


async def test_a_replay_says_so_and_is_linked(traces: Receiver, clock: ManualClock) -> None:
    log, source = MemoryLog("log"), Source()
    source.poison.add("a:1")
    [event] = traced(source, "a:1")
    async with replica(source.policies(), log, traces, clock) as consumer:
        await consumer.handle([event], 0)
        source.poison.clear()
        clock.advance(APART)
        await consumer.replay(event, OPERATOR)
    assert journal(log, "a") == [1]
    replay = traces.spans[-1]
    assert replay.attributes["twinlog.replay"]
    assert (replay.parent_id, replay.linked) == ("", [(TRACE_ID, SPAN_ID)])
    assert not any("twinlog.replay" in span.attributes for span in traces.trace(TRACE_ID))


async def test_a_late_replay_is_in_the_trace_of_the_operators_call(
    traces: Receiver, clock: ManualClock
) -> None:
    log, source = MemoryLog("log"), Source()
    source.poison.add("a:1")
    [event] = traced(source, "a:1")
    async with replica(source.policies(), log, traces, clock) as consumer:
        await consumer.handle([event], 0)
        source.poison.clear()
        clock.advance(APART)

        async def replay(_request: object, _context: object) -> None:
            await consumer.replay(event, OPERATOR)

        [around] = traces.tracing("tests", clock).methods()
        await around(Method("twinlog.v1.DeadLetterService/Replay", False), replay)(None, NoContext())
    replayed, call = traces.spans[-1], traces.spans[-2]
    assert call.kind == "SERVER"
    assert (replayed.trace_id, replayed.parent_id) == (call.trace_id, call.span_id)
    assert replayed.linked == [(TRACE_ID, SPAN_ID)]


async def test_an_event_that_cannot_be_read_has_a_span(traces: Receiver, clock: ManualClock) -> None:
    source = Source()
    [event] = traced(source, "a:1")
    async with replica(source.policies(), MemoryLog("log"), traces, clock) as consumer:
        await consumer.handle([event._replace(payload=b"\xff")], 0)
    assert {span.attributes.get("error.type") for span in traces.spans} == {"UndecodableEvent"}


async def test_what_calls_for_nothing_has_no_span(traces: Receiver, clock: ManualClock) -> None:
    def rule(event: StringValue) -> object:
        return on(JOURNAL, "a").do(Write(1)) if event.value == "a:1" else None

    policies = Policies(log="source", actor="tests", rules={StringValue: rule})  # type: ignore[dict-item]
    async with replica(policies, MemoryLog("log"), traces, clock) as consumer:
        await consumer.handle(traced(Source(), "a:0", "a:1", "a:2"), 0)
    assert [span.attributes["messaging.message.id"] for span in traces.spans] == ["source/2"]


async def test_what_an_event_causes_is_part_of_its_span(traces: Receiver, clock: ManualClock) -> None:
    log, source = MemoryLog("log"), Source()
    untraced = source.add("a:1")
    async with replica(source.policies(), log, traces, clock) as consumer:
        await consumer.handle([*untraced, *traced(source, "a:2")], 0)
    [span] = traces.spans
    without, within = await log.read(0, 10)
    assert without.metadata.traceparent == ""
    assert within.metadata.traceparent == f"00-{TRACE_ID}-{span.span_id}-{within.metadata.traceparent[-2:]}"
    assert within.metadata.causation_id == "source/2"


class Row(NamedTuple):
    key: str
    trace: str
    updated_at: datetime


async def test_rows_see_the_trace_that_the_log_has(traces: Receiver, clock: ManualClock) -> None:
    view = View(
        "journal",
        lambda event, _message: event.partition_key,
        lambda _row, event, _message: Row(event.partition_key, event.metadata.traceparent, event.recorded_at),
    )
    store = MemoryViews(MemoryLog("log"))
    projection = Projection("tests.source", [view], store, schema=Schema())
    consumer = wrapped(projection, traces, clock)
    events = traced(Source(), "a:1", "b:2")
    advance = CheckpointAdvance("tests.source", 0, 2)
    assert await consumer.apply(events, Progress("tests.source", advance, clock, RandomIds())) == 2
    rows = await store.rows(view, ["a", "b"])
    assert {row.trace for row in rows.values()} == {TRACE}
    assert len(traces.trace(TRACE_ID)) == 2


async def test_what_an_effect_logs_carries_the_ids_of_its_event(
    traces: Receiver, clock: ManualClock, lines: LogCapture
) -> None:
    async def note(event: StringValue, attempt: Attempt) -> None:
        structlog.get_logger().info("noted", text=event.value)

    table = Effects(log="source", actor="tests", name="notes", rules={StringValue: note})
    log, schema, source = MemoryLog("log"), Schema(), Source()
    events = [*source.add("a:1"), *traced(source, "b:2")]
    async with Writer(log, schema=schema, clock=clock, ids=RandomIds()) as writer:
        consumer = wrapped(EffectConsumer(table, writer, log, schema), traces, clock)
        advance = CheckpointAdvance(consumer.name, 0, 2)
        await consumer.apply(events, Progress(consumer.name, advance, clock, RandomIds()))
    [span] = traces.spans
    by_text = {line["text"]: line for line in lines.entries if line["event"] == "noted"}
    assert by_text["a:1"]["correlation_id"] == by_text["b:2"]["correlation_id"] == "correlation"
    assert "trace_id" not in by_text["a:1"]
    assert (by_text["b:2"]["trace_id"], by_text["b:2"]["span_id"]) == (TRACE_ID, span.span_id)
    assert not get_contextvars()
