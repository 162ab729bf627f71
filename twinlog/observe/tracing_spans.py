"""Spans that begin where a trace comes from an event: as a child of its span, or linked to it where it is long ago."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import getrandbits
from typing import NamedTuple, cast

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue
from structlog.contextvars import bound_contextvars

from twinlog.model.clock import Clock
from twinlog.model.personal import OWN_TYPES
from twinlog.model.trace import SAMPLED, trace_fields
from twinlog.model.withheld import withheld
from twinlog.observe.tracing_kept import KeptSpan, Origin

APART = timedelta(seconds=60)
"""What is handled later than this after it was recorded begins a new trace, which links to the one before:
receivers take a trace as complete some seconds after its last span."""

Attributes = Mapping[str, AttributeValue]
_NOTHING = Context()


class Tracer(NamedTuple):
    """What begins a process's spans."""

    origin: Origin
    """Keeps every span that it begins."""
    sampler: Sampler
    """Decides of calls."""
    follows: bool
    """Whether a call is sampled as its caller says, where it says so; then the sampler need not be asked."""


class Spans:
    """Begins the spans of one process."""

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._origin, self._sampler, self.follows = tracer
        self._clock = clock

    def call(self, given: str, name: str, attributes: Attributes) -> KeptSpan | None:
        """The span of a call, whose caller gave a trace context or none; None where it is not sampled."""
        parent = span_context(given) if given else None
        if not (self.follows and given):
            # Asked here, since a span that is only begun to be dropped costs five times as much.
            trace_id = parent.trace_id if parent else getrandbits(128)
            within = set_span_in_context(NonRecordingSpan(parent), _NOTHING) if parent else _NOTHING
            sampled = self._sampler.should_sample(within, trace_id, name, SpanKind.SERVER, attributes)
            if sampled.decision is not Decision.RECORD_AND_SAMPLE:
                return None
            attributes = {**attributes, **cast(Attributes, sampled.attributes or {})}
        elif given[-1] not in SAMPLED:
            return None
        return self._origin.begin(name, parent, SpanKind.SERVER, attributes)

    def long_ago(self, recorded_at: datetime) -> bool:
        """Whether an event is so old that what follows from it gets a new trace, with a link."""
        return self._clock.now() - recorded_at >= APART

    def child(
        self, traceparent: str, name: str, kind: SpanKind, attributes: Attributes, links: Sequence[Link] = ()
    ) -> KeptSpan:
        """A span in the trace that ``traceparent`` names."""
        return self._origin.begin(name, span_context(traceparent), kind, attributes, links)

    def linked(
        self, traceparents: Sequence[str], name: str, kind: SpanKind, attributes: Attributes
    ) -> KeptSpan:
        """A span that links to others: in a new trace, or in that of the operator's call."""
        links = [Link(span_context(each)) for each in traceparents]
        current = get_current_span()
        parent = current.get_span_context() if current.is_recording() else None
        return self._origin.begin(name, parent, kind, attributes, links)

    @contextmanager
    def together(
        self, name: str, kind: SpanKind, parts: Mapping[str, Attributes]
    ) -> Iterator[Mapping[str, KeptSpan]]:
        """What is done at once for several commands: a span in the trace of each, by its trace context.

        The first span links to the other commands, the others to the first span.
        """
        spans: dict[str, KeptSpan] = {}
        links = [Link(span_context(each)) for each in [*parts][1:]]
        for traceparent, attributes in parts.items():
            span = spans[traceparent] = self.child(traceparent, name, kind, attributes, links)
            if len(spans) == 1:
                links = [Link(span.get_span_context())]
        with ending(spans.values()):
            yield spans


@contextmanager
def ending(spans: Collection[KeptSpan]) -> Iterator[None]:
    """Ends spans with the block; what it raises is their error, unless the process stops."""
    try:
        yield
    except Exception as error:
        for span in spans:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR, str(withheld(error, bool(OWN_TYPES))))
        raise
    finally:
        for span in spans:
            span.end()


@contextmanager
def current(span: KeptSpan) -> Iterator[None]:
    """Has what the block logs, and whatever else is instrumented in the process, belong to the span."""
    token = attach(set_span_in_context(span))
    try:
        with bound_contextvars(**trace_fields(span.traceparent)):
            yield
    finally:
        detach(token)


def span_context(traceparent: str) -> SpanContext:
    """The span that a trace context names; an invalid one where it names none."""
    try:
        trace_id, span_id = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
        return SpanContext(
            trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(traceparent[53:], 16))
        )
    except ValueError:
        return SpanContext(0, 0, is_remote=True)
