"""What really happened: the three logs, folded from a scenario's start and compared with what clients were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import asyncpg

# Imported for the message types that they register.
import shop.customers.v1.events_pb2
import shop.orders.v1.events_pb2
import shop.sagas.v1.commands_pb2  # noqa: F401
import twinlog.v1.saga_pb2  # noqa: F401
from proof.chaos.annotated import TYPE as ANNOTATED
from proof.chaos.load import Outcome, Sent
from shop.orders.v1 import order_pb2
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from stack.topology import NAMESPACE, PROJECTOR, SHOP_LOGS
from twinlog import Money, TwinlogError, message_class
from twinlog.testing.internals import JetStreamTwin, connect, database_url

_READ = (
    "SELECT position, stream_id, type, payload, metadata FROM events WHERE position > $1 ORDER BY position"
)
_STATES = {
    "OrderCreated": order_pb2.ORDER_STATE_PENDING,
    "OrderApproved": order_pb2.ORDER_STATE_APPROVED,
    "OrderRejected": order_pb2.ORDER_STATE_REJECTED,
    "OrderCancelled": order_pb2.ORDER_STATE_CANCELLED,
}
_ONCE = {
    *_STATES,
    "OrderApprovalRefused",
    "CustomerCreated",
    "CreditReserved",
    "CreditReservationFailed",
    "CreditReleased",
    "SagaStarted",
    "SagaInterrupted",
    "SagaCompleted",
    "SagaCompensated",
}
"""Events that a stream, or an order in a customer's stream, has once at most."""
_SHOWN = 5


@dataclass
class Figures:
    """What a scenario cost."""

    requests: int = 0
    ok: int = 0
    failed: int = 0
    unknown: int = 0
    """Requests that were left without an answer at least once."""
    resolved: int = 0
    """Those of them whose outcome is known now."""
    lost: int = 0
    """Acknowledged commands without their effect."""
    doubled: int = 0
    """Effects that happened more than once."""
    credit_off: int = 0
    """The difference between held credit and the totals of approved orders, summed over customers, in nanos."""
    stuck: int = 0
    """PENDING orders, and sagas that have not ended."""
    problems: list[str] = field(default_factory=list)
    """Everything else that is wrong, and the details of what the figures count."""
    recovery: float = 0.0
    """Seconds from the end of the fault until orders of both modes reached the view."""
    not_run: str = ""
    """Why the scenario could not run here; empty where it did."""

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        off = self.lost or self.doubled or self.credit_off or self.stuck or self.unknown - self.resolved
        return not (off or self.problems)


@dataclass
class _Order:
    customer_id: str
    total: int
    mode: int
    state: int


class Ledger:
    """The logs, from their heads when it was opened. Use as an async context manager."""

    def __init__(self, postgres_url: str, nats_url: str) -> None:
        self._postgres_url = postgres_url
        self._nats_url = nats_url
        self.heads: dict[str, int] = {}
        self._orders: dict[str, _Order] = {}
        self._customers: set[str] = set()
        self._holds: dict[str, dict[str, int]] = {}
        self._sagas: dict[str, str] = {}
        """The last Saga… event of each instance."""
        self._calls: Counter[str] = Counter()
        """How many events each request caused."""
        self._events: Counter[tuple[str, str]] = Counter()
        self._gaps: list[str] = []

    async def __aenter__(self) -> Self:
        for log in SHOP_LOGS:
            self.heads[log] = (await self._rows(log, "SELECT position FROM log_head"))[0][0]
        self._start = dict(self.heads)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Closes nothing: since servers come and go, nothing is kept open."""

    async def look(self, sent: Sequence[Sent]) -> Figures:
        """The figures now. Raises OSError, asyncpg's errors or TwinlogError while a server is away."""
        await self._catch_up()
        figures = Figures(
            requests=len(sent),
            ok=sum(one.outcome is Outcome.OK for one in sent),
            failed=sum(one.outcome is Outcome.FAILED for one in sent),
            unknown=sum(one.was_unknown for one in sent),
            resolved=sum(one.was_unknown and one.outcome is not Outcome.UNKNOWN for one in sent),
            problems=[*self._gaps, *(one.problem for one in sent if one.problem)],
        )
        shown = await self._views()
        self._count_lost(sent, shown, figures)
        self._count_doubled(figures)
        self._count_credit(figures)
        self._count_stuck(figures)
        await self._compare_views(shown, figures)
        await self._compare_twins(figures)
        return figures

    # --- the logs ---

    async def _catch_up(self) -> None:
        for log in SHOP_LOGS:
            for row in await self._rows(log, _READ, self.heads[log]):
                if row["position"] != self.heads[log] + 1:
                    self._gaps.append(f"log {log} jumps from {self.heads[log]} to {row['position']}")
                self.heads[log] = row["position"]
                self._take(log, row)

    def _take(self, log: str, row: Any) -> None:
        if row["type"] == ANNOTATED:
            return
        message: Any = message_class(row["type"]).FromString(row["payload"])
        name = message.DESCRIPTOR.name
        if '"causation_id": "rpc/' in row["metadata"]:
            self._calls[_correlation(row["metadata"])] += 1
        if name in _ONCE:
            subject = getattr(message, "order_id", "") if log != "sagas" else ""
            self._events[name, subject or row["stream_id"]] += 1
        if log == "orders":
            self._take_order(name, message)
        elif log == "customers" and not row["type"].startswith("twinlog."):  # of dead letters
            self._take_customer(name, message)
        elif name.startswith("Saga"):
            self._sagas[row["stream_id"]] = name

    def _take_order(self, name: str, message: Any) -> None:
        if name == "OrderCreated":
            total = Money.of(message.total).nanos
            self._orders[message.order_id] = _Order(
                message.customer_id, total, message.saga_mode, _STATES[name]
            )
        elif name in _STATES and message.order_id in self._orders:
            self._orders[message.order_id].state = _STATES[name]

    def _take_customer(self, name: str, message: Any) -> None:
        holds = self._holds.setdefault(message.customer_id, {})
        if name == "CustomerCreated":
            self._customers.add(message.customer_id)
        elif name == "CreditReserved":
            holds[message.order_id] = Money.of(message.amount).nanos
        elif name == "CreditReleased":
            holds.pop(message.order_id, None)

    # --- what is wrong ---

    def _count_lost(self, sent: Sequence[Sent], shown: dict[str, int], figures: Figures) -> None:
        for one in sent:
            if one.outcome is Outcome.OK and not self._is_there(one, shown):
                figures.lost += 1
                figures.problems.append(f"{one.method} {one.request_id} was acknowledged and is not there")

    def _is_there(self, one: Sent, shown: dict[str, int]) -> bool:
        match one.method:
            case "CreateOrder":
                made = self._calls[one.request_id] and one.reply.order_id in self._orders
                return bool(made) and one.reply.order_id in shown
            case "CancelOrder":
                order = self._orders.get(one.request.order_id)
                return order is None or order.state == order_pb2.ORDER_STATE_CANCELLED
            case "CreateCustomer":
                return one.reply.customer_id in self._customers
            case _:
                return bool(self._calls[one.request_id])

    def _count_doubled(self, figures: Figures) -> None:
        for request_id, count in self._calls.items():
            if count > 1:
                figures.doubled += count - 1
                figures.problems.append(f"request {request_id} made {count} events")
        for (name, subject), count in self._events.items():
            if count > 1:
                figures.doubled += count - 1
                figures.problems.append(f"{name} of {subject} is there {count} times")

    def _count_credit(self, figures: Figures) -> None:
        wanted: Counter[str] = Counter()
        for order in self._orders.values():
            if order.state == order_pb2.ORDER_STATE_APPROVED:
                wanted[order.customer_id] += order.total
        for customer_id in {*wanted, *self._holds}:
            held = sum(self._holds.get(customer_id, {}).values())
            if held != wanted[customer_id]:
                figures.credit_off += abs(held - wanted[customer_id])
                figures.problems.append(
                    f"customer {customer_id}: {held} nanos are held, {wanted[customer_id]} are approved"
                )

    def _count_stuck(self, figures: Figures) -> None:
        pending = [
            order_id
            for order_id, order in self._orders.items()
            if order.state == order_pb2.ORDER_STATE_PENDING
        ]
        open_sagas = [
            saga for saga, last in self._sagas.items() if last not in ("SagaCompleted", "SagaCompensated")
        ]
        orchestrated = sum(order.mode == SAGA_MODE_ORCHESTRATION for order in self._orders.values())
        missing = max(0, orchestrated - len(self._sagas))
        figures.stuck = len(pending) + len(open_sagas) + missing
        figures.problems += [f"order {order_id} is PENDING" for order_id in pending[:_SHOWN]]
        figures.problems += [f"saga {saga} is at {self._sagas[saga]}" for saga in open_sagas[:_SHOWN]]
        if missing:
            figures.problems.append(f"{missing} orchestrated orders have no saga")

    async def _views(self) -> dict[str, int]:
        """The state of each order in the view."""
        query = "SELECT order_id, state FROM orders WHERE created_position > $1"
        rows = await self._query(PROJECTOR.database, query, self._start["orders"])
        return dict(map(tuple, rows))

    async def _compare_views(self, shown: dict[str, int], figures: Figures) -> None:
        off = [
            order_id
            for order_id, order in self._orders.items()
            if shown.get(order_id, order.state) != order.state
        ]
        figures.problems += [f"order {order_id} is out of date in the view" for order_id in off[:_SHOWN]]
        missing = [order_id for order_id in self._orders if order_id not in shown]
        figures.problems += [f"order {order_id} is not in the view" for order_id in missing[:_SHOWN]]
        rows = await self._query(
            PROJECTOR.database,
            "SELECT customer_id, reserved_nanos::text FROM customers WHERE customer_id = ANY ($1)",
            list(self._customers),
        )
        for customer_id, reserved in rows:
            held = sum(self._holds.get(customer_id, {}).values())
            if int(reserved) != held:
                figures.problems.append(f"customer {customer_id}: the view says {reserved}, the log {held}")

    async def _compare_twins(self, figures: Figures) -> None:
        async with AsyncExitStack() as stack:
            client = await connect(self._nats_url, "chaos")
            stack.push_async_callback(client.close)
            for log, head in self.heads.items():
                try:
                    state = await JetStreamTwin(client, log, namespace=NAMESPACE).state()
                except TwinlogError as error:
                    figures.problems.append(f"stream {log}: {error}")
                    continue
                if (state.first, state.last, state.holes) != (1, head, 0):
                    figures.problems.append(
                        f"stream {log} has {state.first} to {state.last} and {state.holes} holes, the log {head}"
                    )

    async def _rows(self, log: str, query: str, *arguments: Any) -> list[Any]:
        return await self._query(SHOP_LOGS[log], query, *arguments)

    async def _query(self, database: str, query: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(database_url(self._postgres_url, database), timeout=10)
        try:
            return list(await connection.fetch(query, *arguments, timeout=30))
        finally:
            await connection.close(timeout=5)


def _correlation(metadata: str) -> str:
    # The column is jsonb, given as text: {"causation_id": …, "correlation_id": "…", …}
    return metadata.partition('"correlation_id": "')[2].partition('"')[0]
