"""Spans are encoded as the exporter encodes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode

from twinlog.observe.tracing_encoding import encode_in_place, encoding
from twinlog.observe.tracing_export import tracer_of
from twinlog.observe.tracing_kept import KeptSpan
from twinlog.observe.tracing_spans import Attributes, Spans
from twinlog.testing import ManualClock

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SAID: Attributes = {"text": "ä", "number": 7, "yes": True, "share": 0.5, "types": ["A", "B"], "none": ()}


class Ended(SpanProcessor):
    """Keeps what has ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def spans(ended: Ended) -> Spans:
    return Spans(tracer_of(ended, Resource({"service.name": "tests"})), ManualClock())


def encoded(spans: Sequence[ReadableSpan]) -> list[bytes]:
    """Each span as it is sent, with who sends it."""
    request = encoding(encode_spans)(spans)
    assert len(request.resource_spans) <= 2
    return sorted(
        of_process.resource.SerializeToString(deterministic=True)
        + of_scope.scope.SerializeToString(deterministic=True)
        + span.SerializeToString(deterministic=True)
        for of_process in request.resource_spans
        for of_scope in of_process.scope_spans
        for span in of_scope.spans
    )


def theirs(spans: Sequence[ReadableSpan]) -> list[bytes]:
    """The same by the exporter's own encoding, each span alone."""
    return sorted(each for span in spans for each in _one(span))


def _one(span: ReadableSpan) -> list[bytes]:
    [of_process] = encode_spans([span]).resource_spans
    [of_scope] = of_process.scope_spans
    return [
        of_process.resource.SerializeToString(deterministic=True)
        + of_scope.scope.SerializeToString(deterministic=True)
        + of_scope.spans[0].SerializeToString(deterministic=True)
    ]


def some(spans: Spans) -> list[KeptSpan]:
    """A child, a call that fails, and one that links to others."""
    child = spans.child(TRACE, "child", SpanKind.CONSUMER, SAID)
    failed = spans.call(TRACE, "call", {})
    assert failed
    failed.set_status(StatusCode.ERROR, "why")
    return [child, failed, spans.linked([TRACE, TRACE[:-1] + "0"], "linked", SpanKind.PRODUCER, {})]


def test_spans_of_the_library(spans: Spans, ended: Ended) -> None:
    for span in some(spans):
        span.end()
    assert encoded(ended.spans) == theirs(ended.spans)


def test_what_is_rare_is_left_to_the_exporter(spans: Spans, ended: Ended) -> None:
    told, rare, _ = some(spans)
    told.record_exception(ValueError("no"))
    told.add_event("seen", {"how": "often"})
    told.add_link(rare.get_span_context(), {"why": "so"})
    rare.set_attributes({"bytes": b"1"})
    told.update_name("another")
    rare.set_status(Status(StatusCode.OK))
    for span in (told, rare):
        span.end()
        span.set_attribute("too", "late")
        span.end()
    assert encoded(ended.spans[:1]) == theirs(ended.spans[:1])
    assert encoded(ended.spans) == theirs(ended.spans)
    assert len(ended.spans) == 2
    assert "too" not in (ended.spans[0].attributes or {})


def test_beside_spans_of_the_services_own(spans: Spans, ended: Ended) -> None:
    provider = TracerProvider(resource=Resource({"service.name": "tests"}), shutdown_on_exit=False)
    provider.add_span_processor(ended)
    spans.child(TRACE, "child", SpanKind.CONSUMER, SAID).end()
    provider.get_tracer("own").start_span("own").end()
    assert encoded(ended.spans) == theirs(ended.spans)


def test_long_values_are_cut_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, ended: Ended
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3")
    spans = Spans(tracer_of(ended, Resource({"service.name": "tests"})), ManualClock())
    span = spans.child(TRACE, "child", SpanKind.CONSUMER, {"text": "long"})
    span.set_attribute("more", "longer")
    span.end()
    assert dict(span.attributes or {}) == {"text": "lon", "more": "lon"}
    assert encoded(ended.spans) == theirs(ended.spans)


def test_the_exporter_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter: Any = trace_exporter
    monkeypatch.setattr(exporter, "encode_spans", encode_spans)
    encode_in_place()
    once = exporter.encode_spans
    encode_in_place()
    assert exporter.encode_spans is once is not encode_spans
    assert "encode_spans" in exporter.OTLPSpanExporter.export.__code__.co_names
