"""How events of the shop's logs reach the instances of the credit saga."""

from __future__ import annotations

from collections.abc import Sequence

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
from twinlog.policies import Policies, Rule, on
from twinlog.ports import Clock
from twinlog.saga import Begin, Reply


def policies(clock: Clock) -> Sequence[Policies]:
    """The tables for both logs; the clock gives the time from which deadlines count."""

    def to_saga(command: type[Begin] | type[Reply]) -> Rule:
        return lambda event: on(CREDIT_SAGAS, saga_id(event.order_id)).do(command(event, clock.now()))

    return [
        Policies(
            log="orders",
            actor="saga_orchestrator",
            rules={
                OrderCreated: to_saga(Begin),
                OrderApproved: to_saga(Reply),
                OrderApprovalRefused: to_saga(Reply),
                OrderRejected: to_saga(Reply),
                OrderCancelled: to_saga(Reply),
            },
            tag=SagaMode.Name(SAGA_MODE_ORCHESTRATION),
        ),
        Policies(
            log="customers",
            actor="saga_orchestrator",
            rules={
                CreditReserved: to_saga(Reply),
                CreditReservationFailed: to_saga(Reply),
                CreditReleased: to_saga(Reply),
            },
            tag=SagaMode.Name(SAGA_MODE_ORCHESTRATION),
        ),
    ]
