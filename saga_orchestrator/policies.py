"""Which events of the shop's logs start the credit saga, and which answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saga_orchestrator.credit_saga import CREDIT_SAGAS, saga_id
from shop.customers.v1.events_pb2 import CreditReleased, CreditReservationFailed, CreditReserved
from shop.orders.v1.events_pb2 import (
    OrderApprovalRefused,
    OrderApproved,
    OrderCancelled,
    OrderCreated,
    OrderRejected,
)
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION, SagaMode
from twinlog import Begin, Clock, Dispatch, Policies, Reply, on


def policies(clock: Clock) -> Sequence[Policies]:
    """The tables for both logs; ``clock`` gives the time from which deadlines count."""

    def begin(event: OrderCreated) -> Dispatch:
        return on(CREDIT_SAGAS, saga_id(event.order_id)).create(Begin(event, clock.now()))

    def reply(event: Any) -> Dispatch:
        return on(CREDIT_SAGAS, saga_id(event.order_id)).do(Reply(event, clock.now()))

    return [
        Policies(
            log="orders",
            actor="saga_orchestrator",
            rules={
                OrderCreated: begin,
                OrderApproved: reply,
                OrderApprovalRefused: reply,
                OrderRejected: reply,
                OrderCancelled: reply,
            },
            routing_key=SagaMode.Name(SAGA_MODE_ORCHESTRATION),
        ),
        Policies(
            log="customers",
            actor="saga_orchestrator",
            rules={
                CreditReserved: reply,
                CreditReservationFailed: reply,
                CreditReleased: reply,
            },
            routing_key=SagaMode.Name(SAGA_MODE_ORCHESTRATION),
        ),
    ]
