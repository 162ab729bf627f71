"""Orders as given / when / then on values: every command in every state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given as for_all
from hypothesis import strategies as st

from order_svc.domain import (
    ORDER,
    SAGA_MODE,
    ApproveOrder,
    CancelOrder,
    Command,
    CreateOrder,
    ExpireOrder,
    OrderExists,
    OrderNotCancellable,
    OrderNotFound,
    RejectOrder,
    SetSagaMode,
    State,
)
from shop.orders.v1.events_pb2 import SagaModeChanged
from shop.orders.v1.order_pb2 import (
    ORDER_STATE_CANCELLED,
    ORDER_STATE_REJECTED,
    REJECTION_REASON_CURRENCY_MISMATCH,
    REJECTION_REASON_DEADLINE_EXCEEDED,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    REJECTION_REASON_UNKNOWN_CUSTOMER,
    OrderState,
    RejectionReason,
)
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from tests.controls import (
    CUSTOMER_ID,
    DEADLINE,
    MODES,
    ORDER_ID,
    TOTAL,
    Mode,
    approval_refused,
    order_approved,
    order_cancelled,
    order_created,
    order_rejected,
)
from twinlog.testing import START, given
from twinlog.testing.internals import StateCodec

REASONS = [
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    REJECTION_REASON_UNKNOWN_CUSTOMER,
    REJECTION_REASON_CURRENCY_MISMATCH,
    REJECTION_REASON_DEADLINE_EXCEEDED,
]
CREATE = CreateOrder(ORDER_ID, CUSTOMER_ID, TOTAL, SAGA_MODE_CHOREOGRAPHY, DEADLINE)
REJECT = RejectOrder(REJECTION_REASON_INSUFFICIENT_CREDIT)

PENDING = [order_created()]
APPROVED = [*PENDING, order_approved()]
REJECTED = [*PENDING, order_rejected(REJECTION_REASON_INSUFFICIENT_CREDIT)]
CANCELLED = [*PENDING, order_cancelled()]
CANCELLED_AFTER_APPROVAL = [*APPROVED, order_cancelled()]


@pytest.mark.parametrize("mode", MODES)
def test_is_created_pending_with_its_mode_and_deadline(mode: Mode) -> None:
    create = CreateOrder(ORDER_ID, CUSTOMER_ID, TOTAL, mode, DEADLINE)
    created = given(ORDER).when(create).then(order_created(mode=mode))
    assert created.state.state is State.PENDING
    assert (created.state.saga_mode, created.state.deadline) == (mode, DEADLINE)


@pytest.mark.parametrize("past", [PENDING, APPROVED, REJECTED, CANCELLED])
def test_is_created_once(past: Sequence[Message]) -> None:
    given(ORDER, *past).when(CREATE).then_refused(OrderExists, order_id=ORDER_ID)


@pytest.mark.parametrize("mode", MODES)
def test_is_approved_while_pending(mode: Mode) -> None:
    approved = given(ORDER, order_created(mode=mode)).when(ApproveOrder()).then(order_approved(mode=mode))
    assert approved.state.state is State.APPROVED


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reason", REASONS)
def test_is_rejected_while_pending_with_the_reason_it_was_given(
    reason: RejectionReason.ValueType, mode: Mode
) -> None:
    pending = given(ORDER, order_created(mode=mode))
    rejected = pending.when(RejectOrder(reason)).then(order_rejected(reason, mode=mode))
    assert rejected.state.state is State.REJECTED


def test_is_rejected_at_its_deadline_while_pending() -> None:
    expired = order_rejected(REJECTION_REASON_DEADLINE_EXCEEDED)
    given(ORDER, *PENDING).when(ExpireOrder()).then(expired)


@pytest.mark.parametrize("past", [PENDING, APPROVED])
def test_is_cancelled_while_pending_or_approved(past: Sequence[Message]) -> None:
    cancelled = given(ORDER, *past).when(CancelOrder()).then(order_cancelled())
    assert cancelled.state.state is State.CANCELLED


def test_a_rejected_order_cannot_be_cancelled() -> None:
    rejected = given(ORDER, *REJECTED).when(CancelOrder())
    rejected.then_refused(OrderNotCancellable, order_id=ORDER_ID, state="rejected")


@pytest.mark.parametrize("command", [ApproveOrder(), CancelOrder()])
def test_an_unknown_order_is_not_found(command: Command) -> None:
    given(ORDER).when(command).then_refused(OrderNotFound)


@pytest.mark.parametrize(
    ("past", "state"),
    [
        (CANCELLED, ORDER_STATE_CANCELLED),
        (CANCELLED_AFTER_APPROVAL, ORDER_STATE_CANCELLED),
        (REJECTED, ORDER_STATE_REJECTED),
    ],
)
def test_credit_that_comes_too_late_is_refused_once(
    past: Sequence[Message], state: OrderState.ValueType
) -> None:
    refusal = approval_refused(state)
    given(ORDER, *past).when(ApproveOrder()).then(refusal).when(ApproveOrder()).then_nothing()


@pytest.mark.parametrize(
    ("past", "command"),
    [
        (APPROVED, ApproveOrder()),
        (APPROVED, REJECT),
        (APPROVED, ExpireOrder()),
        (REJECTED, REJECT),
        (REJECTED, RejectOrder(REJECTION_REASON_UNKNOWN_CUSTOMER)),
        (REJECTED, ExpireOrder()),
        (CANCELLED, CancelOrder()),
        (CANCELLED, REJECT),
        (CANCELLED, ExpireOrder()),
        ([], REJECT),
        ([], ExpireOrder()),
    ],
)
def test_a_repeat_or_an_answer_too_late_changes_nothing(past: Sequence[Message], command: Command) -> None:
    given(ORDER, *past).when(command).then_nothing()


@pytest.mark.parametrize("mode", MODES)
def test_a_pending_order_waits_for_its_deadline_in_either_mode(mode: Mode) -> None:
    pending = ORDER.fold([order_created(mode=mode)])
    assert ORDER.due(pending) == DEADLINE
    assert ORDER.on_due(pending, START) == ExpireOrder()


@pytest.mark.parametrize("past", [[], APPROVED, REJECTED, CANCELLED])
def test_an_order_that_is_not_pending_waits_for_nothing(past: Sequence[Message]) -> None:
    assert ORDER.due(ORDER.fold(past)) is None


def test_all_events_of_an_order_go_by_its_customer() -> None:
    assert {ORDER.partition_key(ORDER.fold(past)) for past in (PENDING, APPROVED, CANCELLED)} == {CUSTOMER_ID}


LEGAL = {
    (State.NONE, State.PENDING),
    (State.PENDING, State.APPROVED),
    (State.PENDING, State.REJECTED),
    (State.PENDING, State.CANCELLED),
    (State.APPROVED, State.CANCELLED),
}
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.sampled_from([ApproveOrder(), CancelOrder(), ExpireOrder()]), st.sampled_from(REASONS).map(RejectOrder)
)


@for_all(st.sampled_from(MODES), st.lists(COMMANDS, max_size=8))
def test_any_order_of_commands_keeps_to_the_legal_transitions(mode: Mode, commands: list[Command]) -> None:
    order = ORDER.fold([order_created(mode=mode)])
    for command in commands:
        if order.state is State.REJECTED and command == CancelOrder():
            with pytest.raises(OrderNotCancellable):
                ORDER.decide(order, command)
            continue
        events: Sequence[Any] = ORDER.decide(order, command)
        after = ORDER.fold(events, order)
        assert not ORDER.decide(after, command), "a repeat decides nothing"
        assert after.state is order.state or (order.state, after.state) in LEGAL
        assert (after.order_id, after.customer_id, after.saga_mode) == (ORDER_ID, CUSTOMER_ID, mode)
        assert all(event.saga_mode == mode for event in events)
        order = after


def test_the_mode_of_new_orders_is_choreography_until_it_is_changed() -> None:
    assert SAGA_MODE.initial.saga_mode == SAGA_MODE_CHOREOGRAPHY
    given(SAGA_MODE).when(SetSagaMode(SAGA_MODE_CHOREOGRAPHY)).then_nothing()
    changed = given(SAGA_MODE).when(SetSagaMode(SAGA_MODE_ORCHESTRATION))
    back = changed.then(SagaModeChanged(saga_mode=SAGA_MODE_ORCHESTRATION))
    back.when(SetSagaMode(SAGA_MODE_CHOREOGRAPHY)).then(SagaModeChanged(saga_mode=SAGA_MODE_CHOREOGRAPHY))


@pytest.mark.parametrize("past", [PENDING, APPROVED, REJECTED, CANCELLED])
def test_its_state_survives_a_snapshot(past: Sequence[Message]) -> None:
    codec, order = StateCodec(ORDER), ORDER.fold(past)
    restored = codec.decode(codec.encode(order))
    assert restored == order
    assert restored.deadline is not None
    assert restored.deadline.tzinfo == UTC
