"""Orders: PENDING → APPROVED | REJECTED; PENDING or APPROVED → CANCELLED."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from google.protobuf.message import Message

from shop.orders.v1.events_pb2 import (
    OrderApprovalRefused,
    OrderApproved,
    OrderCancelled,
    OrderCreated,
    OrderRejected,
    SagaModeChanged,
)
from shop.orders.v1.order_pb2 import (
    ORDER_STATE_CANCELLED,
    ORDER_STATE_REJECTED,
    REJECTION_REASON_DEADLINE_EXCEEDED,
    RejectionReason,
)
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_UNSPECIFIED, SagaMode
from twinlog import Aggregate, AlreadyExists, Events, FailedPrecondition, Money, NotFound, timestamp

# --- state ---


class State(StrEnum):
    """Where an order stands."""

    NONE = "none"
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Order:
    """One order."""

    state: State = State.NONE
    order_id: str = ""
    customer_id: str = ""
    saga_mode: SagaMode.ValueType = SAGA_MODE_UNSPECIFIED
    deadline: datetime | None = None
    approval_refused: bool = False


# --- commands ---


@dataclass(frozen=True, slots=True)
class CreateOrder:
    order_id: str
    customer_id: str
    total: Money
    saga_mode: SagaMode.ValueType
    deadline: datetime
    """When the order is rejected if it is still PENDING."""


@dataclass(frozen=True, slots=True)
class ApproveOrder:
    """The credit is reserved."""


@dataclass(frozen=True, slots=True)
class RejectOrder:
    """There will be no credit."""

    reason: RejectionReason.ValueType


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """The client takes the order back."""


@dataclass(frozen=True, slots=True)
class ExpireOrder:
    """The deadline has come."""


Command = CreateOrder | ApproveOrder | RejectOrder | CancelOrder | ExpireOrder


# --- errors ---


class OrderExists(AlreadyExists):
    """There is an order {order_id} already; leave order_id out, or use a new UUID."""

    reason = "ORDER_EXISTS"


class OrderNotFound(NotFound):
    """There is no such order."""

    reason = "ORDER_NOT_FOUND"


class OrderNotCancellable(FailedPrecondition):
    """Order {order_id} is {state}; only a pending or an approved order can be cancelled."""

    reason = "ORDER_NOT_CANCELLABLE"


# --- evolve ---


def evolve(order: Order, event: Message) -> Order:
    match event:
        case OrderCreated():
            return Order(
                State.PENDING,
                event.order_id,
                event.customer_id,
                event.saga_mode,
                event.deadline.ToDatetime(UTC),
            )
        case OrderApproved():
            return replace(order, state=State.APPROVED)
        case OrderRejected():
            return replace(order, state=State.REJECTED)
        case OrderCancelled():
            return replace(order, state=State.CANCELLED)
        case OrderApprovalRefused():
            return replace(order, approval_refused=True)
    return order


# --- decide ---


def decide(order: Order, command: Command) -> Events:
    ids: dict[str, Any] = {
        "order_id": order.order_id,
        "customer_id": order.customer_id,
        "saga_mode": order.saga_mode,
    }
    match command, order.state:
        case CreateOrder(), State.NONE:
            return [_created(command)]
        case CreateOrder(), _:
            raise OrderExists(order_id=order.order_id)
        case ApproveOrder() | CancelOrder(), State.NONE:
            raise OrderNotFound
        case ApproveOrder(), State.PENDING:
            return [OrderApproved(**ids)]
        case ApproveOrder(), State.CANCELLED if not order.approval_refused:
            return [OrderApprovalRefused(**ids, state=ORDER_STATE_CANCELLED)]
        case ApproveOrder(), State.REJECTED if not order.approval_refused:
            return [OrderApprovalRefused(**ids, state=ORDER_STATE_REJECTED)]
        case RejectOrder(reason), State.PENDING:
            return [OrderRejected(**ids, reason=reason)]
        case ExpireOrder(), State.PENDING:
            return [OrderRejected(**ids, reason=REJECTION_REASON_DEADLINE_EXCEEDED)]
        case CancelOrder(), State.PENDING | State.APPROVED:
            return [OrderCancelled(**ids)]
        case CancelOrder(), State.REJECTED:
            raise OrderNotCancellable(order_id=order.order_id, state=order.state)
    return []  # a repeat, or too late: another outcome came first


def _created(command: CreateOrder) -> OrderCreated:
    return OrderCreated(
        order_id=command.order_id,
        customer_id=command.customer_id,
        total=command.total.to_proto(),
        saga_mode=command.saga_mode,
        deadline=timestamp(command.deadline),
    )


def due(order: Order) -> datetime | None:
    """When a pending order expires: in either mode, since an orchestrator may be down."""
    return order.deadline if order.state is State.PENDING else None


ORDER: Aggregate[Order, Command] = Aggregate(
    "order",
    Order(),
    decide,
    evolve,
    partition_key=lambda order: order.customer_id,
    due=due,
    on_due=lambda _order, _now: ExpireOrder(),
)


# --- the mode of new orders: a stream, so that every replica decides on the newest ---


@dataclass(frozen=True, slots=True)
class Mode:
    """How the sagas of new orders are run."""

    saga_mode: SagaMode.ValueType = SAGA_MODE_CHOREOGRAPHY


@dataclass(frozen=True, slots=True)
class SetSagaMode:
    saga_mode: SagaMode.ValueType


def decide_mode(mode: Mode, command: SetSagaMode) -> Events:
    if command.saga_mode == mode.saga_mode:
        return []
    return [SagaModeChanged(saga_mode=command.saga_mode)]


def evolve_mode(mode: Mode, event: Message) -> Mode:
    return Mode(event.saga_mode) if isinstance(event, SagaModeChanged) else mode


SAGA_MODE: Aggregate[Mode, SetSagaMode] = Aggregate(
    "saga_mode", Mode(), decide_mode, evolve_mode, partition_key=lambda _mode: "shop"
)
SHOP = "shop"
"""The id of the one stream that holds the mode."""
