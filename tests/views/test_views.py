"""The projector's views as pure folds of events into rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message
from hypothesis import given as for_all
from hypothesis import strategies as st

from projector.views.customers import CUSTOMERS, CustomerRow
from projector.views.orders import ORDERS, OrderRow
from projector.views.timeline import TIMELINE, TimelineRow
from saga_orchestrator.credit_saga import saga_id
from shop.orders.v1.events_pb2 import SagaModeChanged
from shop.orders.v1.order_pb2 import (
    ORDER_STATE_APPROVED,
    ORDER_STATE_CANCELLED,
    ORDER_STATE_PENDING,
    ORDER_STATE_REJECTED,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    REJECTION_REASON_UNKNOWN_CUSTOMER,
    REJECTION_REASON_UNSPECIFIED,
)
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from tests.controls import (
    CUSTOMER_ID,
    LIMIT,
    ORDER_ID,
    TOTAL,
    approval_refused,
    credit_released,
    credit_reserved,
    customer_created,
    limit_changed,
    money,
    order_approved,
    order_cancelled,
    order_created,
    order_rejected,
    recorded,
    reservation_failed,
)
from twinlog import Recorded, Schema, StreamId, View
from twinlog.model.view import fold
from twinlog.testing import START
from twinlog.v1.dead_letters_pb2 import EventParked
from twinlog.v1.event_pb2 import EventsGivenUp
from twinlog.v1.saga_pb2 import SagaCompleted

ORDER = StreamId("order", ORDER_ID)
CUSTOMER = StreamId("customer", CUSTOMER_ID)
Row = TypeVar("Row")


def history(log: str, stream: StreamId, messages: Sequence[Message]) -> list[Recorded]:
    """Events of one stream, a second apart, from position 7."""
    return [
        recorded(message, log, 6 + n, stream, version=n, after=timedelta(seconds=n))
        for n, message in enumerate(messages, 1)
    ]


def folded(view: View[Row], events: Sequence[Recorded], batch: int = 100) -> dict[str, Row]:
    """The table after the events, taken in batches."""
    table: dict[str, Any] = {}
    decoded = [(event, message) for event in events for message in Schema().decode(event)]
    for start in range(0, len(decoded), batch):
        table.update(fold([view], decoded[start : start + batch], {view: table})[view])
    return table


def order_after(*messages: Message) -> OrderRow:
    return folded(ORDERS, history("orders", ORDER, [order_created(), *messages]))[ORDER_ID]


def customer_after(*messages: Message) -> CustomerRow:
    return folded(CUSTOMERS, history("customers", CUSTOMER, messages))[CUSTOMER_ID]


def test_a_new_order_is_pending_and_listed_by_its_position() -> None:
    assert order_after() == OrderRow(
        ORDER_ID,
        CUSTOMER_ID,
        TOTAL.nanos,
        "EUR",
        ORDER_STATE_PENDING,
        REJECTION_REASON_UNSPECIFIED,
        order_created().saga_mode,
        7,
        START + timedelta(seconds=1),
        START + timedelta(seconds=1),
        1,
    )


def test_an_order_shows_its_state_its_reason_and_its_last_change() -> None:
    approved = order_after(order_approved())
    assert (approved.state, approved.version) == (ORDER_STATE_APPROVED, 2)
    assert approved.updated_at == START + timedelta(seconds=2)
    assert approved.created_at == START + timedelta(seconds=1)
    rejected = order_after(order_rejected(REJECTION_REASON_INSUFFICIENT_CREDIT))
    assert (rejected.state, rejected.reason) == (ORDER_STATE_REJECTED, REJECTION_REASON_INSUFFICIENT_CREDIT)
    cancelled = order_after(order_approved(), order_cancelled())
    assert (cancelled.state, cancelled.reason) == (ORDER_STATE_CANCELLED, 0)


def test_a_refused_approval_leaves_the_state_as_it_is() -> None:
    refused = order_after(order_cancelled(), approval_refused(ORDER_STATE_CANCELLED))
    assert (refused.state, refused.version) == (ORDER_STATE_CANCELLED, 3)


def test_the_mode_is_no_order() -> None:
    changed = SagaModeChanged(saga_mode=SAGA_MODE_ORCHESTRATION)
    events = history("orders", StreamId("saga_mode", "shop"), [changed])
    assert not folded(ORDERS, events)
    assert not folded(TIMELINE, events)


def test_a_customer_shows_limit_and_what_is_reserved() -> None:
    row = customer_after(customer_created())
    assert (row.name, row.currency, row.limit_nanos, row.reserved_nanos) == ("Ada", "EUR", LIMIT.nanos, 0)
    assert row.created_position == 7
    assert customer_after(customer_created(), credit_reserved()).reserved_nanos == TOTAL.nanos
    assert customer_after(customer_created(), credit_reserved(), credit_released()).reserved_nanos == 0
    lowered = customer_after(customer_created(), credit_reserved(), limit_changed(money("1")))
    assert lowered.limit_nanos - lowered.reserved_nanos == money("1").nanos - TOTAL.nanos


def test_a_tombstone_and_a_refusal_change_no_credit() -> None:
    refusal = reservation_failed(REJECTION_REASON_INSUFFICIENT_CREDIT)
    assert customer_after(customer_created(), refusal, credit_released(None)).reserved_nanos == 0


def test_a_customer_that_was_only_asked_for_is_none_until_it_is_created() -> None:
    asked = reservation_failed(REJECTION_REASON_UNKNOWN_CUSTOMER)
    assert customer_after(asked).created_position == 0
    created = customer_after(asked, customer_created())
    assert (created.created_position, created.created_at) == (8, START + timedelta(seconds=2))


def test_the_timeline_keeps_what_belongs_to_an_order() -> None:
    created = recorded(order_created(), "orders", 3, ORDER, cause="rpc/CreateOrder", actor="client")
    row = folded(TIMELINE, [created])["orders/3"]
    assert row == TimelineRow(
        "orders",
        3,
        ORDER_ID,
        ORDER_ID,
        "shop.orders.v1.OrderCreated",
        created.payload,
        START,
        "rpc/CreateOrder",
        "correlation",
        "client",
    )
    assert not folded(TIMELINE, [recorded(customer_created(), "customers", 1, CUSTOMER)])


def test_the_timeline_keeps_events_of_a_saga_that_do_not_name_its_order() -> None:
    stream = StreamId("credit_saga", saga_id(ORDER_ID))
    row = folded(TIMELINE, [recorded(SagaCompleted(), "sagas", 9, stream)])["sagas/9"]
    assert (row.order_id, row.stream_id) == ("", stream.id)


@pytest.mark.parametrize(
    ("kind", "note"), [("dead_letters", EventParked()), ("given_up", EventsGivenUp(first=7, last=8))]
)
def test_what_concerns_a_consumer_or_a_repair_is_in_no_view(kind: str, note: Message) -> None:
    event = recorded(note, "sagas", 9, StreamId(kind, "sagas"))
    views: list[View[Any]] = [ORDERS, CUSTOMERS, TIMELINE]
    assert not any(folded(view, [event]) for view in views)


CHANGES = st.lists(
    st.sampled_from([credit_reserved(), credit_released(), limit_changed(money("3")), credit_released(None)]),
    max_size=12,
)


@for_all(CHANGES, st.integers(1, 13))
def test_however_events_are_batched_the_rows_are_the_same(changes: list[Message], batch: int) -> None:
    events = history("customers", CUSTOMER, [customer_created(), *changes])
    assert folded(CUSTOMERS, events, batch) == folded(CUSTOMERS, events)
