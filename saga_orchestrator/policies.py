"""How events of the shop's logs reach the instances of the credit saga."""

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
from twinlog.policies import Policies, Step, on
from twinlog.ports import Clock
from twinlog.saga import Begin, Reply


def policies(clock: Clock) -> Sequence[Policies]:
    """The tables for both logs; the clock gives the time from which deadlines count."""

    def begin(event: OrderCreated) -> Step:
        return on(CREDIT_SAGAS, saga_id(event.order_id)).create(Begin(event, clock.now()))

    def reply(event: Any) -> Step:
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
            tag=SagaMode.Name(SAGA_MODE_ORCHESTRATION),
        ),
        Policies(
            log="customers",
            actor="saga_orchestrator",
            rules={
                CreditReserved: reply,
                CreditReservationFailed: reply,
                CreditReleased: reply,
            },
            tag=SagaMode.Name(SAGA_MODE_ORCHESTRATION),
        ),
    ]
