"""Who an order is for while customer_svc makes no customer: it is made all the same, so that it is seen to wait."""

from __future__ import annotations

from typing import Any, cast

import pytest
from google.type.money_pb2 import Money

from shop.queries.v1.customer_query_service_pb2 import Customer, ListCustomersResponse
from stack.try_it import calls, pages
from twinlog.console import Answer, Outcome, Services

_NOBODY = cast("Services", None)
_TOTAL = Money(currency_code="EUR", units=12)


async def _payer(monkeypatch: pytest.MonkeyPatch, *free: int, fits: bool) -> tuple[str, int] | str:
    """Who pays how much where earlier customers have so much free, each called by its place."""

    async def silent(*_: object) -> Answer[Any]:
        return Answer("customer_svc", None, problem="no answer")

    async def known(*_: object) -> Answer[ListCustomersResponse]:
        made = [
            Customer(customer_id=str(place), available=Money(currency_code="EUR", units=units))
            for place, units in enumerate(free)
        ]
        return Answer("projector", ListCustomersResponse(customers=made))

    monkeypatch.setattr(calls, "create_customer", silent)
    monkeypatch.setattr(calls, "newest_customers", known)
    found = await pages._someone(_NOBODY, _TOTAL, _TOTAL, fits=fits)
    return found.text if isinstance(found, Outcome) else (found.customer_id, found.total.units)


async def test_an_earlier_customer_pays_what_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, fits, expected in (
        ((3, 12, 15), True, ("1", 12)),
        ((3, 2, 5, 1), True, ("2", 5)),  # nobody has that much: an order that fits is smaller
        ((0, 0), True, ("0", 12)),
        ((15, 3), False, ("1", 12)),
        ((15,), False, ("0", 12)),
        ((), True, "customer_svc: no answer"),
    ):
        assert await _payer(monkeypatch, *free, fits=fits) == expected, (free, fits)
