"""All that a process writes, says and shows while a person is created, changed, not handled and erased."""

from __future__ import annotations

import asyncio
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from tests.erasure.guests import GUEST, ROOM, Book, Guest, M, Name
from tests.erasure.messages import declare
from tests.memory_service import memory_service
from tests.waiting import until
from twinlog import (
    Effects,
    FailedPrecondition,
    Policies,
    Saga,
    Schema,
    Service,
    Step,
    StreamId,
    Transaction,
    Upcast,
    saga_aggregate,
)
from twinlog.log.personal import SEALED_STATE, Personal
from twinlog.log.ports import Snapshot
from twinlog.log.snapshots import StateCodec, StateCodecs
from twinlog.memory.keys import MemoryKeys
from twinlog.model.errors import StreamUnreadable
from twinlog.model.personal import ERASED, HOLDING, has_own
from twinlog.observe.tracing import tracing
from twinlog.observe.tracing_export import tracer_of
from twinlog.rpc.errors import failure_of
from twinlog.service.dump import Dump
from twinlog.service.dumped import parts_of
from twinlog.service.logging import configure_logging
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.internals import SystemClock

NAME = "Zephyrine"
ADA = StreamId("guest", "ada")
declare(
    "tests.emitted.v1",
    services={"Guests": [("Register", "RegisterRequest", "Nothing"), ("Get", "Nothing", "Shown")]},
    RegisterRequest=[("name", "personal")],
    Shown=[("name", "personal")],
    Nothing=[("id", "text")],
)


class _Full(FailedPrecondition):
    """The house is full."""


@dataclass
class _Emitted(SpanExporter):
    """What a process has said so far."""

    said: io.StringIO = field(default_factory=io.StringIO)
    spans: list[bytes] = field(default_factory=list)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans.append(encode_spans(spans).SerializeToString())
        return SpanExportResult.SUCCESS

    def process(self, log: MemoryLog, twin: MemoryTwin, keys: MemoryKeys, **more: Any) -> Service:
        traced = tracing(
            tracer_of(SimpleSpanProcessor(self), Resource({"service.name": "hotel"})), SystemClock()
        )
        parts = {"aggregates": [GUEST, ROOM], "keys": keys, "tracing": traced, **more}
        return memory_service("hotel", log, lambda _of: twin, **parts)

    def everything(self, *more: object) -> str:
        return "\n".join([self.said.getvalue(), *map(repr, self.spans), *map(repr, more)])


def _failing(raised: Callable[[str], Exception]) -> Callable[..., Any]:
    """A function of the user's that fails, and quotes whom it is about."""

    def fail(event: Any, *_more: Any) -> Any:
        told = getattr(event, "trigger", event)
        name = getattr(told, "name", "") or told.guest_name
        try:
            raise ValueError(name)
        except ValueError as error:
            raise raised(name) from error

    return fail


async def _call(event: Any, _attempt: Any) -> None:
    _failing(ConnectionError)(event)


def _consumers() -> Sequence[Any]:
    welcome = Saga(
        "welcome",
        1,
        M["RoomBooked"],
        [Step("greet", _failing(ValueError), done=M["Noted"])],
        partition_key=lambda _event: "one",
        id=lambda _event: "one",
        sources={"guests": [M["RoomBooked"], M["Noted"]]},
    )
    named = _failing(lambda _name: _Full())
    return [
        saga_aggregate(welcome),
        Effects("guests", "hotel", "mail", {M["GuestNamed"]: _call}),
        Policies(log="guests", actor="hotel", rules={M["GuestNamed"]: named}),
    ]


async def _refused(service: Service, name: str) -> None:
    with pytest.raises(StreamUnreadable, match="whose text is left out"):
        await service.writer.execute(lambda tx: tx.do(GUEST, "ada", Name(name)))


def _quoting(tx: Transaction) -> None:
    raise ValueError(tx.state(GUEST, "ada").name)


async def test_nothing_that_a_process_emits_has_a_personal_text() -> None:
    """Logs, traces, health, dumps, warnings, answers, dead letters and everything else that is stored."""
    HOLDING.clear()
    assert has_own(M["GuestNamed"].DESCRIPTOR.full_name), "a process finds its types at the start"
    emitted, keys, log, twin = _Emitted(), MemoryKeys(), MemoryLog("guests"), MemoryTwin("guests")
    configure_logging("debug", "json", emitted.said)
    [saga, *others] = _consumers()
    shown: list[object] = []
    await twin.create(1)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        first = emitted.process(log, twin, keys, aggregates=[GUEST, ROOM, saga])
        async with asyncio.timeout(60), first.running():
            await _refused(first, f"!{NAME}")  # before the process has seen that guests hold anything
            await first.writer.execute(lambda tx: tx.do(GUEST, "ada", Name(NAME)))
            await first.writer.execute(lambda tx: tx.do(ROOM, "101", Book("ada", NAME)))
            first.subscribe(saga, *others)
            await until(lambda: len(first.dead_letters.counts()) == 2)
            await until(lambda: bool(first.signals["effects-mail"].problem))
            gone = asyncio.create_task(first.writer.execute(_quoting))
            await asyncio.sleep(0)
            gone.cancel()  # nobody waits for what it raises
            await _refused(first, f"!{NAME}")
            shown += [each.problem for each in first.signals.values()]
            dump = Dump()
            dump.add(lambda: parts_of(first))
            shown += dump.lines()

        schema = StateCodecs().schema(GUEST) + SEALED_STATE
        unfit = Snapshot(ADA, 1, 1, schema, f'{{"name": "", "named": "{NAME}"}}'.encode())
        await log.save(await Personal(keys).sealed_states([unfit]))
        StateCodec(GUEST).encode(Guest(NAME, NAME))  # type: ignore[arg-type]
        second = emitted.process(log, twin, keys)
        async with second.running():
            assert (await second.writer.execute(lambda tx: tx.state(GUEST, "ada"))).result.name == NAME
        upcast = Upcast.split(M["GuestNamed"], [M["Noted"]], _failing(ValueError))
        third = emitted.process(log, twin, keys, schema=Schema([upcast]))
        async with third.running():
            with pytest.raises(StreamUnreadable, match="whose text is left out"):
                await third.writer.execute(lambda tx: tx.state(GUEST, "ada"))
            await third.personal.erase("ada")
        last = emitted.process(log, twin, keys)
        async with last.running():
            assert (await last.writer.execute(lambda tx: tx.state(GUEST, "ada"))).result.name == ERASED
            await _refused(last, "!")

        for method in ("Register", "Get"):
            for error in (ValueError(NAME), _Full()):
                error.__cause__ = ValueError(NAME)
                shown.append(failure_of(error, f"tests.emitted.v1.Guests/{method}", "hotel"))
    shown += [str(each.message) for each in warned]
    everything = emitted.everything(shown, vars(log), vars(twin))
    for what in ("snapshot.ignored", "stream.unreadable", "dead_letter.parked", "rpc.failed", "EventParked"):
        assert what in everything
    assert [line for line in everything.splitlines() if NAME in line] == []
