"""What the queries read, and the messages they make of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from projector.views.customers import CUSTOMERS, CustomerRow
from projector.views.orders import ORDERS, OrderRow
from projector.views.timeline import TIMELINE, TimelineRow
from shop.queries.v1.customer_query_service_pb2 import Customer
from shop.queries.v1.order_query_service_pb2 import Order, TimelineEntry
from twinlog import FailedPrecondition, Money, PostgresViews, timestamp
from twinlog.rpc import ViewMoment, decoded

ROWS: Mapping[str, type] = {"orders": OrderRow, "customers": CustomerRow, "timeline": TimelineRow}
NEWEST = 2**63 - 1
MOST_WATCHED = 1_000
"""Orders that a watch may begin with."""


class TooManyToWatch(FailedPrecondition):
    """More than {most} orders match; watch fewer, or list them and set changes_only."""

    reason = "TOO_MANY_TO_WATCH"


class Views(PostgresViews):
    """The projector's views, as its queries read them."""

    async def order(self, order_id: str) -> OrderRow | None:
        return (await self.rows(ORDERS, [order_id])).get(order_id)

    async def customer(self, customer_id: str) -> CustomerRow | None:
        row: CustomerRow | None = (await self.rows(CUSTOMERS, [customer_id])).get(customer_id)
        return row if row and row.created_position else None

    async def orders(self, customer_id: str, state: int, before: int, limit: int) -> Sequence[OrderRow]:
        rows = await self.query("list_orders", customer_id, state, before, limit)
        return [OrderRow(*row) for row in rows]

    async def customers(self, before: int, limit: int) -> Sequence[CustomerRow]:
        rows = await self.query("list_customers", before, limit)
        return [CustomerRow(*row) for row in rows]

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


def causes_first(rows: Sequence[TimelineRow]) -> list[TimelineRow]:
    """By time, but never an event before its cause or before an earlier one of its log, whatever clocks say."""
    waiting = sorted(rows, key=lambda row: (row.recorded_at, row.log, row.position))
    addresses = {f"{row.log}/{row.position}" for row in waiting}
    ordered: list[TimelineRow] = []
    placed: set[str] = set()
    while waiting:
        least = {log: min(r.position for r in waiting if r.log == log) for log in {r.log for r in waiting}}
        row = next(
            (
                row
                for row in waiting
                if row.position == least[row.log]
                and (row.causation_id in placed or row.causation_id not in addresses)
            ),
            waiting[0],
        )
        waiting.remove(row)
        placed.add(f"{row.log}/{row.position}")
        ordered.append(row)
    return ordered


def order_message(row: OrderRow) -> Order:
    return Order(
        order_id=row.order_id,
        customer_id=row.customer_id,
        total=Money(row.total_nanos, row.currency).to_proto(),
        state=row.state,
        rejection_reason=row.reason,
        saga_mode=row.saga_mode,
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
        version=row.version,
    )


def customer_message(row: CustomerRow) -> Customer:
    return Customer(
        customer_id=row.customer_id,
        name=row.name,
        credit_limit=Money(row.limit_nanos, row.currency).to_proto(),
        reserved=Money(row.reserved_nanos, row.currency).to_proto(),
        available=Money(row.limit_nanos - row.reserved_nanos, row.currency).to_proto(),
        created_at=timestamp(row.created_at),
        updated_at=timestamp(row.updated_at),
    )


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


__all__ = ["CUSTOMERS", "ORDERS", "TIMELINE", "Views"]
