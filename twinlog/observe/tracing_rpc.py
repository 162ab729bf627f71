"""A span for each gRPC call that is sampled, by the semantic conventions for RPC."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from typing import Any

import grpc
import grpc.aio
from opentelemetry.trace import StatusCode
from structlog.contextvars import bind_contextvars, get_contextvars

from twinlog.model.errors import TwinlogError
from twinlog.model.personal import OWN_TYPES
from twinlog.model.trace import UNSAMPLED, trace_fields
from twinlog.model.withheld import withheld
from twinlog.observe.tracing_kept import KeptSpan
from twinlog.observe.tracing_spans import Attributes, Spans, current
from twinlog.rpc.context import TRACE, Context, given_trace
from twinlog.rpc.errors import status_of
from twinlog.rpc.handlers import Behavior, Method

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_SERVERS_FAULT = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


class TracedMethods:
    """Middleware of gRPC methods: a server span for each call that is sampled."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def __call__(self, method: Method, behavior: Behavior) -> Behavior:
        return (
            self._streaming(method, behavior) if method.response_streaming else self._unary(method, behavior)
        )

    def _unary(self, method: Method, behavior: Behavior) -> Behavior:
        said = _said_of(method)

        async def sampled(span: KeptSpan, request: Any, context: Context) -> Any:
            with _serving(span, context):
                return await behavior(request, context)

        def call(request: Any, context: Context) -> Any:
            given = given_trace(context)
            if self._spans.follows and given[-1:] in UNSAMPLED:
                return behavior(request, context)
            span = self._spans.call(given, method.name, said)
            return behavior(request, context) if span is None else sampled(span, request, context)

        return call

    def _streaming(self, method: Method, behavior: Behavior) -> Behavior:
        said = _said_of(method)

        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            span = self._spans.call(given_trace(context), method.name, said)
            with nullcontext() if span is None else _serving(span, context):
                async with aclosing(behavior(request, context)) as responses:
                    async for response in responses:
                        yield response

        return call


def _said_of(method: Method) -> Attributes:
    return {"rpc.system.name": "grpc", "rpc.method": method.name}


@contextmanager
def _serving(span: KeptSpan, context: Context) -> Iterator[None]:
    """What the call sets off, and what it logs, is of this span; it ends with the call, and says how that went."""
    traceparent = span.traceparent
    token = TRACE.set(traceparent)
    bind_contextvars(**trace_fields(traceparent))
    try:
        with current(span):
            yield
        _tell(span, "OK")
    except (CancelledError, GeneratorExit):  # a stream that nobody reads any more is closed
        _tell(span, "CANCELLED")
        raise
    except grpc.aio.AbortError:
        code = context.code()
        _tell(span, code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN")
        raise
    except TwinlogError as error:
        span.set_attribute("twinlog.reason", error.reason)
        _tell(span, _NAMES[status_of(error, "").code], str(error))
        raise
    except BaseException as error:
        shown = withheld(error, bool(OWN_TYPES))
        _tell(span, "INTERNAL", str(shown) if shown is not error else f"{type(error).__name__}: {error}")
        raise
    finally:
        TRACE.reset(token)
        if correlation := get_contextvars().get("correlation_id"):
            span.set_attribute("twinlog.correlation_id", correlation)
        span.end()


def _tell(span: KeptSpan, code: str, why: str = "") -> None:
    span.set_attribute("rpc.response.status_code", code)
    if code != "OK":
        span.set_attribute("error.type", code)
    if code in _SERVERS_FAULT:
        span.set_status(StatusCode.ERROR, why)
