"""A span for each timer that fires, where the event that set it was sampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.trace import SpanKind

from twinlog.log.ports import Timer
from twinlog.log.timers import Causes
from twinlog.model.event import Recorded
from twinlog.model.trace import SAMPLED
from twinlog.observe.tracing_kept import KeptSpan
from twinlog.observe.tracing_spans import Spans, ending


@contextmanager
def fired(causes: Causes, spans: Spans) -> Iterator[Mapping[Timer, str]]:
    """Around the firing of timers; gives the trace context of what each sets off, where its cause was sampled."""
    begun = {
        timer: _begun(timer, event, spans)
        for timer, event in causes.items()
        if event.metadata.traceparent[-1:] in SAMPLED
    }
    with ending(begun.values()):
        yield {timer: span.traceparent for timer, span in begun.items()}


def _begun(timer: Timer, event: Recorded, spans: Spans) -> KeptSpan:
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
