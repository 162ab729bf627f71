"""The edge of commands: what it does for every method, so that none can forget it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from google.protobuf.message import Message

from shop.orders.v1.order_service_pb2 import (
    CancelOrderRequest,
    CancelOrderResponse,
    SetSagaModeRequest,
    SetSagaModeResponse,
)
from tests.controls import new_id
from tests.kernel.counter import COUNTER, Add
from tests.memory_shop import NoContext
from twinlog import InvalidArgument, Schema, Transaction, Writer
from twinlog.model.errors import RequestIdReused
from twinlog.rpc import Checks, Commands
from twinlog.testing import CountedIds, ManualClock, MemoryLog


@asynccontextmanager
async def commands() -> AsyncIterator[tuple[Commands, MemoryLog]]:
    log = MemoryLog("orders")
    async with Writer(log, schema=Schema(), clock=ManualClock(), ids=CountedIds()) as writer:
        yield Commands(log, writer), log


def cancel(tx: Transaction) -> CancelOrderResponse:
    tx.do(COUNTER, "a", Add(1))
    return CancelOrderResponse(order_id="a")


async def cancelled(edge: Commands, request: Message, checks: Checks | None = None) -> CancelOrderResponse:
    return await edge.execute(request, NoContext(), checks or Checks(), cancel, CancelOrderResponse)


async def test_a_request_with_an_id_has_one_effect_and_one_answer() -> None:
    request = CancelOrderRequest(request_id=new_id(), order_id="a")
    async with commands() as (edge, log):
        first = await cancelled(edge, request)
        await cancelled(edge, CancelOrderRequest())
        request.request_id = request.request_id.upper()
        assert await cancelled(edge, request) == first
        assert first == CancelOrderResponse(order_id="a", consistency_token="orders:1")
        assert len(log.events) == 2
        request.order_id = "b"
        with pytest.raises(RequestIdReused):
            await cancelled(edge, request)


async def test_events_say_which_method_caused_them() -> None:
    async with commands() as (edge, log):
        await cancelled(edge, CancelOrderRequest())
        assert [event.metadata.causation_id for event in log.events] == ["rpc/CancelOrder"]


async def test_messages_without_an_id_and_a_token_have_neither() -> None:
    def set_mode(tx: Transaction) -> SetSagaModeResponse:
        tx.do(COUNTER, "a", Add(1))
        return SetSagaModeResponse()

    async with commands() as (edge, log):
        answers = [
            await edge.execute(SetSagaModeRequest(), NoContext(), Checks(), set_mode, SetSagaModeResponse)
            for _ in range(2)
        ]
        assert answers == [SetSagaModeResponse()] * 2
        assert (len(log.events), log.replies) == (2, {})


async def test_nothing_is_done_while_anything_is_wrong() -> None:
    checks = Checks()
    checks.violate("order_id", "is missing")
    async with commands() as (edge, log):
        with pytest.raises(InvalidArgument) as refused:
            await cancelled(edge, CancelOrderRequest(request_id="again"), checks)
        assert list(refused.value.violations) == ["order_id", "request_id"]
        with pytest.raises(InvalidArgument):
            edge.check(CancelOrderRequest(request_id="again"), Checks(), CancelOrderResponse)
        assert not log.events


async def test_state_and_history_are_the_newest() -> None:
    async with commands() as (edge, log):
        assert await edge.history(COUNTER, "a") == []
        await cancelled(edge, CancelOrderRequest())
        assert await edge.history(COUNTER, "a") == log.events
        assert (await edge.state(COUNTER, "a")).value == 1
