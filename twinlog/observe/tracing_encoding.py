"""Spans as messages of OTLP, written in place: the exporter makes messages of messages, in five times the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from twinlog.observe.tracing_kept import KeptSpan

Encode = Callable[[Sequence[ReadableSpan]], ExportTraceServiceRequest]
_KINDS: dict[SpanKind, Any] = {
    kind: trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind
}
_CODES: dict[StatusCode, Any] = {code: code.value for code in StatusCode}
_FIELDS = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
"""Of a value, by its type."""
_LOCAL = 0x100
"""It is known whether the other span is of this process."""
_REMOTE = 0x300
"""And it is of another one."""


def encode_in_place() -> None:
    """Has the exporter encode its spans by this module."""
    exporter: Any = trace_exporter
    if not hasattr(exporter.encode_spans, "in_place"):
        exporter.encode_spans = encoding(exporter.encode_spans)


def encoding(theirs: Encode) -> Encode:
    """Encodes as ``theirs`` does, which is left what is not as this library's own spans are."""

    def encode(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        own = [span for span in spans if isinstance(span, KeptSpan) and not span.events]
        if not own:
            return theirs(spans)
        try:
            # Who sends is the same for all of them, and told by the first.
            request = theirs(own[:1])
            written = request.resource_spans[0].scope_spans[0].spans
            del written[:]
            for span in own:
                _write(written.add(), span)
        except (KeyError, TypeError, ValueError):  # such as an attribute of a type that is rare
            return theirs(spans)
        if len(own) < len(spans):
            others = [span for span in spans if not isinstance(span, KeptSpan) or span.events]
            request.MergeFrom(theirs(others))
        return request

    encode.in_place = True  # type: ignore[attr-defined]
    return encode


def _write(message: trace_pb2.Span, span: KeptSpan) -> None:
    message.name, message.kind = span.name, _KINDS[span.kind]
    message.trace_id, message.span_id = _ids(span.get_span_context())
    message.flags = _LOCAL
    if parent := span.parent:
        _, message.parent_span_id = _ids(parent)
        message.flags = _flags(parent)
    message.start_time_unix_nano, message.end_time_unix_nano = span.start_time or 0, span.end_time or 0
    for key, value in span.said.items():
        attribute = message.attributes.add()
        attribute.key = key
        _write_value(attribute.value, value)
    for link in span.links:
        if link.attributes:
            raise ValueError(link)
        linked = message.links.add()
        linked.trace_id, linked.span_id = _ids(link.context)
        linked.flags = _flags(link.context)
    message.status.code = _CODES[span.status.status_code]
    message.status.message = span.status.description or ""


def _ids(context: SpanContext) -> tuple[bytes, bytes]:
    return context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")


def _flags(context: SpanContext) -> int:
    return _REMOTE if context.is_remote else _LOCAL


def _write_value(message: AnyValue, value: Any) -> None:
    if isinstance(value, list | tuple):
        message.array_value.SetInParent()
        for each in value:
            _write_value(message.array_value.values.add(), each)
    else:
        setattr(message, _FIELDS[type(value)], value)
