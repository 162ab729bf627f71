"""Spans of gRPC calls, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.trace import get_current_span
from structlog.contextvars import get_contextvars

from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    GetOrderResponse,
    Order,
    WatchOrderRequest,
    WatchOrderResponse,
)
from tests.kernel.edge import NAME, Edge, serving
from tests.tracing.receiver import Receiver
from tests.waiting import until
from twinlog import FailedPrecondition, Unavailable
from twinlog.rpc import Context, call_metadata
from twinlog.testing import ManualClock

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}


class Closed(FailedPrecondition):
    """The shop is closed."""

    reason = "CLOSED"


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    return Receiver()


async def answered(traces: Receiver, edge: Edge, given: Mapping[str, str] = GIVEN) -> grpc.StatusCode:
    """Calls GetOrder; gives the code that it is answered with."""
    middleware = traces.tracing("tests", ManualClock()).methods()
    async with serving(edge, middleware=middleware) as client:
        call = client.stub.GetOrder(GetOrderRequest(), metadata=tuple(given.items()), timeout=60)
        code = await call.code()
        assert isinstance(code, grpc.StatusCode)
        return code


async def test_what_a_call_sets_off_is_part_of_its_span(traces: Receiver) -> None:
    seen: list[Any] = []

    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        seen.extend(
            [call_metadata(context, "GetOrder"), get_current_span().is_recording(), get_contextvars()]
        )
        return GetOrderResponse()

    assert await answered(traces, Edge(get), {**GIVEN, "x-correlation-id": "order 7"}) is grpc.StatusCode.OK
    [span] = traces.spans
    metadata, recording, logged = seen
    assert metadata.traceparent.split("-")[1:3] == [TRACE_ID, span.span_id]
    assert recording
    assert logged == {"correlation_id": "order 7", "trace_id": TRACE_ID, "span_id": span.span_id}
    assert (span.name, span.kind, span.parent_id) == (f"{NAME}/GetOrder", "SERVER", SPAN_ID)
    assert span.attributes["twinlog.correlation_id"] == "order 7"


@pytest.mark.parametrize(
    "given", [{}, {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"}, {"traceparent": "nonsense"}]
)
async def test_an_unsampled_call_is_as_it_was(traces: Receiver, given: Mapping[str, str]) -> None:
    seen: list[Any] = []

    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        seen.extend([call_metadata(context, "GetOrder"), get_current_span().is_recording()])
        return GetOrderResponse()

    assert await answered(traces, Edge(get), given) is grpc.StatusCode.OK
    metadata, recording = seen
    assert metadata.traceparent == (
        given.get("traceparent", "") if len(given.get("traceparent", "")) == 55 else ""
    )
    assert not recording
    assert not traces.spans


async def test_a_ratio_decides_where_the_caller_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "1.0")
    traces = Receiver()
    await answered(traces, Edge(), {})
    await answered(traces, Edge(), {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00"})
    [span] = traces.spans
    assert span.parent_id == ""


@pytest.mark.parametrize(
    ("error", "code", "reason", "failed"),
    [
        (Closed(), "FAILED_PRECONDITION", "CLOSED", False),
        (Unavailable("no"), "UNAVAILABLE", "UNAVAILABLE", True),
        (RuntimeError("a defect"), "INTERNAL", None, True),
    ],
    ids=["refused", "outage", "defect"],
)
async def test_a_failure_is_told(
    traces: Receiver, error: Exception, code: str, reason: str | None, failed: bool
) -> None:
    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        raise error

    assert (await answered(traces, Edge(get))).name == code
    [span] = traces.spans
    assert (span.attributes["rpc.response.status_code"], span.attributes["error.type"]) == (code, code)
    assert (span.attributes.get("twinlog.reason"), span.failed) == (reason, failed)


async def test_a_method_that_aborts_by_itself(traces: Receiver) -> None:
    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        await context.abort(grpc.StatusCode.NOT_FOUND, "none")
        raise AssertionError("abort raises")

    assert await answered(traces, Edge(get)) is grpc.StatusCode.NOT_FOUND
    [span] = traces.spans
    assert (span.attributes["rpc.response.status_code"], span.failed) == ("NOT_FOUND", False)


async def test_a_stream_is_one_span(traces: Receiver) -> None:
    middleware = traces.tracing("tests", ManualClock()).methods()
    async with serving(Edge(), middleware=middleware) as client:
        call = client.stub.WatchOrder(WatchOrderRequest(), metadata=tuple(GIVEN.items()), timeout=60)
        assert [response.order.order_id async for response in call] == ["0", "1", "2"]
    [span] = traces.spans
    assert (span.name, span.attributes["rpc.response.status_code"]) == (f"{NAME}/WatchOrder", "OK")


async def test_a_stream_that_the_client_leaves(traces: Receiver) -> None:
    async def watch(request: WatchOrderRequest, context: Context) -> AsyncIterator[WatchOrderResponse]:
        while True:
            yield WatchOrderResponse(order=Order(order_id="0"))

    middleware = traces.tracing("tests", ManualClock()).methods()
    async with serving(Edge(watch=watch), middleware=middleware) as client:
        call = client.stub.WatchOrder(WatchOrderRequest(), metadata=tuple(GIVEN.items()), timeout=60)
        assert (await call.read()).order.order_id == "0"
        call.cancel()
        await until(lambda: bool(traces.spans))
    [span] = traces.spans
    assert (span.attributes["rpc.response.status_code"], span.failed) == ("CANCELLED", False)
