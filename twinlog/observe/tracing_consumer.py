"""A span for each sampled event that a consumer handles, by the semantic conventions for messaging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

from opentelemetry.trace import SpanKind

from twinlog.consume import Consumer, ConsumerWrapper, Progress
from twinlog.consume.effects import EffectConsumer
from twinlog.consume.policies import PolicyConsumer
from twinlog.consume.projection import Projection
from twinlog.model.event import Recorded
from twinlog.model.schema import Schema
from twinlog.model.trace import SAMPLED
from twinlog.observe.tracing_kept import KeptSpan
from twinlog.observe.tracing_spans import Attributes, Spans, current, ending


class TracedConsumer(ConsumerWrapper):
    """A consumer whose sampled events have a span each; what they cause is part of it.

    A try that fails has a span, and so has the next. An event of long ago begins a new trace, linked to the one
    that it came from; where many of them only change rows, one span serves a batch.
    """

    def __init__(self, inner: Consumer, schema: Schema, spans: Spans) -> None:
        super().__init__(inner)
        self._spans = spans
        self._schema = schema
        self._calls_for_something = (
            inner.calls_for_something if isinstance(inner, PolicyConsumer | EffectConsumer) else None
        )
        self._span_name = f"process {inner.source}"
        self._said = {
            "messaging.system": "nats",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": inner.source,
            "messaging.consumer.group.name": inner.name,
        }
        self._changes_rows = isinstance(inner, Projection)

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        traced = [event for event in events if event.metadata.traceparent[-1:] in SAMPLED]
        if not traced:
            return await self.inner.apply(events, progress)
        wanted = [event for event in traced if self._is_wanted(event)]
        with self._begun(wanted, progress, alone=len(events) == 1) as spans:
            if not self._changes_rows:  # rows may show the event's own metadata
                events = [
                    _within(spans[event.position], event) if event.position in spans else event
                    for event in events
                ]
            return await self.inner.apply(events, progress)

    def _is_wanted(self, event: Recorded) -> bool:
        """Whether it has an effect; an event that cannot be read is worth a span as well."""
        if self._calls_for_something is None:
            return True
        try:
            return any(map(self._calls_for_something, self._schema.decode(event)))
        except Exception:
            return True

    @contextmanager
    def _begun(
        self, events: Sequence[Recorded], progress: Progress, *, alone: bool
    ) -> Iterator[Mapping[int, KeptSpan]]:
        """The spans of a batch; gives them by the positions of their events. ``alone``: it is all that is handled."""
        spans: dict[int, KeptSpan] = {}
        late: list[Recorded] = []
        for event in events:
            if self._spans.long_ago(event.recorded_at):
                late.append(event)
            else:
                spans[event.position] = self._spans.child(
                    event.metadata.traceparent,
                    self._span_name,
                    SpanKind.CONSUMER,
                    self._said_of(event, progress),
                )
        for group in [late] if self._changes_rows and late else [[event] for event in late]:
            spans[group[0].position] = self._linked(group, progress)
        with ending(spans.values()), current(*spans.values()) if alone and spans else nullcontext():
            yield spans

    def _linked(self, events: Sequence[Recorded], progress: Progress) -> KeptSpan:
        return self._spans.linked(
            [event.metadata.traceparent for event in events],
            self._span_name,
            SpanKind.CONSUMER,
            self._said_of(events[0], progress)
            if len(events) == 1
            else {**self._common(progress), "messaging.batch.message_count": len(events)},
        )

    def _common(self, progress: Progress) -> Attributes:
        return self._said if progress.advance else {**self._said, "twinlog.replay": True}

    def _said_of(self, event: Recorded, progress: Progress) -> Attributes:
        return {
            **self._common(progress),
            "messaging.message.id": event.address,
            "twinlog.correlation_id": event.metadata.correlation_id,
            "twinlog.event.type": event.type.rpartition(".")[2],
            "twinlog.stream": str(event.stream),
        }


def _within(span: KeptSpan, event: Recorded) -> Recorded:
    """The event, as what it causes is to see it: set off by its span."""
    return event._replace(metadata=event.metadata._replace(traceparent=span.traceparent))
