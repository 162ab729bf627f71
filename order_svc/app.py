"""The wiring of order_svc."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from order_svc.domain import ORDER, SAGA_MODE
from order_svc.policies import CHOREOGRAPHY, ORCHESTRATION
from order_svc.service import OrderService
from twinlog import Address, Service, ServiceSpec, Settings
from twinlog.rpc import Commands


class OrderSettings(Settings):
    """The settings of order_svc."""

    orders_address: Address = "127.0.0.1:50051"
    """Where order_svc serves."""
    order_deadline_seconds: float = Field(30.0, gt=0, le=86_400)
    """How long an order may stay PENDING before it is rejected."""


SPEC = ServiceSpec(
    name="order_svc",
    log="orders",
    database="shop_orders",
    domain="shop",
    settings=OrderSettings,
    address="orders_address",
    aggregates=(ORDER, SAGA_MODE),
)


def wire(service: Service, _views: object = None) -> OrderService:
    """The service's reactions and its edge."""
    service.subscribe(CHOREOGRAPHY, ORCHESTRATION)
    deadline = timedelta(seconds=service.settings.order_deadline_seconds)
    commands = Commands(service.log, service.writer)
    return OrderService(commands, clock=service.clock, ids=service.ids, deadline=deadline)
