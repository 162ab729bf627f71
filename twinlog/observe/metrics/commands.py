"""Calls over gRPC: how many, how they ended, how long they took, and how many streams are open."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import Any

from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.observe.metrics.tallies import (
    INTERNAL,
    OK,
    OVERLOADED,
    UNAVAILABLE,
    Bounded,
    Histogram,
    reason_of,
)
from twinlog.rpc import Behavior, Context, Method

CALLS = Metric(
    "twinlog_rpc_calls_total",
    "counter",
    "Calls that have ended, by method and by the reason of their error (ErrorInfo.reason); OK: answered. A refusal "
    "because of overload is a call with the reason OVERLOADED, TOO_MANY_CALLS or TOO_MANY_STREAMS.",
    ("method", "reason"),
)
DURATION = Metric(
    "twinlog_rpc_call_duration_seconds",
    "histogram",
    "Time from a unary call's request to its answer; calls that are refused at the door have none.",
    ("method",),
)
OPEN = Metric(
    "twinlog_rpc_open_streams", "gauge", "Response streams that are open now, such as watchers.", ("method",)
)


class Commands:
    """The middleware that counts, and what it has counted."""

    name = "commands"

    def __init__(self) -> None:
        self._ok: dict[str, int] = {}
        self._failed: dict[str, Bounded] = {}
        self._seconds: dict[str, Histogram] = {}
        self._open: dict[str, int] = {}

    def middleware(self, method: Method, behavior: Behavior) -> Behavior:
        """Goes around a method; see :data:`twinlog.rpc.Middleware`."""
        name = method.name
        self._ok[name], self._failed[name] = 0, Bounded(INTERNAL, UNAVAILABLE, OVERLOADED)
        if method.response_streaming:
            self._open[name] = 0
            return self._streaming(name, behavior)
        self._seconds[name] = Histogram()
        return self._unary(name, behavior)

    def refused(self, method: str, error: str) -> None:
        """Counts a call that was refused before it came to any middleware."""
        if method in self._failed:
            self._failed[method].add(error)

    async def samples(self) -> Sequence[Sample]:
        failed = [
            Sample(CALLS, count, (method, reason))
            for method, reasons in self._failed.items()
            for reason, count in reasons.counts.items()
        ]
        return [
            *(Sample(CALLS, count, (method, OK)) for method, count in self._ok.items()),
            *failed,
            *(Sample(DURATION, seconds, (method,)) for method, seconds in self._seconds.items()),
            *(Sample(OPEN, count, (method,)) for method, count in self._open.items()),
        ]

    def _unary(self, name: str, behavior: Behavior) -> Behavior:
        ok, failed, tally = self._ok, self._failed[name], self._seconds[name]
        bounds, counts = tally.bounds, tally.counts

        async def call(request: Any, context: Context) -> Any:
            began = perf_counter()
            try:
                response = await behavior(request, context)
            except BaseException as error:
                failed.add(reason_of(error))
                tally.observe(perf_counter() - began)
                raise
            seconds = perf_counter() - began
            ok[name] += 1
            # As `observe` does: this is the one place where each command passes by itself.
            counts[bisect_left(bounds, seconds)] += 1
            tally.sum += seconds
            return response

        return call

    def _streaming(self, name: str, behavior: Behavior) -> Behavior:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            self._open[name] += 1
            try:
                responses = behavior(request, context)
                if isinstance(responses, Awaitable):  # it writes by itself
                    await responses
                else:
                    async with aclosing(responses) as closing:
                        async for response in closing:
                            yield response
            except BaseException as error:
                self._failed[name].add(reason_of(error))
                raise
            else:
                self._ok[name] += 1
            finally:
                self._open[name] -= 1

        return stream
