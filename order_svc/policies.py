"""How order_svc reacts to the other logs."""

from __future__ import annotations

from order_svc.domain import ORDER, ApproveOrder, RejectOrder
from shop.customers.v1.events_pb2 import CreditReservationFailed, CreditReserved
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SagaMode
from shop.sagas.v1 import commands_pb2 as saga
from twinlog import Policies, on

CHOREOGRAPHY = Policies(
    log="customers",
    actor="order_svc",
    rules={
        CreditReserved: lambda e: on(ORDER, e.order_id).do(ApproveOrder()),
        CreditReservationFailed: lambda e: on(ORDER, e.order_id).do(RejectOrder(e.reason)),
    },
    routing_key=SagaMode.Name(SAGA_MODE_CHOREOGRAPHY),
)

ORCHESTRATION = Policies(
    log="sagas",
    actor="order_svc",
    rules={
        saga.ApproveOrder: lambda e: on(ORDER, e.order_id).do(ApproveOrder()),
        saga.RejectOrder: lambda e: on(ORDER, e.order_id).do(RejectOrder(e.reason)),
    },
    routing_key="order_svc",
)
