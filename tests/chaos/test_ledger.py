"""The count finds what is planted: a check that never fails proves nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from proof.chaos.ledger import Figures, Ledger
from proof.chaos.load import Outcome, Sent
from shop.customers.v1.events_pb2 import CreditReleased, CreditReserved, CustomerCreated
from shop.orders.v1 import order_service_pb2 as pb
from shop.orders.v1.events_pb2 import OrderApproved, OrderCancelled, OrderCreated
from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION, SagaMode
from twinlog.v1.saga_pb2 import SagaCompleted, SagaStarted

CUSTOMER = "c"
PRICE = Money(currency_code="EUR", units=10)


class Planted(Ledger):
    """A ledger whose logs and views the test writes."""

    def __init__(self) -> None:
        super().__init__("", "")
        self.logs: dict[str, list[dict[str, Any]]] = {"orders": [], "customers": [], "sagas": []}
        self.orders: list[tuple[str, int]] = []
        self.reserved: list[tuple[str, str]] = []
        self.add("customers", CUSTOMER, CustomerCreated(customer_id=CUSTOMER))

    def add(self, log: str, stream: str, message: Message, request_id: str = "", position: int = 0) -> None:
        """Appends an event; with a request id, one that a call made."""
        metadata = {
            "causation_id": "rpc/Call" if request_id else "orders/1",
            "correlation_id": request_id or "x",
        }
        self.logs[log].append(
            {
                "position": position or len(self.logs[log]) + 1,
                "stream_id": stream,
                "type": message.DESCRIPTOR.full_name,
                "payload": message.SerializeToString(),
                "metadata": json.dumps(metadata),
            }
        )

    def approved(self, mode: SagaMode.ValueType = SAGA_MODE_CHOREOGRAPHY) -> Sent:
        """An order that went well in every respect, and its request."""
        order_id, request_id = str(uuid4()), str(uuid4())
        created = OrderCreated(order_id=order_id, customer_id=CUSTOMER, total=PRICE, saga_mode=mode)
        self.add("orders", order_id, created, request_id)
        reserved = CreditReserved(customer_id=CUSTOMER, order_id=order_id, amount=PRICE)
        self.add("customers", CUSTOMER, reserved)
        self.add("orders", order_id, OrderApproved(order_id=order_id))
        self.orders.append((order_id, ORDER_STATE_APPROVED))
        self.reserved = [(CUSTOMER, str(len(self.orders) * 10 * 10**9))]
        request = pb.CreateOrderRequest(request_id=request_id)
        return Sent(request, "CreateOrder", Outcome.OK, pb.CreateOrderResponse(order_id=order_id), tries=1)

    async def _query(self, database: str, query: str, *arguments: Any) -> list[Any]:
        if "log_head" in query:
            return [(0,)]
        if "FROM events" in query:
            rows = self.logs[database.removeprefix("shop_")]
            return [row for row in rows if row["position"] > arguments[0]]
        return list(self.orders if "FROM orders" in query else self.reserved)

    async def _compare_twins(self, figures: Figures) -> None:
        """There are none."""

    async def figures(self, *sent: Sent) -> Figures:
        async with self:
            return await self.look(sent)


@pytest.fixture
def ledger() -> Planted:
    return Planted()


def of(figures: Figures) -> Sequence[int]:
    return figures.lost, figures.doubled, figures.credit_off, figures.stuck


async def test_what_is_right_is_clean(ledger: Planted) -> None:
    figures = await ledger.figures(ledger.approved(), ledger.approved())

    assert figures.clean, figures.problems
    assert (figures.requests, figures.ok) == (2, 2)


async def test_an_acknowledged_order_that_is_not_there_is_lost(ledger: Planted) -> None:
    sent = ledger.approved()
    sent.reply.order_id = str(uuid4())

    assert of(await ledger.figures(sent)) == (1, 0, 0, 0)


async def test_an_order_that_the_view_does_not_have_is_lost(ledger: Planted) -> None:
    sent = ledger.approved()
    ledger.orders.clear()

    assert of(await ledger.figures(sent)) == (1, 0, 0, 0)


async def test_an_acknowledged_cancellation_without_effect_is_lost(ledger: Planted) -> None:
    order_id = ledger.approved().reply.order_id
    cancel = Sent(
        pb.CancelOrderRequest(request_id=str(uuid4()), order_id=order_id), "CancelOrder", Outcome.OK
    )

    assert of(await ledger.figures(cancel)) == (1, 0, 0, 0)


async def test_a_request_with_two_orders_is_doubled(ledger: Planted) -> None:
    first, second = ledger.approved(), ledger.approved()
    ledger.logs["orders"][2]["metadata"] = ledger.logs["orders"][0]["metadata"]

    assert (await ledger.figures(first, second)).doubled == 1


async def test_credit_that_is_reserved_twice_is_doubled(ledger: Planted) -> None:
    sent = ledger.approved()
    again = CreditReserved(customer_id=CUSTOMER, order_id=sent.reply.order_id, amount=PRICE)
    ledger.add("customers", CUSTOMER, again)

    assert of(await ledger.figures(sent)) == (0, 1, 0, 0)


async def test_credit_of_a_cancelled_order_is_off(ledger: Planted) -> None:
    sent = ledger.approved()
    ledger.add("orders", sent.reply.order_id, OrderCancelled(order_id=sent.reply.order_id))

    assert of(await ledger.figures(sent)) == (0, 0, 10 * 10**9, 0)


async def test_credit_that_was_given_back_too_early_is_off(ledger: Planted) -> None:
    sent = ledger.approved()
    released = CreditReleased(customer_id=CUSTOMER, order_id=sent.reply.order_id, amount=PRICE)
    ledger.add("customers", CUSTOMER, released)

    assert of(await ledger.figures(sent)) == (0, 0, 10 * 10**9, 0)


async def test_a_pending_order_is_stuck(ledger: Planted) -> None:
    sent = ledger.approved()
    ledger.add("orders", "p", OrderCreated(order_id="p", customer_id=CUSTOMER, total=PRICE))

    assert of(await ledger.figures(sent)) == (0, 0, 0, 1)


async def test_a_saga_that_is_missing_or_has_not_ended_is_stuck(ledger: Planted) -> None:
    sent = ledger.approved(SAGA_MODE_ORCHESTRATION)
    assert (await ledger.figures(sent)).stuck == 1

    ledger.add("sagas", "s", SagaStarted(saga="credit"))
    assert (await ledger.look([sent])).stuck == 1

    ledger.add("sagas", "s", SagaCompleted())
    assert (await ledger.look([sent])).clean


async def test_a_gap_in_a_log_is_told(ledger: Planted) -> None:
    sent = ledger.approved()
    ledger.add("orders", "q", OrderApproved(order_id="q"), position=7)

    assert "log orders jumps from 2 to 7" in (await ledger.figures(sent)).problems


async def test_an_unknown_outcome_is_not_clean(ledger: Planted) -> None:
    sent = ledger.approved()
    unknown = Sent(pb.CreateOrderRequest(request_id=str(uuid4())), "CreateOrder", was_unknown=True)
    figures = await ledger.figures(sent, unknown)

    assert (figures.unknown, figures.resolved, figures.clean) == (1, 0, False)
