"""Whatever a function of the domain raises concerns that alone for which it was called."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from pydantic import PlainSerializer
from structlog.types import EventDict

from tests.dead_letters.journal import CONSUMER, JOURNAL, OPERATOR, Source, Write, dead_lettering, positions
from tests.kernel.counter import ALARM, COUNTER, Add, Alarm, Count, Set
from tests.kernel.edge import serving
from tests.kernel.test_rpc_errors import raising, watched
from tests.poison.kinds import patched
from tests.poison.test_streams import writing
from twinlog import Effects, Projection, Schema, StreamId, Transaction, View, Writer, on
from twinlog.consume import Consumer
from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.consume.effects import EffectConsumer
from twinlog.consume.policies import PolicyConsumer
from twinlog.log.snapshots import ValueCodec
from twinlog.log.timers import Timers
from twinlog.log.units import Outcome
from twinlog.model.errors import StreamUnreadable, UpcasterFailed, defect, named
from twinlog.testing import START, ManualClock, MemoryLog, MemoryViews
from twinlog.testing.internals import RandomIds, Snapshot, StateCodec


class Panic(BaseException):
    """As extensions in Rust raise it."""


class NoText(Exception):
    """Fails to say what is wrong."""

    def __str__(self) -> str:
        raise LookupError("a defect of the defect")


RAISED: dict[str, Callable[[], BaseException]] = {
    "StopIteration": StopIteration,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "cancellation": asyncio.CancelledError,
    "exit": lambda: SystemExit(3),
    "panic": Panic,
    "no text": NoText,
    "no text that can be stored": lambda: ValueError("\ud800 \0"),
    "group": lambda: ExceptionGroup("several", [ValueError("one")]),
}


@pytest.fixture(params=RAISED)
def fails(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A function that raises."""

    def function(*_arguments: object) -> Any:
        raise RAISED[request.param]()

    return function


@pytest.mark.parametrize("function", ["decide", "evolve", "partition_key", "due"])
async def test_of_an_aggregate_it_is_one_streams(function: str, fails: Callable[..., Any]) -> None:
    log = MemoryLog("counters")
    for aggregate in (COUNTER, patched(COUNTER, **{function: fails})):

        def bad(tx: Transaction, aggregate: Any = aggregate) -> Count:
            counted: Count = tx.do(aggregate, "bad", Add(1))
            return counted

        async with asyncio.timeout(60), writing(log) as writer:
            told = await asyncio.gather(
                writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1))),
                writer.execute(bad),
                writer.execute(lambda tx: tx.do(COUNTER, "b", Add(1))),
                return_exceptions=True,
            )
            await writer.execute(lambda tx: tx.do(COUNTER, "c", Add(1)))
    assert isinstance(told[0], Outcome)
    assert isinstance(told[2], Outcome)
    assert isinstance(told[1], StreamUnreadable)
    assert f"{function} fails" in str(told[1]).encode().decode(), "it can be sent"


async def test_of_work_it_is_one_callers(fails: Callable[..., Any]) -> None:
    log = MemoryLog("counters")
    async with asyncio.timeout(60), writing(log) as writer:
        told = await asyncio.gather(
            writer.execute(fails),
            writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1))),
            return_exceptions=True,
        )
    assert isinstance(told[0], Exception)
    assert isinstance(told[1], Outcome)


@pytest.mark.parametrize("function", ["due", "on_due"])
async def test_of_a_wake_up_it_is_one_timers(function: str, fails: Callable[..., Any]) -> None:
    log, clock = MemoryLog("alarms"), ManualClock(START + timedelta(seconds=30))

    def only_bad(state: Alarm, *arguments: object) -> Any:
        whole = getattr(ALARM, function)
        return fails() if state.due == START + timedelta(seconds=1) else whole(state, *arguments)

    async with asyncio.timeout(60), Writer(log, schema=Schema(), clock=clock, ids=RandomIds()) as writer:
        for id, seconds in (("a", 0), ("bad", 1), ("b", 2)):
            due = Set(START + timedelta(seconds=seconds))
            await writer.execute(lambda tx, id=id, due=due: tx.do(ALARM, id, due))  # type: ignore[misc]
        timers = Timers(log, writer, [patched(ALARM, **{function: only_bad})], clock=clock, actor="tests")
        assert await timers.fire() == 2
        assert timers.problem and "alarm/bad" in timers.problem


def consumer(kind: str, read: Callable[[str], tuple[str, int]], writer: Writer, log: MemoryLog) -> Consumer:
    """One whose function reads each event's text."""
    source = Source()
    source.read = read  # type: ignore[method-assign, assignment]
    if kind == "policy":
        return PolicyConsumer(source.policies(), writer, log, Schema())
    if kind == "row":
        return Projection(CONSUMER, [source.view()], MemoryViews(log), schema=Schema())
    if kind == "key":
        view: View[Any] = replace(Source().view(), key=lambda _event, message: read(message.value)[0])
        return Projection(CONSUMER, [view], MemoryViews(log), schema=Schema())

    async def call(event: StringValue, _attempt: object) -> Any:
        key, value = read(event.value)
        return on(JOURNAL, key).do(Write(value))

    effects = Effects("source", "tests", "mail", {StringValue: call}, retries=1, first_wait=timedelta())
    return EffectConsumer(effects, writer, log, Schema())


@pytest.mark.parametrize("kind", ["policy", "key", "row", "effect"])
async def test_of_a_consumer_it_is_one_keys(
    kind: str, fails: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when an operator tries again, and sees what is wrong."""
    monkeypatch.setattr("twinlog.consume.dead_lettering.RETRY_FIRST_SECONDS", 0.0)

    def read(text: str) -> tuple[str, int]:
        if text == "bad:1":
            fails()
        key, value = text.split(":")
        return key, int(value)

    log = MemoryLog("own")
    async with asyncio.timeout(60), writing(log) as writer:
        handler = dead_lettering(consumer(kind, read, writer, log), log)
        assert await handler.handle(Source().add("a:1", "bad:1", "b:1", "bad:2", "a:2"), 0) == 5
        assert positions(await handler.dead_letters()) == {"bad": [2, 4]}
        operations = DeadLetterOperations(log)
        operations.add(handler)
        listed = await operations.listed()
        assert [bool(each.failure) async for each in operations.replay(listed, OPERATOR)] == [True]


def test_of_an_upcaster_it_is_one_events(fails: Callable[..., Any]) -> None:
    [event] = Source().add("a:1")
    with pytest.raises(UpcasterFailed):
        Schema({StringValue: (fails, [Int64Value])}).decode(event)


async def test_of_a_state_it_is_one_snapshots(
    fails: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, lines: list[EventDict]
) -> None:
    log = MemoryLog("counters")
    stream = StreamId(COUNTER.name, "a")
    monkeypatch.setattr(StateCodec, "decode", fails)
    async with asyncio.timeout(60), writing(log) as writer:
        await writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))
    log.snapshots[stream] = Snapshot(stream, 1, 1, StateCodec(COUNTER).schema, b"{}")
    async with asyncio.timeout(60), writing(log) as writer:
        assert (await writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))).result == Count(2, 2)
    assert [line["stream"] for line in lines if line["event"] == "snapshot.ignored"] == [str(stream)]


def test_of_a_field_it_is_an_error_of_the_snapshot_that_is_to_be_made(fails: Callable[..., Any]) -> None:
    written = PlainSerializer(lambda _value: fails(), return_type=int)
    state: Any = dataclass(type("Odd", (), {"__annotations__": {"field": Annotated[int, written]}}))
    codec = ValueCodec(state)
    with pytest.raises(BaseException) as raised:
        codec.encode(state(field=1))
    assert isinstance(raised.value, Exception)


def test_whoever_interrupts_a_program_by_hand_is_heeded() -> None:
    with pytest.raises(KeyboardInterrupt):
        defect(KeyboardInterrupt())


def test_of_a_long_text_as_much_is_told_as_somebody_reads() -> None:
    assert named(ValueError("x" * 2_000)) == f"ValueError: {'x' * 2_000}"
    assert named(ValueError("x" * 2_001)) == f"ValueError: {'x' * 1_999}…"


@pytest.mark.parametrize("raised", RAISED.values(), ids=RAISED)
async def test_of_a_method_it_is_one_calls(raised: Callable[[], BaseException]) -> None:
    async with serving(raising(raised())) as client:
        assert (await client.refusal()).code() == grpc.StatusCode.INTERNAL
        assert (await watched(client))[1].code() == grpc.StatusCode.INTERNAL
