"""What the queries read, and the messages they make of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money as MoneyMessage

from projector.views.customers import CUSTOMERS, CustomerRow
from projector.views.orders import ORDERS, OrderRow
from projector.views.timeline import TIMELINE, TimelineRow
from shop.queries.v1.customer_query_service_pb2 import Customer
from shop.queries.v1.order_query_service_pb2 import Order, TimelineEntry
from twinlog import FailedPrecondition, PostgresViews, timestamp
from twinlog.rpc import ViewMoment, decoded

ROWS: Mapping[str, type] = {"orders": OrderRow, "customers": CustomerRow, "timeline": TimelineRow}
NEWEST = 2**63 - 1
MOST_WATCHED = 1_000
"""Orders that a watch may begin with."""
_NANOS_PER_UNIT = 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_PER_DAY = 24 * 60 * 60


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


def write_order(message: Order, row: OrderRow) -> None:
    """Fills the message in: of a long list, a message made of others would take three times as long."""
    message.order_id = row.order_id
    message.customer_id = row.customer_id
    _write_money(message.total, row.total_nanos, row.currency)
    message.state = row.state
    message.rejection_reason = row.reason
    message.saga_mode = row.saga_mode
    _write_time(message.created_at, row.created_at)
    _write_time(message.updated_at, row.updated_at)
    message.version = row.version


def write_customer(message: Customer, row: CustomerRow, name: str) -> None:
    """Fills the message in, with the name as it is opened."""
    message.customer_id = row.customer_id
    message.name = name
    _write_money(message.credit_limit, row.limit_nanos, row.currency)
    _write_money(message.reserved, row.reserved_nanos, row.currency)
    _write_money(message.available, row.limit_nanos - row.reserved_nanos, row.currency)
    _write_time(message.created_at, row.created_at)
    _write_time(message.updated_at, row.updated_at)


def _write_money(message: MoneyMessage, nanos: int, currency: str) -> None:
    units, rest = divmod(nanos, _NANOS_PER_UNIT)
    if units < 0 and rest:  # both have the same sign
        units, rest = units + 1, rest - _NANOS_PER_UNIT
    message.units, message.nanos, message.currency_code = units, rest, currency


def _write_time(message: Timestamp, time: datetime) -> None:
    since = time - _EPOCH
    message.seconds = since.days * _SECONDS_PER_DAY + since.seconds
    message.nanos = since.microseconds * 1_000


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
