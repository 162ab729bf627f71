"""The demo's stories, each an outcome of an order. A story returns its order's timeline; its docstring is its title."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import uuid4

import grpc
import grpc.aio

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1 import order_pb2 as orders
from shop.orders.v1.order_service_pb2 import CancelOrderRequest, CreateOrderRequest, CreateOrderResponse
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION, SagaMode
from shop.queries.v1.customer_query_service_pb2 import GetCustomerRequest
from shop.queries.v1.order_query_service_pb2 import (
    GetOrderTimelineRequest,
    Order,
    TimelineEntry,
    WatchOrderRequest,
)
from shop.sagas.v1.saga_service_pb2 import GetSagaRequest
from stack.clients import Clients, Unexpected, retried
from twinlog import Money
from twinlog.dev import Supervisor
from twinlog.testing.internals import NANOS_PER_UNIT

_TIMEOUT_SECONDS = 30.0
_CENT = NANOS_PER_UNIT // 100
LIMIT = Money(1500 * _CENT, "EUR")
FITS = Money(1234 * _CENT, "EUR")
TOO_MUCH = Money(12340 * _CENT, "EUR")

Timeline = Sequence[TimelineEntry]
T = TypeVar("T")


@dataclass
class Scene:
    """The setting of the stories of one mode."""

    clients: Clients
    supervisor: Supervisor
    mode: SagaMode.ValueType
    """The mode that the shop is set to."""
    customer_ids: list[str] = field(default_factory=list)
    """The customers created so far."""

    @property
    def orchestrated(self) -> bool:
        """Whether the orchestrator runs the sagas."""
        return self.mode == SAGA_MODE_ORCHESTRATION

    @property
    def compensated(self) -> tuple[str, ...]:
        """The event that ends a canceled order's saga; none in choreography."""
        return ("SagaCompensated",) if self.orchestrated else ()

    async def customer(self, limit: Money = LIMIT) -> str:
        """Creates a customer; returns the id."""
        request = CreateCustomerRequest(
            request_id=str(uuid4()), name="Ada Lovelace", credit_limit=limit.to_proto()
        )
        answer = await retried(self.clients.customers.CreateCustomer, request)
        self.customer_ids.append(answer.customer_id)
        return self.customer_ids[-1]

    async def order(self, customer_id: str, total: Money) -> CreateOrderResponse:
        """Creates an order, in the shop's mode."""
        request = CreateOrderRequest(request_id=str(uuid4()), customer_id=customer_id, total=total.to_proto())
        return await retried(self.clients.orders.CreateOrder, request)

    async def cancel(self, order_id: str) -> None:
        """Cancels an order."""
        request = CancelOrderRequest(request_id=str(uuid4()), order_id=order_id)
        await retried(self.clients.orders.CancelOrder, request)

    async def ended(self, order: CreateOrderResponse) -> Order:
        """The order, once the view no longer has it as pending."""
        request = WatchOrderRequest(order_id=order.order_id, consistency_token=order.consistency_token)
        last = Order()
        async for seen in self.clients.order_queries.WatchOrder(request, timeout=_TIMEOUT_SECONDS):
            last = seen.order
        return last

    async def available(self, customer_id: str) -> Money | None:
        """The customer's available credit, according to the view; None before the view has the customer."""
        request = GetCustomerRequest(customer_id=customer_id)
        answer = await _found(retried(self.clients.customer_queries.GetCustomer, request))
        return Money.of(answer.customer.available) if answer else None

    async def timeline(self, order_id: str, *events: str) -> Timeline:
        """The order's timeline, once it has these ``events`` and their causes."""
        request = GetOrderTimelineRequest(order_id=order_id)
        entries: Timeline = []

        async def complete() -> bool:
            nonlocal entries
            answer = await _found(retried(self.clients.order_queries.GetOrderTimeline, request))
            entries = answer.entries if answer else []
            known = {f"{entry.log}/{entry.position}" for entry in entries}
            causes = {entry.cause for entry in entries if not entry.cause.startswith("rpc/")}
            return causes <= known and {entry.type.rpartition(".")[2] for entry in entries} >= set(events)

        await _until(complete, f"the timeline of order {order_id} has no {' and '.join(events)}")
        return entries

    async def credit_is_asked_for(self, order_id: str) -> None:
        """Returns when the event or command that makes customer_svc reserve credit for the order is recorded."""
        if self.orchestrated:
            request = GetSagaRequest(order_id=order_id)

            async def begun() -> bool:
                return await _found(retried(self.clients.sagas.GetSaga, request)) is not None

            await _until(begun, f"no saga begins for order {order_id}")
        # Choreographed, that is the order's creation itself.


async def approved(scene: Scene) -> Timeline:
    """12.34 of a limit of 15.00 → APPROVED"""
    order = await scene.order(await scene.customer(), FITS)
    _expect(await scene.ended(order), orders.ORDER_STATE_APPROVED)
    return await scene.timeline(order.order_id, "SagaCompleted" if scene.orchestrated else "OrderApproved")


async def too_much(scene: Scene) -> Timeline:
    """123.40 of a limit of 15.00 → REJECTED, INSUFFICIENT_CREDIT"""
    order = await scene.order(await scene.customer(), TOO_MUCH)
    reason = orders.REJECTION_REASON_INSUFFICIENT_CREDIT
    _expect(await scene.ended(order), orders.ORDER_STATE_REJECTED, reason)
    return await scene.timeline(order.order_id, "SagaCompensated" if scene.orchestrated else "OrderRejected")


async def unknown_customer(scene: Scene) -> Timeline:
    """An order of nobody → REJECTED, UNKNOWN_CUSTOMER"""
    order = await scene.order(str(uuid4()), FITS)
    _expect(await scene.ended(order), orders.ORDER_STATE_REJECTED, orders.REJECTION_REASON_UNKNOWN_CUSTOMER)
    return await scene.timeline(order.order_id, "SagaCompensated" if scene.orchestrated else "OrderRejected")


async def cancelled(scene: Scene) -> Timeline:
    """An approved order, cancelled → CANCELLED, and its credit is back"""
    customer_id = await scene.customer()
    order = await scene.order(customer_id, FITS)
    _expect(await scene.ended(order), orders.ORDER_STATE_APPROVED)
    await scene.cancel(order.order_id)
    timeline = await scene.timeline(order.order_id, "OrderCancelled", "CreditReleased", *scene.compensated)
    _expect(await scene.ended(order), orders.ORDER_STATE_CANCELLED)
    await _credit_is_back(scene, customer_id)
    return timeline


async def cancelled_in_flight(scene: Scene) -> Timeline:
    """A PENDING order, cancelled while its credit is being reserved → CANCELLED, compensated"""
    customer_id = await scene.customer()
    await scene.supervisor.pause("customer_svc")
    try:
        order = await scene.order(customer_id, FITS)
        await scene.credit_is_asked_for(order.order_id)
        await scene.cancel(order.order_id)
    finally:
        scene.supervisor.resume("customer_svc")
    refused = () if scene.orchestrated else ("OrderApprovalRefused",)
    timeline = await scene.timeline(
        order.order_id, "OrderCancelled", "CreditReserved", "CreditReleased", *refused, *scene.compensated
    )
    _expect(await scene.ended(order), orders.ORDER_STATE_CANCELLED)
    await _credit_is_back(scene, customer_id)
    return timeline


STORIES: Sequence[Callable[[Scene], Awaitable[Timeline]]] = [
    approved,
    too_much,
    unknown_customer,
    cancelled,
    cancelled_in_flight,
]


def _expect(
    order: Order,
    state: orders.OrderState.ValueType,
    reason: orders.RejectionReason.ValueType = orders.REJECTION_REASON_UNSPECIFIED,
) -> None:
    if (order.state, order.rejection_reason) != (state, reason):
        raise Unexpected(
            f"order {order.order_id} is {orders.OrderState.Name(order.state)} "
            f"{orders.RejectionReason.Name(order.rejection_reason)}, not {orders.OrderState.Name(state)}"
        )


async def _credit_is_back(scene: Scene, customer_id: str) -> None:
    async def whole() -> bool:
        return await scene.available(customer_id) == LIMIT

    await _until(whole, f"customer {customer_id} did not get the credit back")


async def _found(call: Awaitable[T]) -> T | None:
    """The answer, or None for NOT_FOUND, which comes before the view has the order."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise
        return None


async def _until(true: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            while not await true():
                await asyncio.sleep(0.005)
    except TimeoutError as error:
        raise Unexpected(f"{otherwise}, after {_TIMEOUT_SECONDS:g} s") from error
