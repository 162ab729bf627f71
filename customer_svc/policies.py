"""How customer_svc reacts to the other logs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from customer_svc.domain import CUSTOMER, ReleaseCredit, ReserveCredit, week_of
from shop.orders.v1.events_pb2 import OrderCancelled, OrderCreated, OrderRejected
from shop.orders.v1.order_pb2 import REJECTION_REASON_DEADLINE_EXCEEDED
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION, SagaMode
from shop.sagas.v1 import commands_pb2 as saga
from twinlog import Clock, Dispatch, Money, Policies, on


def policies(clock: Clock) -> Sequence[Policies]:
    """The tables for both logs; ``clock`` dates the reservations."""

    def reserve(order: OrderCreated | saga.ReserveCredit, mode: SagaMode.ValueType) -> Dispatch:
        deadline = order.deadline.ToDatetime(UTC) if order.HasField("deadline") else None
        week = week_of(clock.now(), deadline)
        total = Money.of(order.total)
        command = ReserveCredit(order.customer_id, order.order_id, total, mode, deadline, week)
        return on(CUSTOMER, order.customer_id).do(command)

    return [
        Policies(
            log="orders",
            actor="customer_svc",
            rules={
                OrderCreated: lambda e: reserve(e, SAGA_MODE_CHOREOGRAPHY),
                OrderCancelled: lambda e: release(e, SAGA_MODE_CHOREOGRAPHY),
                OrderRejected: release_if_unanswered,
            },
            routing_key=SagaMode.Name(SAGA_MODE_CHOREOGRAPHY),
        ),
        Policies(
            log="sagas",
            actor="customer_svc",
            rules={
                saga.ReserveCredit: lambda e: reserve(e, SAGA_MODE_ORCHESTRATION),
                saga.ReleaseCredit: lambda e: release(e, SAGA_MODE_ORCHESTRATION),
            },
            routing_key="customer_svc",
        ),
    ]


def release(order: OrderCancelled | OrderRejected | saga.ReleaseCredit, mode: SagaMode.ValueType) -> Dispatch:
    return on(CUSTOMER, order.customer_id).do(ReleaseCredit(order.customer_id, order.order_id, mode))


def release_if_unanswered(order: OrderRejected) -> Dispatch | None:
    """Any other rejection followed from a failed reservation: nothing is held."""
    unanswered = order.reason == REJECTION_REASON_DEADLINE_EXCEEDED
    return release(order, SAGA_MODE_CHOREOGRAPHY) if unanswered else None
