"""Traces that are on: spans around a service's parts, in the traces of the sampled commands that they work for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import cast

from opentelemetry.trace import SpanKind

from twinlog.consume import Middleware
from twinlog.log.ports import Appended, Batch, Conflict, Log, LogSession, Timer
from twinlog.log.timers import Causes
from twinlog.log.twin import Twin
from twinlog.model.clock import Clock
from twinlog.model.event import NewEvent, Recorded
from twinlog.model.schema import Schema
from twinlog.model.trace import SAMPLED
from twinlog.observe.tracing import Tracing
from twinlog.observe.tracing_consumer import TracedConsumer
from twinlog.observe.tracing_kept import KeptSpan
from twinlog.observe.tracing_rpc import TracedMethods
from twinlog.observe.tracing_spans import Attributes, Spans, Tracer, ending
from twinlog.observe.wrapper import Wrapper
from twinlog.rpc import Middleware as RpcMiddleware


class TracingOn(Tracing):
    """Puts spans around a service's parts."""

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._spans = Spans(tracer, clock)

    def methods(self) -> Sequence[RpcMiddleware]:
        return [TracedMethods(self._spans)]

    def consumers(self, schema: Schema) -> Sequence[Middleware]:
        return [lambda consumer: TracedConsumer(consumer, schema, self._spans)]

    def log(self, log: Log) -> Log:
        return cast(Log, _TracedLog(log, log.name, self._spans))

    def twin(self, twin: Twin) -> Twin:
        return cast(Twin, _TracedTwin(twin, self._spans))

    @contextmanager
    def timers(self, causes: Causes) -> Iterator[Mapping[Timer, str]]:
        begun = {
            timer: _begun(timer, event, self._spans)
            for timer, event in causes.items()
            if event.metadata.traceparent[-1:] in SAMPLED
        }
        with ending(begun.values()):
            yield {timer: span.traceparent for timer, span in begun.items()}


def _begun(timer: Timer, event: Recorded, spans: Spans) -> KeptSpan:
    """The span of a timer that fires because of an event."""
    name, trace = f"timer {timer.stream.type}", event.metadata.traceparent
    said = {
        "twinlog.stream": str(timer.stream),
        "twinlog.event.address": event.address,
        "twinlog.correlation_id": event.metadata.correlation_id,
        "twinlog.due": timer.due.isoformat(),
    }
    if spans.long_ago(event.recorded_at):
        return spans.linked([trace], name, SpanKind.INTERNAL, said)
    return spans.child(trace, name, SpanKind.INTERNAL, said)


class _TracedTwin(Wrapper):
    """A span for each publish of the relay, in the trace of each command whose events it copies."""

    _inner: Twin

    def __init__(self, inner: Twin, spans: Spans) -> None:
        super().__init__(inner)
        self._spans = spans

    async def publish(self, events: Sequence[Recorded]) -> None:
        traced = [event for event in events if event.metadata.traceparent[-1:] in SAMPLED]
        if not traced:
            return await self._inner.publish(events)
        fresh: dict[str, list[Recorded]] = {}
        late: dict[str, list[Recorded]] = {}
        for event in traced:
            group = late if self._spans.long_ago(event.recorded_at) else fresh
            group.setdefault(event.metadata.traceparent, []).append(event)
        name = f"publish {self._inner.name}"
        with ExitStack() as spans:
            if late:  # a stream that is made again: what it held may be many events
                span = self._spans.linked([*late], name, SpanKind.PRODUCER, self._common(len(events)))
                spans.enter_context(ending([span]))
            said = {traceparent: self._said_of(group, len(events)) for traceparent, group in fresh.items()}
            spans.enter_context(self._spans.together(name, SpanKind.PRODUCER, said))
            return await self._inner.publish(events)

    def _said_of(self, events: Sequence[Recorded], batch: int) -> Attributes:
        return {
            **self._common(batch),
            "twinlog.correlation_id": events[0].metadata.correlation_id,
            "twinlog.event.types": [event.type.rpartition(".")[2] for event in events],
            "twinlog.position": events[0].position,
        }

    def _common(self, batch: int) -> Mapping[str, str | int]:
        return {
            "messaging.system": "nats",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": self._inner.name,
            "messaging.batch.message_count": batch,
        }


class _TracedSession(Wrapper):
    """A span for each append, in the trace of each command whose events it commits."""

    _inner: LogSession

    def __init__(self, inner: LogSession, name: str, spans: Spans) -> None:
        super().__init__(inner)
        self._name = name
        self._spans = spans

    async def append(self, batch: Batch) -> Appended | Conflict:
        parts = _by_trace(batch.events)
        if not parts:
            return await self._inner.append(batch)
        said = {
            traceparent: self._said_of(batch, [event for _, event in events])
            for traceparent, events in parts.items()
        }
        with self._spans.together(f"append {self._name}", SpanKind.CLIENT, said) as spans:
            result = await self._inner.append(batch)
            for traceparent, span in spans.items():
                if isinstance(result, Appended):
                    first, _ = parts[traceparent][0]
                    span.set_attribute("twinlog.position", result.first + first)
                else:
                    span.set_attribute("twinlog.conflict", True)
        return result

    def _said_of(self, batch: Batch, events: Sequence[NewEvent]) -> Attributes:
        return {
            "db.system.name": "postgresql",
            "db.operation.name": "append",
            "db.operation.batch.size": len(batch.events),
            "twinlog.log": self._name,
            "twinlog.correlation_id": events[0].metadata.correlation_id,
            "twinlog.event.types": [event.type.rpartition(".")[2] for event in events],
        }


class _TracedLog(_TracedSession):
    _inner: Log

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[LogSession]:
        async with self._inner.exclusive() as session:
            yield cast(LogSession, _TracedSession(session, self._name, self._spans))


def _by_trace(events: Sequence[NewEvent]) -> Mapping[str, Sequence[tuple[int, NewEvent]]]:
    """The events of each sampled command, each with its place in the batch, from 0."""
    found: dict[str, list[tuple[int, NewEvent]]] = {}
    for index, event in enumerate(events):
        if event.metadata.traceparent[-1:] in SAMPLED:
            found.setdefault(event.metadata.traceparent, []).append((index, event))
    return found
