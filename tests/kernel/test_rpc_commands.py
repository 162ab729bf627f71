"""The edge of commands: what it does for every method, so that none can forget it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import pytest
from google.protobuf.message import Message

from shop.orders.v1.order_service_pb2 import (
    CancelOrderRequest,
    CancelOrderResponse,
    CreateOrderRequest,
    CreateOrderResponse,
    SetSagaModeRequest,
    SetSagaModeResponse,
)
from shop.sagas.v1.saga_service_pb2 import RetrySagasRequest, RetrySagasResponse, SagaSelection
from tests.controls import new_id
from tests.kernel.counter import COUNTER, Add
from tests.memory_shop import NoContext
from twinlog import InvalidArgument, Schema, Transaction, Writer
from twinlog.log.ports import StoredReply
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


async def test_an_id_in_any_spelling_is_the_same_id() -> None:
    """Whatever a check has normalized counts in its normal spelling."""
    given: dict[str, Any] = {"request_id": new_id(), "order_id": new_id(), "customer_id": new_id()}
    for upper in [{}, *({name: id.upper()} for name, id in given.items())]:
        request = CreateOrderRequest(**(given | upper))
        assert identity(request) == identity(CreateOrderRequest(**given)), upper


def identity(request: CreateOrderRequest) -> tuple[str, bytes]:
    checks = Checks()
    for field in ("order_id", "customer_id"):
        checks.uuid(field, getattr(request, field))
    found = Commands.check(request, checks, CreateOrderResponse)
    assert found is not None
    return found.request_id, found.fingerprint


def test_an_id_inside_the_request_counts_in_its_normal_spelling_too() -> None:
    id, request_id = new_id(), new_id()
    found = set()
    for given in (id, id.upper()):
        request = RetrySagasRequest(request_id=request_id, selection=SagaSelection(order_id=given))
        checks = Checks()
        checks.uuid("selection.order_id", given)
        identity = Commands.check(request, checks, RetrySagasResponse)
        assert identity is not None
        assert request.selection.order_id == given, "it is left as it is"
        found.add(identity.fingerprint)
    assert len(found) == 1


async def test_what_the_first_release_kept_for_an_upper_case_request_is_found() -> None:
    """It kept the request as it was given."""
    request = CancelOrderRequest(request_id=new_id(), order_id=new_id().upper())
    as_kept = sha256(b"shop.orders.v1.CancelOrderRequest\0" + request.SerializeToString(deterministic=True))
    async with commands() as (edge, log):
        answer = CancelOrderResponse(order_id="then")
        log.replies[request.request_id] = StoredReply(
            request.request_id, as_kept.digest(), answer.SerializeToString(), 0
        )
        checks = Checks()
        checks.uuid("order_id", request.order_id)
        assert (await cancelled(edge, request, checks)).order_id == "then"


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
