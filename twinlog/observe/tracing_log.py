"""A span for each append, in the trace of each sampled command whose events it commits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import cast

from opentelemetry.trace import SpanKind

from twinlog.log.ports import Appended, Batch, Conflict, Log, LogSession
from twinlog.model.event import NewEvent
from twinlog.model.trace import SAMPLED
from twinlog.observe.tracing_spans import Attributes, Spans
from twinlog.observe.wrapper import Wrapper


def traced_log(log: Log, spans: Spans) -> Log:
    """The log, with spans for its appends."""
    return cast(Log, _TracedLog(log, log.name, spans))


class _TracedSession(Wrapper):
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
    def exclusive(self) -> AbstractAsyncContextManager[LogSession]:
        return self._exclusive(cast(Log, self._inner))

    @asynccontextmanager
    async def _exclusive(self, log: Log) -> AsyncIterator[LogSession]:
        async with log.exclusive() as session:
            yield cast(LogSession, _TracedSession(session, self._name, self._spans))


def _by_trace(events: Sequence[NewEvent]) -> Mapping[str, Sequence[tuple[int, NewEvent]]]:
    """The events of each sampled command, each with its place in the batch, from 0."""
    found: dict[str, list[tuple[int, NewEvent]]] = {}
    for index, event in enumerate(events):
        if event.metadata.traceparent[-1:] in SAMPLED:
            found.setdefault(event.metadata.traceparent, []).append((index, event))
    return found
