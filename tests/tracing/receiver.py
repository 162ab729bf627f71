"""A receiver of traces: takes OTLP over HTTP, and shows the spans as trees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any, NamedTuple

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from twinlog import Clock
from twinlog.observe.tracing import Tracing, tracing
from twinlog.observe.tracing_export import tracer_of


@dataclass(frozen=True)
class Span:
    """A span as it arrived."""

    service: str
    name: str
    kind: str
    """Such as SERVER."""
    trace_id: str
    span_id: str
    parent_id: str
    """Empty: none."""
    linked: Sequence[tuple[str, str]]
    """Ids of traces and of their spans."""
    attributes: Mapping[str, Any]
    failed: bool
    began: int
    """Nanoseconds since the epoch."""
    ended: int


class Node(NamedTuple):
    """A span and what it set off."""

    span: Span
    children: Sequence[Node]

    def drawn(self, indent: str = "") -> Iterator[str]:
        """One line for each span."""
        types = self.span.attributes.get("twinlog.event.types") or self.span.attributes.get(
            "twinlog.event.type"
        )
        said = " ".join([types] if isinstance(types, str) else types or [])
        yield f"{indent}{self.span.service}: {self.span.name} {said}".rstrip()
        for child in self.children:
            yield from child.drawn(indent + "  ")


class Receiver:
    """What has arrived so far."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        self.refuses = False
        """Whether it answers 503."""
        self.requests = 0
        self._spans: list[Span] = []
        self._lock = Lock()

    @property
    def spans(self) -> Sequence[Span]:
        """All spans, in the order of their beginnings."""
        with self._lock:
            return sorted(self._spans, key=lambda span: span.began)

    def trace(self, trace_id: str) -> Sequence[Span]:
        """The spans of one trace, in the order of their beginnings."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def roots(self, trace_id: str) -> Sequence[Node]:
        """The spans whose parent has not arrived, with what they set off."""
        spans = self.trace(trace_id)
        ids = {span.span_id for span in spans}
        return [_node(span, spans) for span in spans if span.parent_id not in ids]

    def drawn(self, trace_id: str) -> str:
        """The tree, or the trees, of one trace; siblings by their text, since they run side by side."""
        return "\n".join(line for root in self.roots(trace_id) for line in root.drawn())

    def tracing(self, service: str, clock: Clock) -> Tracing:
        """The tracing of a service in this process, whose spans arrive at once."""
        processor = SimpleSpanProcessor(AtOnce(self))
        return tracing(tracer_of(processor, Resource({"service.name": service})), clock)

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keeps what a process has sent."""
        with self._lock:
            for of_process in request.resource_spans:
                service = str(_plain(of_process.resource.attributes)["service.name"])
                for of_scope in of_process.scope_spans:
                    self._spans += [_span(service, span) for span in of_scope.spans]


class AtOnce(SpanExporter):
    """Gives spans to a receiver, as they would have been sent."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._receiver.take(encode_spans(spans))
        return SpanExportResult.SUCCESS


def _node(span: Span, spans: Sequence[Span]) -> Node:
    children = [_node(each, spans) for each in spans if each.parent_id == span.span_id]
    return Node(span, sorted(children, key=lambda node: list(node.drawn())))


def _span(service: str, sent: Sent) -> Span:
    return Span(
        service,
        sent.name,
        Sent.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_"),
        sent.trace_id.hex(),
        sent.span_id.hex(),
        sent.parent_span_id.hex(),
        [(link.trace_id.hex(), link.span_id.hex()) for link in sent.links],
        _plain(sent.attributes),
        sent.status.code == sent.status.STATUS_CODE_ERROR,
        sent.start_time_unix_nano,
        sent.end_time_unix_nano,
    )


def _plain(attributes: Sequence[KeyValue]) -> Mapping[str, Any]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port of the loopback interface."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests += 1
            if self.path != "/v1/traces" or found.refuses:
                self.send_error(503 if found.refuses else 404)
                return
            found.take(ExportTraceServiceRequest.FromString(data))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Receiver(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
