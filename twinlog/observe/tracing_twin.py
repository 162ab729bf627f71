"""A span for each publish of the relay, in the trace of each sampled command whose events it copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import cast

from opentelemetry.trace import SpanKind

from twinlog.log.twin import Twin
from twinlog.model.event import Recorded
from twinlog.model.trace import SAMPLED
from twinlog.observe.tracing_spans import Attributes, Spans, ending
from twinlog.observe.wrapper import Wrapper


def traced_twin(twin: Twin, spans: Spans) -> Twin:
    """The twin, with spans for what is published to it."""
    return cast(Twin, _TracedTwin(twin, spans))


class _TracedTwin(Wrapper):
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
