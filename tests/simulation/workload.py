"""What the shop's clients do: a script from the seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from google.type.money_pb2 import Money

from shop.customers.v1 import customer_service_pb2 as customers
from shop.orders.v1 import order_service_pb2 as orders
from shop.orders.v1.saga_mode_pb2 import (
    SAGA_MODE_CHOREOGRAPHY,
    SAGA_MODE_ORCHESTRATION,
    SAGA_MODE_UNSPECIFIED,
)
from twinlog.testing import Call, SeededIds

MODES = (SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION)
FAULTY_SECONDS = 12.0
_SERVICES = {
    "CreateCustomer": "customer_svc",
    "ChangeCreditLimit": "customer_svc",
    "CreateOrder": "order_svc",
    "CancelOrder": "order_svc",
    "SetSagaMode": "order_svc",
}
"""Who takes which command."""


def script(chance: Random) -> list[Call]:
    """The commands of one seed, in order of time."""
    return _Script(chance).calls


@dataclass
class _Script:
    chance: Random
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        chance = self.chance
        self._ids = SeededIds(chance)
        buyers = [self._id() for _ in range(chance.choice((1, 1, 2)))]
        for buyer in buyers:
            new = customers.CreateCustomerRequest(customer_id=buyer, name="Ada", credit_limit=_money(100))
            self._add(chance.random() * 0.5, "CreateCustomer", new, always=True)
        placed: list[tuple[str, float]] = []
        for _ in range(chance.randint(2, 7)):
            at = chance.uniform(0.1, FAULTY_SECONDS - 2)
            order = self._id()
            self._create(at, order, chance.choice(buyers))
            placed.append((order, at))
        for order, at in placed:
            if chance.random() < 0.5:
                cancel = orders.CancelOrderRequest(order_id=order)
                self._add(at + chance.choice((0.01, 0.1, 1, 4)) * chance.random(), "CancelOrder", cancel)
        for _ in range(chance.choice((0, 0, 1, 2))):
            limit = _money(chance.choice((10, 50, 100, 200)))
            request = customers.ChangeCreditLimitRequest(
                customer_id=chance.choice(buyers), credit_limit=limit
            )
            self._add(chance.uniform(0.5, FAULTY_SECONDS - 2), "ChangeCreditLimit", request)
        for _ in range(chance.choice((0, 1, 2))):
            switch = orders.SetSagaModeRequest(saga_mode=chance.choice(MODES))
            self._add(chance.uniform(0.0, FAULTY_SECONDS - 2), "SetSagaMode", switch)
        self.calls.sort(key=lambda call: call.at)

    def _create(self, at: float, order: str, buyer: str) -> None:
        chance = self.chance
        if chance.random() < 0.05:
            buyer = self._id()  # nobody
        mode = chance.choice((SAGA_MODE_UNSPECIFIED, *MODES))
        total = _money(chance.choice((10, 30, 60, 100, 150)))
        request = orders.CreateOrderRequest(order_id=order, customer_id=buyer, total=total, saga_mode=mode)
        self._add(at, "CreateOrder", request, actor="chooser" if mode else "client")
        if request.request_id and chance.random() < 0.25:
            request.order_id = ""  # the server makes one

    def _add(
        self, at: float, method: str, request: Any, *, always: bool = False, actor: str = "client"
    ) -> None:
        if method != "SetSagaMode" and (always or self.chance.random() < 0.65):
            request.request_id = self._id()
        patience = self.chance.choice((0.05, 0.5, 2.0, 5.0))
        repeats = method == "SetSagaMode"
        self.calls.append(Call(at, _SERVICES[method], method, request, self._id(), patience, actor, repeats))

    def _id(self) -> str:
        return str(self._ids.uuid7())


def _money(units: int) -> Money:
    return Money(currency_code="EUR", units=units)
