"""Traces: what a service puts around its ports, and whether it does. OpenTelemetry is imported only where they are on.

A trace is on its way in the ``traceparent`` of events: through Postgres, the relay, NATS and restarts. A span is
begun below the edge only for events that carry a sampled one, so an unsampled call stores and costs nothing more.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from twinlog.consume import Middleware
from twinlog.log.ports import Log, Timer
from twinlog.log.timers import Causes
from twinlog.log.twin import Twin
from twinlog.model.clock import Clock
from twinlog.model.errors import ConfigurationError
from twinlog.model.schema import Schema
from twinlog.rpc import Middleware as RpcMiddleware

if TYPE_CHECKING:
    from twinlog.observe.tracing_spans import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"


def tracing(tracer: Tracer | None, clock: Clock) -> Tracing:
    """The tracing of a service; None: it is off. ``clock`` tells how long ago events were recorded."""
    if tracer is None:
        return NO_TRACING
    from twinlog.observe.tracing_on import TracingOn

    return TracingOn(tracer, clock)


@asynccontextmanager
async def exporting(service: str, env: Mapping[str, str] = os.environ) -> AsyncIterator[Tracer | None]:
    """Sends spans to the receiver that the environment names; None where it names none.

    ``service``: the name of the service, unless OTEL_SERVICE_NAME says otherwise. Raises ConfigurationError.
    """
    if not wanted(env):
        yield None
        return
    from twinlog.observe.tracing_export import tracer

    async with tracer(service) as opened:
        yield opened


def wanted(env: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces. Raises ConfigurationError where it asks for what is not there."""
    setting = next((name for name in _ENDPOINTS if env.get(name, "").strip()), None)
    off = env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if setting is None or off or env.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "none":
        return False
    if not _is_url(env[setting].strip()):
        raise ConfigurationError(
            f"{setting} must be the URL of an OTLP receiver, such as http://127.0.0.1:4318; set it so, or unset it"
        )
    for name in _PROTOCOLS:
        if env.get(name, _SPOKEN).strip() not in ("", _SPOKEN):
            raise ConfigurationError(f"{name}={env[name]} is not spoken; set it to {_SPOKEN}, or unset it")
    if not _is_installed():
        raise ConfigurationError(
            f"{setting} is set, and what sends traces is not installed: pip install 'twinlog[otel]', or unset it"
        )
    return True


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # not even what it is part of
        return False


class Tracing:
    """What a service puts around its parts where traces are off: nothing."""

    def methods(self) -> Sequence[RpcMiddleware]:
        """What goes around each gRPC method, outermost."""
        return ()

    def consumers(self, schema: Schema) -> Sequence[Middleware]:
        """What goes around each consumer, innermost; ``schema`` decodes its events."""
        return ()

    def log(self, log: Log) -> Log:
        """The log that the writer appends to."""
        return log

    def twin(self, twin: Twin) -> Twin:
        """The twin that the relay publishes to."""
        return twin

    def timers(self, causes: Causes) -> AbstractContextManager[Mapping[Timer, str]]:
        """Around the firing of timers: the trace context of what each sets off, where its cause was sampled."""
        return nullcontext({})


NO_TRACING = Tracing()
