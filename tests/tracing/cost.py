"""What traces cost: ``python -m tests.tracing.cost`` prints it, in a minute or two.

Microseconds: what one call costs more than without a tracing middleware. Calls: those of Python functions that a saga
of the shop takes, its services' own wiring over memory, 100 together, OpenTelemetry's included. Processor time: of the
same sagas, the encoding of the spans included. Where 1 % is sampled, the callers of the others say that theirs are not.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from statistics import median
from types import FrameType
from typing import Any, NamedTuple
from uuid import uuid4

import structlog
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from tests.controls import Mode, wire
from tests.memory_shop import MemoryShop, NoContext
from twinlog import Clock
from twinlog.observe.tracing import NO_TRACING, Tracing, tracing
from twinlog.observe.tracing_encoding import encoding
from twinlog.observe.tracing_export import tracer_of
from twinlog.rpc import Method
from twinlog.rpc.context import TRACE
from twinlog.testing import ManualClock

ORDERS, ROUNDS, RUNS, CALLS = 100, 300, 7, 20_000
MODES: dict[str, Mode] = {"choreography": SAGA_MODE_CHOREOGRAPHY, "orchestration": SAGA_MODE_ORCHESTRATION}
_ENCODE = encoding(encode_spans)
_METHOD = Method("shop.orders.v1.OrderService/CreateOrder", False)


class Encoding(SpanExporter):
    """Makes of spans what would be sent, and throws it away."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        _ENCODE(spans).SerializeToString()
        return SpanExportResult.SUCCESS


@dataclass
class Traces:
    """The traces of a process: off, or encoded in a thread of their own as they are when they are sent."""

    on: bool
    _processors: list[BatchSpanProcessor] = field(default_factory=list)

    def tracing(self, service: str, clock: Clock) -> Tracing:
        if not self.on:
            return NO_TRACING
        self._processors.append(BatchSpanProcessor(Encoding()))
        return tracing(tracer_of(self._processors[-1], Resource({"service.name": service})), clock)

    def encode(self) -> None:
        """Encodes what has ended by now."""
        for processor in self._processors:
            processor.force_flush()

    def end(self) -> None:
        for processor in self._processors:
            processor.shutdown()  # type: ignore[no-untyped-call]


class Call:
    """A call whose caller says whether it is sampled, or says nothing."""

    def __init__(self, flags: str = "") -> None:
        self._metadata = [("traceparent", f"00-{uuid4().hex}-00f067aa0ba902b7-{flags}")] if flags else []

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self._metadata

    def time_remaining(self) -> None:
        return None


@dataclass(frozen=True)
class Cost:
    """What a saga took."""

    calls: float
    of_traces: float
    """Those calls of them that are of traces and of OpenTelemetry."""


Orders = Callable[[int, int], Awaitable[None]]
"""Runs a number of sagas, of which some are sampled, until all have had their effects."""


@asynccontextmanager
async def ordering(mode: Mode, traces: Traces) -> AsyncIterator[Orders]:
    """A shop in memory that has had its first sagas."""
    async with MemoryShop(tracing=traces.tracing) as shop:
        customer = CreateCustomerRequest(name="Ada", credit_limit=wire("1000000"))
        customer_id = (await shop.customers.CreateCustomer(customer, NoContext())).customer_id
        create: Any = shop.orders.CreateOrder
        for put_around in traces.tracing("order_svc", shop.clock).methods():
            create = put_around(_METHOD, create)

        async def orders(number: int, sampled: int) -> None:
            calls = [Call("01" if index < sampled else "00") for index in range(number)]
            request = CreateOrderRequest(customer_id=customer_id, total=wire("1"), saga_mode=mode)
            await asyncio.gather(*(create(request, call) for call in calls))
            await shop.settle()

        await orders(20, 0)
        yield orders
        traces.end()


async def saga(mode: Mode, traces: Traces, sampled: int) -> Cost:
    """The cost of one of ORDERS sagas, of which some are sampled."""
    async with ordering(mode, traces) as orders:
        with _counted() as found:
            await orders(ORDERS, sampled)
    ours = sum(number for file, number in found.items() if _is_of_traces(file))
    return Cost(found.total() / ORDERS, ours / ORDERS)


class Time(NamedTuple):
    """The processor time of a saga."""

    unsampled: float
    """Microseconds, while none is sampled."""
    more: tuple[float, float, float]
    """By which part of them it takes more while some are: the median, between the bounds that it lies within in 95 of
    100 measurements."""


async def processor_time(mode: Mode, share: float, rounds: int) -> Time:
    """What a saga takes where some are sampled, by rounds of ORDERS sagas each, beside as many of which none is.

    Both take their turns in one shop: two differ by more than what is looked for, and what else runs on the machine
    bears on both turns. The encoding of all spans comes at the end, since batches of a few would cost more each than
    those of a load.
    """
    traces, sampled = Traces(True), round(ORDERS * share)
    async with ordering(mode, traces) as orders:
        spent: list[float] = []
        more: list[float] = []
        turns = [0, sampled]
        for _ in range(rounds):
            took = {}
            for number in turns:
                began = time.process_time()
                await orders(ORDERS, number)
                took[number] = _micros(began, ORDERS)
            turns.reverse()
            spent.append(took[0])
            more.append(took[sampled] / took[0] - 1)
        began = time.process_time()
        traces.encode()
        encoding = _micros(began, ORDERS * rounds)
    unsampled = median(spent)
    return Time(unsampled, _with_bounds([each + encoding / unsampled for each in more]))


def _with_bounds(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, with the bounds of its 95 % interval: by ranks, so whatever the values' distribution is."""
    ranked, middle = sorted(values), len(values) / 2
    away = 0.98 * len(values) ** 0.5
    low, high = max(0, int(middle - away)), min(len(ranked) - 1, int(middle + away))
    return ranked[low], median(ranked), ranked[high]


def _micros(began: float, sagas: int) -> float:
    return (time.process_time() - began) / sagas * 1e6


@contextmanager
def _counted() -> Iterator[Counter[str]]:
    """How often Python functions are called within the block, by file; those of services and of what they use."""
    found: Counter[str] = Counter()

    def on_event(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            found[frame.f_code.co_filename] += 1

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        yield found
    finally:
        sys.setprofile(before)


def _is_of_traces(file: str) -> bool:
    return f"{os.sep}opentelemetry{os.sep}" in file or f"{os.sep}observe{os.sep}tracing" in file


async def microseconds(flags: str, traces: Traces) -> float:
    """What one call costs more than without a middleware of traces."""

    async def method(_request: Any, _context: Any) -> None:
        return None

    around: Any = method
    for put_around in traces.tracing("tests", ManualClock()).methods():
        around = put_around(_METHOD, method)
    call = Call(flags)
    spent = await _each(lambda: around(None, call)) - await _each(lambda: method(None, call))
    traces.end()
    return max(0.0, spent)


async def microseconds_off() -> float:
    """What remains where they are off: a look at a context variable."""

    async def look() -> str:
        return TRACE.get()

    async def nothing() -> str:
        return ""

    return max(0.0, await _each(look) - await _each(nothing))


async def _each(work: Callable[[], Awaitable[object]]) -> float:
    best = float("inf")
    for _ in range(RUNS):
        began = time.perf_counter()
        for _ in range(CALLS // RUNS):
            await work()
        best = min(best, (time.perf_counter() - began) / (CALLS // RUNS))
    return best * 1e6


async def main() -> None:
    os.environ["OTEL_TRACES_SAMPLER"] = "parentbased_always_off"
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = (
        "600000"  # spans are encoded when they are many, or when it is said so
    )
    os.environ["OTEL_BSP_MAX_QUEUE_SIZE"] = "100000"
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    print(f"off:                        {await microseconds_off():6.1f} µs a call")
    for said, flags in (("unsampled", ""), ("unsampled by the caller", "00"), ("sampled", "01")):
        print(f"on, {said + ':':23} {await microseconds(flags, Traces(True)):6.1f} µs a call")
    for name, mode in MODES.items():
        print(f"{name}, a saga:")
        for share, rounds in ((0.01, ROUNDS), (1.0, ROUNDS // 10)):
            calls = await saga(mode, Traces(True), round(ORDERS * share))
            unsampled, (low, more, high) = await processor_time(mode, share, rounds)
            print(
                f"  {share:>4.0%}: {calls.of_traces:6.1f} of {calls.calls:5.0f} calls are of traces; "
                f"{more:+.1%} ({low:+.1%} to {high:+.1%}) of the {unsampled:.0f} µs of one that is not sampled"
            )


if __name__ == "__main__":
    asyncio.run(main())
