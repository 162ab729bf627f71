"""Errors, from where they are raised to what the client gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from structlog.testing import capture_logs

from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    GetOrderResponse,
    Order,
    WatchOrderRequest,
    WatchOrderResponse,
)
from tests.kernel.edge import PATIENCE, Client, Edge, detail, rich, serving
from twinlog import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, TwinlogError, Unavailable
from twinlog.model.errors import Overloaded, RequestIdReused
from twinlog.rpc import Context, status_of
from twinlog.rpc.errors import code_of
from twinlog.rpc.freshness import ViewLagging
from twinlog.testing.internals import CheckpointMoved, UnknownEventType


def raising(error: BaseException) -> Edge:
    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        raise error

    async def watch(request: WatchOrderRequest, context: Context) -> AsyncIterator[WatchOrderResponse]:
        yield WatchOrderResponse(order=Order(order_id="first"))
        raise error

    return Edge(get, watch)


async def watched(client: Client) -> tuple[list[str], grpc.aio.AioRpcError]:
    """What a watcher got, and the error that it ended with."""
    got = []
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for response in client.stub.WatchOrder(WatchOrderRequest(), timeout=PATIENCE):
            got.append(response.order.order_id)
    return got, refused.value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument({"name": "is missing"}), grpc.StatusCode.INVALID_ARGUMENT),
        (NotFound(), grpc.StatusCode.NOT_FOUND),
        (AlreadyExists(), grpc.StatusCode.ALREADY_EXISTS),
        (RequestIdReused(request_id="1"), grpc.StatusCode.ALREADY_EXISTS),
        (FailedPrecondition(), grpc.StatusCode.FAILED_PRECONDITION),
        (Unavailable(), grpc.StatusCode.UNAVAILABLE),
        (ViewLagging(log="orders", reached=1, wanted=2), grpc.StatusCode.UNAVAILABLE),
        (Overloaded(waiting=9), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (CheckpointMoved(consumer="c", actual=1, expected=2), grpc.StatusCode.ABORTED),
        (UnknownEventType(type="t"), grpc.StatusCode.INTERNAL),
        (TwinlogError(), grpc.StatusCode.INTERNAL),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, TwinlogError) else "",
)
async def test_each_error_has_its_code_reason_and_facts(error: TwinlogError, code: grpc.StatusCode) -> None:
    async with serving(raising(error)) as client:
        refused = await client.refusal()
        info = detail(rich(refused), ErrorInfo)

    assert refused.code() == code == code_of(error)
    assert refused.details() == str(error) == rich(refused).message
    assert (info.reason, info.domain, dict(info.metadata)) == (error.reason, "shop", error.facts)


async def test_invalid_fields_are_listed() -> None:
    async with serving(raising(InvalidArgument({"name": "is missing", "total.nanos": "schräg"}))) as client:
        bad = detail(rich(await client.refusal()), BadRequest)

    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("name", "is missing"),
        ("total.nanos", "schräg"),
    ]


@pytest.mark.parametrize(("error", "seconds"), [(Unavailable(), 0.1), (Overloaded(waiting=1), 1.0)])
async def test_an_error_that_passes_says_when_to_try_again(error: TwinlogError, seconds: float) -> None:
    async with serving(raising(error)) as client:
        delay = detail(rich(await client.refusal()), RetryInfo).retry_delay

    assert delay.ToTimedelta().total_seconds() == seconds


async def test_an_unexpected_error_shows_the_client_an_id_and_the_log_its_trace() -> None:
    with capture_logs() as said:
        async with serving(raising(RuntimeError("the password is hunter2"))) as client:
            refused = await client.refusal()
            info = detail(rich(refused), ErrorInfo)
    [line] = [line for line in said if line["event"] == "rpc.failed"]

    assert refused.code() == grpc.StatusCode.INTERNAL
    assert refused.details() == f"Internal error {info.metadata['error_id']}."
    assert "hunter2" not in str(rich(refused))
    assert line["error_id"] == info.metadata["error_id"]
    assert line["method"] == "shop.queries.v1.OrderQueryService/GetOrder"
    assert "hunter2" in str(line["exc_info"])


async def test_a_cancellation_leaking_from_a_method_is_an_answer_and_not_silence() -> None:
    with capture_logs():
        async with serving(raising(asyncio.CancelledError())) as client:
            assert (await client.refusal()).code() == grpc.StatusCode.INTERNAL
            _, refused = await watched(client)
            assert refused.code() == grpc.StatusCode.INTERNAL


async def test_a_stream_ends_with_the_error_after_what_it_gave() -> None:
    async with serving(raising(NotFound("There is no order {order}.", order="x"))) as client:
        got, refused = await watched(client)

    assert got == ["first"]
    assert refused.code() == grpc.StatusCode.NOT_FOUND
    assert dict(detail(rich(refused), ErrorInfo).metadata) == {"order": "x"}


async def test_a_method_may_still_abort_by_itself() -> None:
    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        raise AssertionError

    async with serving(Edge(get)) as client:
        refused = await client.refusal()

    assert (refused.code(), refused.details()) == (grpc.StatusCode.PERMISSION_DENIED, "no")


async def test_an_endless_message_does_not_break_the_answer() -> None:
    violations = {f"field{number}": "ü" * 10_000 for number in range(500)}
    async with serving(raising(InvalidArgument(violations))) as client:
        refused = await client.refusal()

    assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert detail(rich(refused), ErrorInfo).reason == "INVALID_ARGUMENT"


def test_a_long_fact_is_cut() -> None:
    status = status_of(NotFound("There is no {thing}.", thing="x" * 5000), "shop")

    assert len(status.message) == 1024
    assert len(detail(status, ErrorInfo).metadata["thing"]) == 256


@pytest.mark.parametrize(
    ("awaits", "why"),
    [
        (False, "/GetOrder gives a coroutine; is an await missing"),
        (True, "gives None; let it return its resp"),
    ],
)
async def test_a_method_that_gives_no_response_has_its_id_too(awaits: bool, why: str) -> None:
    async def later() -> Any:
        return None

    async def get(_request: GetOrderRequest, _context: Context) -> Any:
        return await later() if awaits else later()

    with capture_logs() as said:
        async with serving(Edge(get)) as client:
            refused = await client.refusal()
    assert refused.code() == grpc.StatusCode.INTERNAL
    [line] = [line for line in said if line["event"] == "rpc.failed"]
    assert line["error_id"] == detail(rich(refused), ErrorInfo).metadata["error_id"]
    assert why in str(line["exc_info"])


async def test_a_method_that_is_left_out_is_unimplemented_and_one_that_breaks_is_not() -> None:
    def left_out(context: Context) -> None:
        """What generated code does."""
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not implemented!")
        raise NotImplementedError("Method not implemented!")

    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        if request.order_id == "defect":
            raise NotImplementedError
        left_out(context)
        return GetOrderResponse()

    def watch(request: WatchOrderRequest, context: Context) -> AsyncIterator[WatchOrderResponse]:
        left_out(context)
        raise AssertionError

    with capture_logs() as said:
        async with serving(Edge(get, watch)) as client:
            for refused in (await client.refusal(), (await watched(client))[1]):
                assert refused.code() == grpc.StatusCode.UNIMPLEMENTED
                assert detail(rich(refused), ErrorInfo).reason == "UNIMPLEMENTED"
            assert not [line for line in said if line["event"] == "rpc.failed"]
            assert (await client.refusal("defect")).code() == grpc.StatusCode.INTERNAL
