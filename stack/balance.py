"""Whether the logs of two services and the views agree on the money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

from google.protobuf.message import Message

from shop.customers.v1.events_pb2 import CreditReleased, CreditReserved
from shop.orders.v1.events_pb2 import OrderApproved, OrderCancelled, OrderCreated
from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED
from shop.queries.v1.customer_query_service_pb2 import GetCustomerRequest
from stack.clients import Clients, orders_of, retried
from stack.topology import CUSTOMER_SVC, ORDER_SVC
from twinlog import Money, Schema
from twinlog.testing.internals import PostgresLog, open_log

_READ = 1000
_SCHEMA = Schema()
"""Knows no upcasters, as the services of the shop."""


@dataclass(frozen=True)
class Balance:
    """Four sums in nanos that have to be equal."""

    reserved_in_log: int
    """The credit that customer_svc holds for orders, according to its log."""
    approved_in_log: int
    """The totals of the orders that order_svc has approved, according to its log."""
    reserved_in_view: int
    """The customers' reserved credit, according to the view."""
    approved_in_view: int
    """The totals of approved orders, according to the view."""

    @property
    def holds(self) -> bool:
        """Whether they are equal."""
        return self.reserved_in_log == self.approved_in_log == self.reserved_in_view == self.approved_in_view


async def balance(postgres_url: str, clients: Clients, customer_ids: Collection[str]) -> Balance:
    """The balance of these customers. Their orders have ended and the view is up to date."""
    async with (
        open_log(postgres_url, CUSTOMER_SVC.database, CUSTOMER_SVC.log) as customers,
        open_log(postgres_url, ORDER_SVC.database, ORDER_SVC.log) as orders,
    ):
        reserved, approved = await asyncio.gather(
            _reserved(customers, customer_ids), _approved(orders, customer_ids)
        )
    seen_reserved, seen_approved = 0, 0
    for id in customer_ids:
        answer = await retried(clients.customer_queries.GetCustomer, GetCustomerRequest(customer_id=id))
        seen_reserved += Money.of(answer.customer.reserved).nanos
        seen_approved += sum(
            Money.of(order.total).nanos
            for order in await orders_of(clients, id)
            if order.state == ORDER_STATE_APPROVED
        )
    return Balance(reserved, approved, seen_reserved, seen_approved)


async def _reserved(log: PostgresLog, customer_ids: Collection[str]) -> int:
    total = 0
    async for event in _events(log, customer_ids):
        if isinstance(event, CreditReserved):
            total += Money.of(event.amount).nanos
        elif isinstance(event, CreditReleased):
            total -= Money.of(event.amount).nanos
    return total


async def _approved(log: PostgresLog, customer_ids: Collection[str]) -> int:
    totals: dict[str, int] = {}
    approved: set[str] = set()
    async for event in _events(log, customer_ids):
        if isinstance(event, OrderCreated):
            totals[event.order_id] = Money.of(event.total).nanos
        elif isinstance(event, OrderApproved):
            approved.add(event.order_id)
        elif isinstance(event, OrderCancelled):
            approved.discard(event.order_id)
    return sum(totals[order_id] for order_id in approved)


async def _events(log: PostgresLog, customer_ids: Collection[str]) -> AsyncIterator[Message]:
    """The events of these customers, in the whole log."""
    after = 0
    while found := await log.read(after, _READ):
        after = found[-1].position
        for event in found:
            for message in _SCHEMA.decode(event):
                if getattr(message, "customer_id", None) in customer_ids:
                    yield message
