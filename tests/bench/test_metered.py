"""What times traces: its receiver takes what a service sends."""

from __future__ import annotations

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from proof.bench.receiving import receiver


def test_spans_that_are_sent_are_counted() -> None:
    with receiver() as received:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{received.url}/v1/traces")))
        for _ in range(3):
            provider.get_tracer("tests").start_span("span").end()
        provider.shutdown()
    assert received.spans == 3
