"""Sends spans by OTLP over HTTP, from its own thread; all standard OTEL_ variables are the SDK's own.

What waits to be sent is bounded (OTEL_BSP_MAX_QUEUE_SIZE spans). While the receiver is away, the oldest are dropped,
and one line says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from threading import Thread

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from twinlog import __version__
from twinlog.observe.tracing_encoding import encode_in_place
from twinlog.observe.tracing_kept import origin
from twinlog.observe.tracing_spans import Tracer

_LAST_SECONDS = 2.0
"""How long a process that stops goes on sending what it has."""
_LOOK_SECONDS = 0.02
_NAME, _UNNAMED = "service.name", "unknown_service"
_TALKATIVE = (
    "opentelemetry.exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.trace.export",
)
"""Loggers that say of each batch, or of each span, that it is lost."""


@asynccontextmanager
async def tracer(service: str) -> AsyncIterator[Tracer]:
    """Begins spans that are sent to the receiver; what is left when the block ends is sent, as far as it can be."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    encode_in_place()
    exporter = SaysOnce(OTLPSpanExporter())
    processor = BatchSpanProcessor(exporter)
    try:
        resource = _resource(service)
        _serve_others(processor, resource)
        yield tracer_of(processor, resource)
    finally:
        await _shut_down(processor, exporter)


def tracer_of(processor: SpanProcessor, resource: Resource) -> Tracer:
    """What begins spans that ``processor`` takes; calls are sampled as OTEL_TRACES_SAMPLER says."""
    sampler = TracerProvider(shutdown_on_exit=False).sampler
    scope = InstrumentationScope("twinlog", __version__)
    return Tracer(origin(processor, _Known(resource), scope), sampler, isinstance(sampler, ParentBased))


class _Known(Resource):
    """A resource whose hash is made once: the encoder asks for it with each span, which takes a third of its time."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = hash(resource)

    def __hash__(self) -> int:
        return self._hash


def _serve_others(processor: SpanProcessor, resource: Resource) -> None:
    """Has spans of the service's own, and of its libraries, kept as the call or the event is that they are part of."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = TracerProvider(ParentBased(ALWAYS_OFF), resource, shutdown_on_exit=False)
        provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)


def _resource(service: str) -> Resource:
    """The sender: by OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, otherwise by the service's name."""
    found = Resource.create()
    if str(found.attributes.get(_NAME, "")).startswith(_UNNAMED):
        return found.merge(Resource({_NAME: service}))
    return found


async def _shut_down(processor: SpanProcessor, exporter: SaysOnce) -> None:
    """Sends what is left, in a thread that holds up the end of the process no longer than that."""
    thread = Thread(target=processor.shutdown, name="traces", daemon=True)
    thread.start()
    loop = asyncio.get_running_loop()
    until = loop.time() + _LAST_SECONDS
    while thread.is_alive() and loop.time() < until:
        await asyncio.sleep(_LOOK_SECONDS)
    if thread.is_alive():
        exporter.shutdown()


class SaysOnce(SpanExporter):
    """Exports as another does, and logs when that begins to fail and when it works again."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._inner.export(spans)
        except Exception as error:
            self._say(str(error))
            return SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._say("")
        else:
            self._say("the receiver cannot be reached, or refuses them")
        return result

    def _say(self, problem: str) -> None:
        if bool(problem) == self._failing:
            return
        self._failing = bool(problem)
        if problem:
            structlog.get_logger().warning("traces.dropping", problem=problem)
        else:
            structlog.get_logger().info("traces.sending")

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)
