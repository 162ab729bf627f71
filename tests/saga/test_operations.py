"""What operators order a saga to do, and sagas whose table or mode changes while they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration

from saga_orchestrator.credit_saga import CREDIT_SAGA, CREDIT_SAGAS, saga_id
from saga_orchestrator.service import SagaNotFound, SagaService
from saga_orchestrator.views import SAGAS, SagaRow
from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.customers.v1.events_pb2 import CreditLimitChanged
from shop.orders.v1.order_pb2 import ORDER_STATE_REJECTED, REJECTION_REASON_ABORTED
from shop.orders.v1.order_service_pb2 import CreateOrderRequest, SetSagaModeRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from shop.sagas.v1 import commands_pb2 as commands
from shop.sagas.v1 import saga_service_pb2 as pb
from tests.controls import money
from tests.memory_shop import MemoryShop, NoContext
from tests.saga.test_credit_saga import (
    APPROVED,
    BEGIN,
    CANCELLED,
    NOW,
    RELEASED,
    RESERVED,
    after,
    decided,
    names,
    reply,
)
from twinlog import Abort, InvalidArgument, Retry, Saga, SagaStatus, Skip, Step, saga_aggregate
from twinlog.model.saga import Wake
from twinlog.model.saga_decider import NotAbortable, NothingAwaited, NotUndoable
from twinlog.rpc import ChosenSagas, Commands, PageTokens, SagaKey, SelectedSagas
from twinlog.testing import MemoryViews
from twinlog.testing.internals import StepState

RETRY, SKIP, ABORT = Retry("x", NOW), Skip("x", NOW), Abort("x", NOW)


def test_a_retry_sends_the_awaited_command_again_and_counts_anew() -> None:
    assert names(decided(BEGIN, RETRY)) == ["SagaRetryRequested", "ReserveCredit"]
    assert names(decided(BEGIN, reply(RESERVED), RETRY)) == ["SagaRetryRequested", "ApproveOrder"]
    assert names(decided(BEGIN, reply(CANCELLED), RETRY)) == ["SagaRetryRequested", "ReleaseCredit"]
    instance = after(BEGIN, reply(CANCELLED))
    for _ in range(CREDIT_SAGA.backoff.attention_after):
        assert instance.deadline
        instance = CREDIT_SAGAS.fold(CREDIT_SAGAS.decide(instance, Wake(instance.deadline)), instance)
    assert instance.needs_attention
    again = CREDIT_SAGAS.fold(CREDIT_SAGAS.decide(instance, RETRY), instance)
    assert (again.attempts, again.needs_attention) == (1, False)


def test_a_skipped_step_counts_as_done() -> None:
    assert names(decided(BEGIN, SKIP)) == ["SagaStepSkipped", "ApproveOrder"]
    last = CREDIT_SAGAS.fold(decided(BEGIN, reply(RESERVED), SKIP), after(BEGIN, reply(RESERVED)))
    assert (last.status, last.steps) == (SagaStatus.COMPLETED, (StepState.DONE, StepState.SKIPPED))


def test_a_skipped_step_is_undone_like_one_that_was_done() -> None:
    skipped = CREDIT_SAGAS.fold(decided(BEGIN, SKIP), after(BEGIN))
    assert names(CREDIT_SAGAS.decide(skipped, reply(CANCELLED))) == ["SagaInterrupted", "ReleaseCredit"]


def test_a_skipped_compensation_counts_as_undone_and_is_not_tried_again() -> None:
    past = CREDIT_SAGAS.fold(decided(BEGIN, ABORT), after(BEGIN))
    events = CREDIT_SAGAS.decide(past, SKIP)
    assert names(events) == ["SagaStepSkipped", "RejectOrder"]
    closing = CREDIT_SAGAS.fold(events, past)
    assert closing.steps[0] is StepState.UNDO_SKIPPED
    assert names(CREDIT_SAGAS.decide(closing, SKIP)) == ["SagaStepSkipped", "SagaCompensated"]


def test_an_aborted_saga_undoes_what_it_did_and_rejects_the_order() -> None:
    assert names(decided(BEGIN, ABORT)) == ["SagaAborted", "ReleaseCredit"]
    aborted = CREDIT_SAGAS.fold(decided(BEGIN, ABORT), after(BEGIN))
    closing = CREDIT_SAGAS.decide(aborted, reply(RELEASED))
    assert closing[-1] == commands.RejectOrder(order_id="o", customer_id="c", reason=REJECTION_REASON_ABORTED)
    assert CREDIT_SAGAS.fold(closing, aborted).reason == "x"


def test_what_cannot_be_is_refused_and_what_can_is_told() -> None:
    ended = after(BEGIN, reply(RESERVED), reply(APPROVED))
    for command in (RETRY, SKIP, ABORT):
        with pytest.raises(NothingAwaited, match="completed"):
            CREDIT_SAGAS.decide(ended, command)
    with pytest.raises(NotUndoable, match="approve order"):
        CREDIT_SAGAS.decide(after(BEGIN, reply(RESERVED)), ABORT)
    with pytest.raises(NotAbortable, match="retried or skipped"):
        CREDIT_SAGAS.decide(after(BEGIN, reply(CANCELLED)), ABORT)


def test_a_changed_table_leaves_instances_in_flight_alone() -> None:
    check = Step("check", send=lambda saga: commands.ApproveOrder(order_id="check"), done=CreditLimitChanged)
    changed = saga_aggregate(CREDIT_SAGA, with_version_2(check))
    old = after(BEGIN)
    assert names(changed.decide(old, reply(RESERVED))) == ["SagaStepSucceeded", "ApproveOrder"]
    old = changed.fold(changed.decide(old, reply(RESERVED)), old)
    assert names(changed.decide(old, reply(APPROVED))) == ["SagaCompleted"]
    new = changed.fold(changed.decide(changed.initial, BEGIN))
    assert (old.version, new.version, len(new.steps)) == (1, 2, 3)


def with_version_2(first: Step) -> Saga:
    return replace(CREDIT_SAGA, version=2, steps=[first, *CREDIT_SAGA.steps])


# --- in the shop ---


@dataclass
class SagaRows:
    """The list of sagas over views in memory, as both of its readers ask for it."""

    views: MemoryViews

    async def list(self, status: int, before: int, limit: int) -> Sequence[SagaRow]:
        rows = [row for row in self._rows() if status in (0, row.status) and row.started_position < before]
        return sorted(rows, key=lambda row: -row.started_position)[:limit]

    async def select(self, chosen: ChosenSagas, limit: int) -> SelectedSagas:
        found = [
            SagaKey(CREDIT_SAGA.name, row.saga_id)
            for row in sorted(self._rows(), key=lambda row: row.started_position)
            if int(row.status) in map(int, chosen.statuses)
            and chosen.subject in ("", row.customer_id)
            and row.started_at <= chosen.started_before
        ]
        return SelectedSagas(found[:limit], len(found))

    def _rows(self) -> Sequence[SagaRow]:
        return list(self.views.tables.get(SAGAS.name, {}).values())


def service(shop: MemoryShop) -> SagaService:
    node = shop.saga_orchestrator
    rows: Any = SagaRows(shop.saga_views)
    return SagaService(Commands(node.log, node.writer), rows, rows, PageTokens(b"key"), shop.clock)


async def order(shop: MemoryShop, customer: str = "", mode: Any = SAGA_MODE_ORCHESTRATION) -> str:
    if not customer:
        customer = await a_customer(shop)
    request = CreateOrderRequest(customer_id=customer, total=money("12").to_proto(), saga_mode=mode)
    return str((await shop.orders.CreateOrder(request, NoContext())).order_id)


async def a_customer(shop: MemoryShop) -> str:
    request = CreateCustomerRequest(name="Ada", credit_limit=money("100").to_proto())
    return str((await shop.customers.CreateCustomer(request, NoContext())).customer_id)


async def shown(shop: MemoryShop, order_id: str) -> pb.Saga:
    return (await service(shop).GetSaga(pb.GetSagaRequest(order_id=order_id), NoContext())).saga


async def test_an_abort_reaches_the_order_and_is_answered_once_a_request() -> None:
    async with MemoryShop() as shop:
        shop.customer_svc.works.clear()
        order_id = await order(shop)
        await shop.settle()
        request = pb.AbortSagasRequest(
            request_id=str(uuid4()), selection=pb.SagaSelection(order_id=order_id), reason="a typo"
        )
        first = await service(shop).AbortSagas(request, NoContext())
        assert (first.selected, first.applied) == (1, 1)
        assert await service(shop).AbortSagas(request, NoContext()) == first
        shop.customer_svc.works.set()
        await shop.settle()
        assert (await shown(shop, order_id)).status == pb.SAGA_STATUS_COMPENSATED
        row = shop.views.tables["orders"][order_id]
        assert (row.state, row.reason) == (ORDER_STATE_REJECTED, REJECTION_REASON_ABORTED)


async def test_a_filter_is_counted_first_then_obeyed_up_to_the_limit() -> None:
    async with MemoryShop() as shop:
        shop.customer_svc.works.clear()
        customer = await a_customer(shop)
        mine = [await order(shop, customer) for _ in range(3)]
        await order(shop)
        await shop.settle()
        chosen = pb.SagaSelection(filter=pb.SagaFilter(customer_id=customer))
        asked = pb.RetrySagasRequest(selection=chosen, dry_run=True)
        assert (await service(shop).RetrySagas(asked, NoContext())).selected == 3
        asked = pb.RetrySagasRequest(selection=chosen, limit=2)
        done = await service(shop).RetrySagas(asked, NoContext())
        assert (done.selected, done.applied) == (3, 2)
        assert [outcome.saga_id for outcome in done.outcomes] == [saga_id(id) for id in mine[:2]]
        chosen.filter.older_than.CopyFrom(Duration(seconds=60))
        asked = pb.RetrySagasRequest(selection=chosen)
        assert (await service(shop).RetrySagas(asked, NoContext())).selected == 0
        shop.customer_svc.works.set()
        await shop.settle()
        assert {(await shown(shop, id)).status for id in mine} == {pb.SAGA_STATUS_COMPLETED}


async def test_there_must_be_such_a_saga_and_a_reason() -> None:
    async with MemoryShop() as shop:
        none = pb.SagaSelection(saga_id=str(uuid4()))
        with pytest.raises(SagaNotFound):
            await service(shop).RetrySagas(pb.RetrySagasRequest(selection=none), NoContext())
        with pytest.raises(InvalidArgument) as refused:
            await service(shop).SkipSagaStep(pb.SkipSagaStepRequest(), NoContext())
        assert set(refused.value.violations) == {"selection", "reason"}
        future = pb.SagaSelection(filter=pb.SagaFilter(older_than=Duration(seconds=-1)))
        with pytest.raises(InvalidArgument) as refused:
            await service(shop).RetrySagas(pb.RetrySagasRequest(selection=future), NoContext())
    assert set(refused.value.violations) == {"selection.filter.older_than"}


async def test_a_saga_that_needs_attention_goes_on_by_itself_once_the_cause_is_gone() -> None:
    async with MemoryShop() as shop:
        shop.customer_svc.works.clear()
        order_id = await order(shop)
        await shop.settle()
        for _ in range(12):
            await shop.let_pass(timedelta(minutes=6))
            await shop.settle()
        assert (await shown(shop, order_id)).status == pb.SAGA_STATUS_NEEDS_ATTENTION
        listed = shop.saga_views.tables[SAGAS.name][saga_id(order_id)]
        assert listed.status == pb.SAGA_STATUS_NEEDS_ATTENTION
        shop.customer_svc.works.set()
        await shop.settle()
        assert (await shown(shop, order_id)).status == pb.SAGA_STATUS_COMPENSATED


async def test_a_saga_finishes_in_its_mode_across_a_switch() -> None:
    async with MemoryShop() as shop:
        shop.customer_svc.works.clear()
        old = await order(shop)
        await shop.settle()
        switch = SetSagaModeRequest(saga_mode=SAGA_MODE_CHOREOGRAPHY)
        await shop.orders.SetSagaMode(switch, NoContext())
        new = await order(shop, mode=0)
        shop.customer_svc.works.set()
        await shop.settle()
        assert (await shown(shop, old)).status == pb.SAGA_STATUS_COMPLETED
        with pytest.raises(SagaNotFound):
            await shown(shop, new)
        assert {shop.views.tables["orders"][id].state for id in (old, new)} == {2}
