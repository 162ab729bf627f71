"""What the queries read, and the messages they make of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from projector.views.customers import CUSTOMERS, CustomerRow
from projector.views.orders import ORDERS, OrderRow
from projector.views.timeline import TimelineRow
from shop.queries.v1.customer_query_service_pb2 import Customer
from shop.queries.v1.order_query_service_pb2 import Order, TimelineEntry
from twinlog import FailedPrecondition, Money, PostgresViews, timestamp
from twinlog.rpc import ViewMoment, causes_first, decoded

ROWS: Mapping[str, type] = {"orders": OrderRow, "customers": CustomerRow, "timeline": TimelineRow}
NEWEST = 2**63 - 1
MOST_WATCHED = 1_000
"""Orders that a watch may begin with."""


class TooManyToWatch(FailedPrecondition):
    """More than {most} orders match; watch fewer, or list them and set changes_only."""

    reason = "TOO_MANY_TO_WATCH"


class Views(PostgresViews):
    """The projector's views, as its queries read them."""

    def order(self, order_id: str) -> Coroutine[Any, Any, OrderRow | None]:
        return self.row(ORDERS, order_id)

    async def customer(self, customer_id: str) -> CustomerRow | None:
        row: CustomerRow | None = await self.row(CUSTOMERS, customer_id)
        return row if row and row.created_position else None

    async def orders(self, customer_id: str, state: int, before: int, limit: int) -> Sequence[OrderRow]:
        return [OrderRow(*row) for row in await self.query("list_orders", customer_id, state, before, limit)]

    async def customers(self, before: int, limit: int) -> Sequence[CustomerRow]:
        return [CustomerRow(*row) for row in await self.query("list_customers", before, limit)]

    async def timeline(self, order_id: str) -> Sequence[TimelineRow]:
        """The events of an order's saga, causes before effects."""
        rows = await self.query("timeline_of_order", order_id)
        return causes_first([TimelineRow(*row) for row in rows])


def matching(customer_id: str, state: int) -> Callable[[ViewMoment], Coroutine[Any, Any, Sequence[OrderRow]]]:
    """Reads the orders that a watch begins with, the newest first. Raises TooManyToWatch."""

    async def first(moment: ViewMoment) -> Sequence[OrderRow]:
        rows = await moment.query("list_orders", customer_id, state, NEWEST, MOST_WATCHED + 1)
        if len(rows) > MOST_WATCHED:
            raise TooManyToWatch(most=MOST_WATCHED)
        return [OrderRow(*row) for row in rows]

    return first


def write_order(message: Order, row: OrderRow) -> None:
    """Fills the message in: of a long list, a message made of others would take three times as long."""
    message.order_id = row.order_id
    message.customer_id = row.customer_id
    Money.write(message.total, row.total_nanos, row.currency)
    message.state = row.state
    message.rejection_reason = row.reason
    message.saga_mode = row.saga_mode
    timestamp(row.created_at, into=message.created_at)
    timestamp(row.updated_at, into=message.updated_at)
    message.version = row.version


def write_customer(message: Customer, row: CustomerRow) -> None:
    """Fills the message in; the name of the row is opened."""
    message.customer_id = row.customer_id
    message.name = row.name
    Money.write(message.credit_limit, row.limit_nanos, row.currency)
    Money.write(message.reserved, row.reserved_nanos, row.currency)
    Money.write(message.available, row.limit_nanos - row.reserved_nanos, row.currency)
    timestamp(row.created_at, into=message.created_at)
    timestamp(row.updated_at, into=message.updated_at)


def timeline_message(row: TimelineRow) -> TimelineEntry:
    payload_json, payload = decoded(row.type, row.payload)
    return TimelineEntry(
        log=row.log,
        position=row.position,
        type=row.type,
        recorded_at=timestamp(row.recorded_at),
        payload_json=payload_json,
        payload=payload,
        cause=row.causation_id,
        actor=row.actor,
        correlation_id=row.correlation_id,
    )
