"""Traces that are on: the wrappers of a service's parts, each in its own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from twinlog.consume import Middleware
from twinlog.log.ports import Log, Timer
from twinlog.log.timers import Causes
from twinlog.log.twin import Twin
from twinlog.model.clock import Clock
from twinlog.model.schema import Schema
from twinlog.observe.tracing_consumer import TracedConsumer
from twinlog.observe.tracing_log import traced_log
from twinlog.observe.tracing_off import Tracing
from twinlog.observe.tracing_rpc import TracedMethods
from twinlog.observe.tracing_spans import Spans, Tracer
from twinlog.observe.tracing_timers import fired
from twinlog.observe.tracing_twin import traced_twin
from twinlog.rpc import Middleware as RpcMiddleware


class TracingOn(Tracing):
    """Puts spans around a service's parts."""

    def __init__(self, tracer: Tracer, clock: Clock) -> None:
        self._spans = Spans(tracer, clock)

    def methods(self) -> Sequence[RpcMiddleware]:
        return [TracedMethods(self._spans)]

    def consumers(self, schema: Schema) -> Sequence[Middleware]:
        return [lambda consumer: TracedConsumer(consumer, schema, self._spans)]

    def log(self, log: Log) -> Log:
        return traced_log(log, self._spans)

    def twin(self, twin: Twin) -> Twin:
        return traced_twin(twin, self._spans)

    def timers(self, causes: Causes) -> AbstractContextManager[Mapping[Timer, str]]:
        return fired(causes, self._spans)
