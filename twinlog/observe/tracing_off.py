"""Traces that are off: what a service puts around its ports then, which is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from twinlog.consume import Middleware
from twinlog.log.ports import Log, Timer
from twinlog.log.timers import Causes
from twinlog.log.twin import Twin
from twinlog.model.schema import Schema
from twinlog.rpc import Middleware as RpcMiddleware


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
