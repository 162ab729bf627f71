"""Spans that begin where a trace comes from an event: as a child of its span, or linked to it where it is long ago."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from random import getrandbits
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
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
from twinlog.model.personal import OWN_TYPES, withheld
from twinlog.model.trace import SAMPLED, trace_fields

APART = timedelta(seconds=60)
"""What is handled later than this after it was recorded begins a trace of its own, which links to the one before:
receivers take a trace as complete some seconds after its last span."""

Attributes = Mapping[str, AttributeValue]
_NOTHING = Context()


class Tracer(NamedTuple):
    """What begins a process's spans."""

    tracer: trace.Tracer
    """Keeps every span that it begins."""
    sampler: Sampler
    """Decides of calls."""
    follows: bool
    """Whether a call is sampled as its caller says, where it says so; then the sampler need not be asked."""


class Spans:
    """Begins the spans of one process."""

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._tracer, self._sampler, self._follows = tracer
        self._clock = clock

    def call(self, given: str, name: str, attributes: Attributes) -> Span | None:
        """The span of a call, whose caller gave a trace context or none; None where it is not sampled."""
        follows = self._follows and given
        if follows and given[-1] not in SAMPLED:
            return None
        parent = parent_of(given) if given else _NOTHING
        if follows:
            return self._tracer.start_span(name, parent, kind=SpanKind.SERVER, attributes=attributes)
        # Asked here, since a span that is only begun to be dropped costs five times as much.
        trace_id = int(given[3:35], 16) if given else getrandbits(128)
        sampled = self._sampler.should_sample(parent, trace_id, name, SpanKind.SERVER, attributes)
        if sampled.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        said = {**attributes, **(sampled.attributes or {})}
        return self._tracer.start_span(name, parent, kind=SpanKind.SERVER, attributes=said)

    def long_ago(self, recorded_at: datetime) -> bool:
        """Whether what follows from then is linked to its trace, and is no part of it."""
        return self._clock.now() - recorded_at >= APART

    def child(
        self, traceparent: str, name: str, kind: SpanKind, attributes: Attributes, links: Sequence[Link] = ()
    ) -> Span:
        """A span in the trace that ``traceparent`` names."""
        return self._tracer.start_span(
            name, parent_of(traceparent), kind=kind, attributes=attributes, links=links
        )

    def linked(self, traceparents: Sequence[str], name: str, kind: SpanKind, attributes: Attributes) -> Span:
        """A span that links to others: in a trace of its own, or in the operator's who has it done."""
        links = [Link(span_context(each)) for each in traceparents]
        current = get_current_span()
        parent = set_span_in_context(current, _NOTHING) if current.is_recording() else _NOTHING
        return self._tracer.start_span(name, parent, kind=kind, attributes=attributes, links=links)

    @contextmanager
    def together(
        self, name: str, kind: SpanKind, parts: Mapping[str, Attributes]
    ) -> Iterator[Mapping[str, Span]]:
        """What is done at once for several commands: a span in the trace of each, by its trace context.

        The first span links to the other commands, the others to the first span.
        """
        spans: dict[str, Span] = {}
        links = [Link(span_context(each)) for each in parts][1:]
        for traceparent, attributes in parts.items():
            span = spans[traceparent] = self.child(traceparent, name, kind, attributes, links)
            if len(spans) == 1:
                links = [Link(span.get_span_context())]
        with ending(spans.values()):
            yield spans


@contextmanager
def ending(spans: Collection[Span]) -> Iterator[None]:
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
def current(span: Span) -> Iterator[None]:
    """Has what the block logs, and whatever else is instrumented in the process, belong to the span."""
    token = attach(set_span_in_context(span))
    try:
        with bound_contextvars(**trace_fields(traceparent_of(span))):
            yield
    finally:
        detach(token)


def traceparent_of(span: Span) -> str:
    """The trace context that what a span sets off is given."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def span_context(traceparent: str) -> SpanContext:
    """The span that a trace context names; an invalid one where it names none."""
    try:
        trace_id, span_id = int(traceparent[3:35], 16), int(traceparent[36:52], 16)
        return SpanContext(
            trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(traceparent[53:], 16))
        )
    except ValueError:
        return SpanContext(0, 0, is_remote=True)


def parent_of(traceparent: str) -> Context:
    """The context of what a trace context sets off."""
    return set_span_in_context(NonRecordingSpan(span_context(traceparent)), _NOTHING)
