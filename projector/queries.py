"""The edge of the projector: queries of orders and customers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from projector.past import CustomerNotFound, OrderNotFound, PastViews
from projector.reads import NEWEST, Views, matching, timeline_message, write_customer, write_order
from projector.views.customers import CUSTOMERS, CustomerRow
from projector.views.orders import ORDERS
from shop.orders.v1.order_pb2 import ORDER_STATE_PENDING, OrderState
from shop.queries.v1 import customer_query_service_pb2 as customers
from shop.queries.v1 import order_query_service_pb2 as orders
from shop.queries.v1.customer_query_service_pb2_grpc import CustomerQueryServiceServicer
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceServicer
from twinlog import Personal
from twinlog.rpc import Change, Checks, Context, Moment, PageTokens, ReadModel, moment_of


def _order_changed(change: Change) -> orders.WatchOrderResponse:
    if change.row is None:
        raise OrderNotFound
    response = orders.WatchOrderResponse(resume_token=change.resume_token)
    write_order(response.order, change.row)
    return response


def _orders_changed(change: Change) -> orders.WatchOrdersResponse:
    response = orders.WatchOrdersResponse(left_order_ids=change.left, resume_token=change.resume_token)
    for row in change.rows.values():
        write_order(response.orders.add(), row)
    return response


class HasPosition(Protocol):
    """A row of a list: lists are ordered by the position at which their rows were created."""

    @property
    def created_position(self) -> int: ...


class _Queries:
    """What both services share."""

    def __init__(
        self, views: Views, reads: ReadModel, pages: PageTokens, past: PastViews, personal: Personal
    ) -> None:
        self._views = views
        self._personal = personal
        self._reads = reads
        self._pages = pages
        self._past = past

    def _as_of(self, checks: Checks, request: Any) -> Moment:
        """The moment that is asked for; ends the checks."""
        as_of = moment_of(checks, "as_of", request.as_of)
        if request.consistency_token:
            checks.violate("consistency_token", "cannot be given with as_of: the past is in the log already")
        checks.done()
        return as_of

    def _page(self, checks: Checks, request: Any, filters: str) -> tuple[int, int]:
        """The size of the page, and the position before which its rows were created."""
        size = checks.page_size("page_size", request.page_size)
        last = checks.page_token("page_token", request.page_token, self._pages, filters, (int,))
        return size, int(last[0]) if last else NEWEST

    def _next(self, rows: Sequence[HasPosition], size: int, filters: str) -> str:
        """The token of the next page; empty on the last. To tell, one row more than the page has was read."""
        return self._pages.issue(filters, (rows[size - 1].created_position,)) if len(rows) > size else ""


class OrderQueries(_Queries, OrderQueryServiceServicer):
    """shop.queries.v1.OrderQueryService."""

    async def GetOrder(self, request: orders.GetOrderRequest, context: Context) -> orders.GetOrderResponse:
        checks = Checks()
        order_id = checks.uuid("order_id", request.order_id)
        if request.HasField("as_of"):
            as_of = self._as_of(checks, request)
            past = orders.GetOrderResponse()
            write_order(past.order, await self._past.order(order_id, as_of))
            return past
        await self._reads.fresh(checks, request, context)
        row = await self._views.order(order_id)
        if row is None:
            raise OrderNotFound
        response = orders.GetOrderResponse()
        write_order(response.order, row)
        return response

    async def ListOrders(
        self, request: orders.ListOrdersRequest, context: Context
    ) -> orders.ListOrdersResponse:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id, required=False)
        state = checks.enum("state", request.state, OrderState, required=False)
        filters = f"orders/{customer_id}/{state}"
        size, before = self._page(checks, request, filters)
        await self._reads.fresh(checks, request, context)
        rows = await self._views.orders(customer_id, state, before, size + 1)
        response = orders.ListOrdersResponse(next_page_token=self._next(rows, size, filters))
        for row in rows[:size]:
            write_order(response.orders.add(), row)
        return response

    async def WatchOrder(
        self, request: orders.WatchOrderRequest, context: Context
    ) -> AsyncIterator[orders.WatchOrderResponse]:
        checks = Checks()
        order_id = checks.uuid("order_id", request.order_id)
        await self._reads.fresh(checks, request, context)
        watch = self._reads.watch_row(
            ORDERS, order_id, request.resume_token, lambda row: row.state != ORDER_STATE_PENDING
        )
        async for change in watch:
            yield change.once(_order_changed)

    async def WatchOrders(
        self, request: orders.WatchOrdersRequest, context: Context
    ) -> AsyncIterator[orders.WatchOrdersResponse]:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id, required=False)
        state = checks.enum("state", request.state, OrderState, required=False)
        await self._reads.fresh(checks, request, context)
        chosen = {"customer_id": customer_id, "state": state}
        watch = self._reads.watch_rows(
            ORDERS,
            {field: value for field, value in chosen.items() if value},
            request.resume_token,
            None if request.changes_only else matching(customer_id, state),
        )
        async for change in watch:
            yield change.once(_orders_changed)

    async def GetOrderTimeline(
        self, request: orders.GetOrderTimelineRequest, context: Context
    ) -> orders.GetOrderTimelineResponse:
        checks = Checks()
        order_id = checks.uuid("order_id", request.order_id)
        await self._reads.fresh(checks, request, context)
        rows = await self._views.timeline(order_id)
        if not rows:
            raise OrderNotFound
        return orders.GetOrderTimelineResponse(entries=map(timeline_message, rows))


class CustomerQueries(_Queries, CustomerQueryServiceServicer):
    """shop.queries.v1.CustomerQueryService."""

    async def GetCustomer(
        self, request: customers.GetCustomerRequest, context: Context
    ) -> customers.GetCustomerResponse:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id)
        if request.HasField("as_of"):
            as_of = self._as_of(checks, request)
            past = customers.GetCustomerResponse()
            then = await self._past.customer(customer_id, as_of)
            write_customer(past.customer, then, then.name)
            return past
        await self._reads.fresh(checks, request, context)
        response = customers.GetCustomerResponse()
        row = await self._customer(customer_id)
        write_customer(response.customer, row, await self._personal.open(customer_id, row.name))
        return response

    async def ListCustomers(
        self, request: customers.ListCustomersRequest, context: Context
    ) -> customers.ListCustomersResponse:
        checks = Checks()
        size, before = self._page(checks, request, "customers")
        await self._reads.fresh(checks, request, context)
        rows = await self._views.customers(before, size + 1)
        response = customers.ListCustomersResponse(next_page_token=self._next(rows, size, "customers"))
        names = await self._names(rows[:size])
        for row, name in zip(rows[:size], names, strict=True):
            write_customer(response.customers.add(), row, name)
        return response

    async def GetOrderHistory(
        self, request: customers.GetOrderHistoryRequest, context: Context
    ) -> customers.GetOrderHistoryResponse:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id)
        filters = f"history/{customer_id}"
        size, before = self._page(checks, request, filters)
        await self._reads.fresh(checks, request, context)
        rows = await self._views.orders(customer_id, 0, before, size + 1)
        response = customers.GetOrderHistoryResponse(next_page_token=self._next(rows, size, filters))
        row = await self._customer(customer_id)
        write_customer(response.customer, row, await self._personal.open(customer_id, row.name))
        for order in rows[:size]:
            write_order(response.orders.add(), order)
        return response

    async def WatchCustomer(
        self, request: customers.WatchCustomerRequest, context: Context
    ) -> AsyncIterator[customers.WatchCustomerResponse]:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id)
        await self._reads.fresh(checks, request, context)
        async for change in self._reads.watch_row(CUSTOMERS, customer_id, request.resume_token):
            yield await change.once_awaited(self._customer_changed)

    async def _customer_changed(self, change: Change) -> customers.WatchCustomerResponse:
        row = change.row
        if row is None or not row.created_position:
            raise CustomerNotFound
        response = customers.WatchCustomerResponse(resume_token=change.resume_token)
        write_customer(response.customer, row, await self._personal.open(row.customer_id, row.name))
        return response

    async def _customer(self, customer_id: str) -> CustomerRow:
        row = await self._views.customer(customer_id)
        if row is None:
            raise CustomerNotFound
        return row

    async def _names(self, rows: Sequence[CustomerRow]) -> Sequence[str]:
        return await self._personal.open_all([(row.customer_id, row.name) for row in rows])
