"""Orders as queries see them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from google.protobuf.message import Message

from shop.orders.v1.events_pb2 import OrderApproved, OrderCancelled, OrderCreated, OrderRejected
from shop.orders.v1.order_pb2 import (
    ORDER_STATE_APPROVED,
    ORDER_STATE_CANCELLED,
    ORDER_STATE_PENDING,
    ORDER_STATE_REJECTED,
    REJECTION_REASON_UNSPECIFIED,
    OrderState,
    RejectionReason,
)
from shop.orders.v1.saga_mode_pb2 import SagaMode
from twinlog import Money, Recorded, View

_STATE_AFTER: Mapping[type[Message], OrderState.ValueType] = {
    OrderApproved: ORDER_STATE_APPROVED,
    OrderRejected: ORDER_STATE_REJECTED,
    OrderCancelled: ORDER_STATE_CANCELLED,
}
"""Other events leave the state as it is."""


class OrderRow(NamedTuple):
    """One order."""

    order_id: str
    customer_id: str
    total_nanos: int
    currency: str
    state: OrderState.ValueType
    reason: RejectionReason.ValueType
    saga_mode: SagaMode.ValueType
    created_position: int
    """Position of OrderCreated in the orders log: the order in which orders are listed."""
    created_at: datetime
    updated_at: datetime
    version: int


def created(event: Recorded, message: OrderCreated) -> OrderRow:
    total = Money.of(message.total)
    return OrderRow(
        message.order_id,
        message.customer_id,
        total.nanos,
        total.currency,
        ORDER_STATE_PENDING,
        REJECTION_REASON_UNSPECIFIED,
        message.saga_mode,
        event.position,
        event.recorded_at,
        event.recorded_at,
        event.version,
    )


def evolve(row: OrderRow | None, event: Recorded, message: Any) -> OrderRow:
    if type(message) is OrderCreated:
        return created(event, message)
    assert row is not None, "a stream of orders begins with OrderCreated"
    return row._replace(
        state=_STATE_AFTER.get(type(message), row.state),
        reason=message.reason if type(message) is OrderRejected else row.reason,
        updated_at=event.recorded_at,
        version=event.version,
    )


def key(event: Recorded, _message: Any) -> str | None:
    return event.stream.id if event.stream.type == "order" else None


ORDERS = View("orders", key, evolve, created_by=OrderCreated, events=[Message])
"""A row's version counts every event of its stream."""
