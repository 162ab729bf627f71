"""The edge of the projector: queries of orders and customers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from projector.past import CustomerNotFound, OrderNotFound, Queries
from projector.reads import matching, timeline_message, write_customer, write_order
from projector.views.customers import CUSTOMERS, CustomerRow
from projector.views.orders import ORDERS, OrderRow
from shop.orders.v1.order_pb2 import ORDER_STATE_PENDING, OrderState
from shop.queries.v1 import customer_query_service_pb2 as customers
from shop.queries.v1 import order_query_service_pb2 as orders
from shop.queries.v1.customer_query_service_pb2_grpc import CustomerQueryServiceServicer
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceServicer
from twinlog.rpc import Change, Checks, Context, as_of


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


def _created(row: OrderRow | CustomerRow) -> int:
    """Lists are in the order of these positions."""
    return row.created_position


class OrderQueries(Queries, OrderQueryServiceServicer):
    """shop.queries.v1.OrderQueryService."""

    async def GetOrder(self, request: orders.GetOrderRequest, context: Context) -> orders.GetOrderResponse:
        checks = Checks()
        order_id = checks.uuid("order_id", request.order_id)
        if request.HasField("as_of"):
            row: OrderRow | None = await self._order_then(order_id, as_of(checks, request))
        else:
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
        page = checks.page(request, self._pages, f"orders/{customer_id}/{state}")
        await self._reads.fresh(checks, request, context)
        rows, more = page.of(await self._views.orders(customer_id, state, page.before, page.limit), _created)
        response = orders.ListOrdersResponse(next_page_token=more)
        for row in rows:
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


class CustomerQueries(Queries, CustomerQueryServiceServicer):
    """shop.queries.v1.CustomerQueryService."""

    async def GetCustomer(
        self, request: customers.GetCustomerRequest, context: Context
    ) -> customers.GetCustomerResponse:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id)
        if request.HasField("as_of"):
            row = await self._customer_then(customer_id, as_of(checks, request))
        else:
            await self._reads.fresh(checks, request, context)
            row = await self._customer(customer_id)
        response = customers.GetCustomerResponse()
        write_customer(response.customer, row)
        return response

    async def ListCustomers(
        self, request: customers.ListCustomersRequest, context: Context
    ) -> customers.ListCustomersResponse:
        checks = Checks()
        page = checks.page(request, self._pages, "customers")
        await self._reads.fresh(checks, request, context)
        rows, more = page.of(await self._views.customers(page.before, page.limit), _created)
        response = customers.ListCustomersResponse(next_page_token=more)
        names = await self._personal.open_all([(row.customer_id, row.name) for row in rows])
        for row, name in zip(rows, names, strict=True):
            write_customer(response.customers.add(), row._replace(name=name))
        return response

    async def GetOrderHistory(
        self, request: customers.GetOrderHistoryRequest, context: Context
    ) -> customers.GetOrderHistoryResponse:
        checks = Checks()
        customer_id = checks.uuid("customer_id", request.customer_id)
        page = checks.page(request, self._pages, f"history/{customer_id}")
        await self._reads.fresh(checks, request, context)
        rows, more = page.of(await self._views.orders(customer_id, 0, page.before, page.limit), _created)
        response = customers.GetOrderHistoryResponse(next_page_token=more)
        write_customer(response.customer, await self._customer(customer_id))
        for order in rows:
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
        name = await self._personal.open(row.customer_id, row.name)
        write_customer(response.customer, row._replace(name=name))
        return response
