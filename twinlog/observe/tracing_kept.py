"""A span that is kept: what the SDK's is without its locks, checks and copies, which are most of what one costs."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from random import getrandbits
from time import time_ns
from typing import Any, NamedTuple

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status()


class Origin(NamedTuple):
    """What all spans of a process have in common."""

    processor: SpanProcessor
    resource: Resource
    scope: InstrumentationScope
    said: Callable[[Mapping[str, AttributeValue]], Any]
    """Makes a span's own copy of attributes, as long as the environment allows."""

    def begin(
        self,
        name: str,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        links: Sequence[Link] = (),
    ) -> KeptSpan:
        """Begins a span in its parent's trace; None: in a new trace."""
        known = parent is not None and parent[5]  # what is_valid gives, after two calls
        context = SpanContext(
            parent[0] if parent and known else getrandbits(128) or 1,
            getrandbits(64) or 1,
            False,
            _SAMPLED,
            parent[4] if parent and known else None,
        )
        return KeptSpan(self, name, context, parent if known else None, kind, attributes, links)


def origin(processor: SpanProcessor, resource: Resource, scope: InstrumentationScope) -> Origin:
    """The origin of a process's spans, within OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT where that is set."""
    limits = SpanLimits()
    if limits.max_span_attribute_length is None:
        return Origin(processor, resource, scope, dict)

    def bounded(attributes: Mapping[str, AttributeValue]) -> Any:
        return BoundedAttributes(
            limits.max_span_attributes, attributes, False, limits.max_span_attribute_length
        )

    return Origin(processor, resource, scope, bounded)


class KeptSpan(ReadableSpan, Span):
    """A span of a process, from its beginning until it is sent."""

    def __init__(
        self,
        origin: Origin,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
        links: Sequence[Link],
    ) -> None:
        self._origin = origin
        self.said = origin.said(attributes)
        """Its attributes, to which more come until it ends."""
        super().__init__(
            name,
            context,
            parent,
            origin.resource,
            self.said,
            [],
            links,
            kind,
            None,
            _UNSET,
            time_ns(),
            None,
            origin.scope,
        )
        self.traceparent = f"00-{context[0]:032x}-{context[1]:016x}-01"
        """The trace context that what it sets off is given."""

    def get_span_context(self) -> SpanContext:
        assert self._context
        return self._context

    def end(self, end_time: int | None = None) -> None:
        if self._end_time is None:
            self._end_time = end_time or time_ns()
            self._origin.processor.on_end(self)

    def is_recording(self) -> bool:
        return self._end_time is None

    def set_attribute(self, key: str, value: Any) -> None:
        if self._end_time is None:
            self.said[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        if self._end_time is None:
            self.said.update(attributes)

    def add_event(
        self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None
    ) -> None:
        self._events = [*self._events, Event(name, attributes, timestamp)]

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        self._links = [*self._links, Link(context, attributes)]

    def update_name(self, name: str) -> None:
        self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._status = status if isinstance(status, Status) else Status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        said = {
            "exception.type": f"{type(exception).__module__}.{type(exception).__qualname__}",
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**said, **(attributes or {})}, timestamp)
