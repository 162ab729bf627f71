"""Clients that go while they are answered leave no error behind."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import grpc
import pytest
from structlog.testing import capture_logs

from shop.queries.v1.order_query_service_pb2 import Order, WatchOrderRequest, WatchOrderResponse
from tests.kernel.edge import Edge, echo, serving
from twinlog.rpc import Context
from twinlog.rpc.gone import ClientGone


async def broken(request: WatchOrderRequest, context: Context) -> AsyncIterator[WatchOrderResponse]:
    """A stream that fails as writing to a client that is gone does."""
    yield WatchOrderResponse(order=Order(order_id="first"))
    raise ClientGone('Failed "execute_batch"')


def log(error: Exception) -> None:
    """What grpc.aio says of a method that raised it."""
    try:
        raise error
    except Exception:
        logging.getLogger("grpc._cython.cygrpc").exception("raised by servicer method")


async def test_a_stream_that_can_not_be_written_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with capture_logs() as lines:
        async with serving(Edge(watch=broken)) as client:
            call = client.stub.WatchOrder(WatchOrderRequest(), timeout=1)
            with pytest.raises(grpc.aio.AioRpcError):
                [response async for response in call]
    assert [line for line in lines if line["log_level"] == "error"] == []
    assert caplog.records == []


async def test_other_errors_of_grpc_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Edge(echo)):
        log(ClientGone('Failed "execute_batch"'))
        assert caplog.records == []
        log(ValueError("other"))
        assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [ValueError]
