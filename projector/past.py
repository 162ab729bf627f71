"""Orders and customers as they were, and everything about an order at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from projector.reads import Views, timeline_message, write_customer, write_order
from projector.views.customers import CUSTOMERS, CustomerRow
from projector.views.orders import ORDERS, OrderRow
from shop.queries.v1 import moment_query_service_pb2 as pb
from shop.queries.v1.moment_query_service_pb2_grpc import MomentQueryServiceServicer
from shop.sagas.v1.saga_service_pb2 import GetSagaRequest, GetSagaResponse, Saga
from shop.sagas.v1.saga_service_pb2_grpc import SagaServiceStub
from twinlog import NotFound, Personal, StreamId
from twinlog.rpc import Checks, Context, Moment, PageTokens, Past, ReadModel, moment_of, time_left
from twinlog.v1.moment_pb2 import LogPosition
from twinlog.v1.moment_pb2 import Moment as MomentMessage

_PATIENCE_SECONDS = 5.0
"""How long a call without a deadline waits for the views, and for the saga."""


class OrderNotFound(NotFound):
    """There is no such order here; right after creating it, pass the consistency_token of the response."""

    reason = "ORDER_NOT_FOUND"


class CustomerNotFound(NotFound):
    """There is no such customer here; right after creating it, pass the consistency_token of the response."""

    reason = "CUSTOMER_NOT_FOUND"


class OrderNotThere(OrderNotFound):
    """There was no such order by then, or there is none at all; without the moment, the answer is how it is now."""


class CustomerNotThere(CustomerNotFound):
    """There was no such customer by then, or there is none at all; without the moment, the answer is how it is now."""


class Queries:
    """What the query services share: the views as they are, and as they were."""

    def __init__(
        self, views: Views, reads: ReadModel, pages: PageTokens, past: Past, personal: Personal
    ) -> None:
        self._views, self._reads, self._pages = views, reads, pages
        self._past, self._personal = past, personal

    async def _order_then(self, order_id: str, as_of: Moment) -> OrderRow:
        """An order as it was at a moment. Raises OrderNotFound."""
        stream = StreamId("order", order_id)
        row: OrderRow | None = (await self._past.row(ORDERS, OrderRow, "orders", stream, order_id, as_of)).row
        if row is None:
            raise OrderNotThere
        return row

    async def _customer(self, customer_id: str) -> CustomerRow:
        """A customer as it is, with the name opened. Raises CustomerNotFound."""
        row = await self._views.customer(customer_id)
        if row is None:
            raise CustomerNotFound
        return row._replace(name=await self._personal.open(customer_id, row.name))

    async def _customer_then(self, customer_id: str, as_of: Moment) -> CustomerRow:
        """A customer as it was at a moment, the name as it is opened today. Raises CustomerNotFound."""
        stream = StreamId("customer", customer_id)
        found = await self._past.row(CUSTOMERS, CustomerRow, "customers", stream, customer_id, as_of)
        row: CustomerRow | None = found.row
        if row is None or not row.created_position:
            raise CustomerNotThere
        return row._replace(name=await self._personal.open(customer_id, row.name))


class MomentQueries(Queries, MomentQueryServiceServicer):
    """shop.queries.v1.MomentQueryService."""

    async def GetMoment(self, request: pb.GetMomentRequest, context: Context) -> pb.GetMomentResponse:
        checks = Checks()
        order_id = checks.uuid("order_id", request.order_id)
        at = moment_of(checks, "at", request.at)
        checks.done()
        cut = await self._cut(order_id, at)
        if not cut["orders"]:
            raise OrderNotThere
        order = await self._order_then(order_id, Moment(position=cut["orders"]))
        response = pb.GetMomentResponse(
            cut=[LogPosition(log=log, position=position) for log, position in sorted(cut.items())],
            saga=await self._saga(order_id, cut.get("sagas", 0), time_left(context, _PATIENCE_SECONDS)),
        )
        write_order(response.order, order)
        if customers := cut.get("customers"):
            with suppress(CustomerNotFound):  # the order was made for nobody, or before its customer
                customer = await self._customer_then(order.customer_id, Moment(position=customers))
                write_customer(response.customer, customer)
        await self._reads.after(cut, time_left(context, _PATIENCE_SECONDS))
        rows = [row for row in await self._views.timeline(order_id) if row.position <= cut.get(row.log, 0)]
        response.entries.extend(map(timeline_message, rows))
        return response

    async def _cut(self, order_id: str, at: Moment) -> Mapping[str, int]:
        """A position of each log at a moment of an order. Raises OrderNotFound."""
        if at.version:
            stream = StreamId("order", order_id)
            found = await self._past.row(ORDERS, OrderRow, "orders", stream, order_id, at)
            if found.row is None:
                raise OrderNotThere
            at = Moment(position=found.position)
        return await self._past.cut("orders", at)

    async def _saga(self, order_id: str, position: int, seconds: float) -> Saga | None:
        """An order's saga at a position of its log; None where it had none."""
        if not position:
            return None
        request = GetSagaRequest(order_id=order_id, as_of=MomentMessage(position=position))
        peers = self._past.peers
        found: GetSagaResponse | None = await peers.ask("sagas", SagaServiceStub, "GetSaga", request, seconds)
        return found and found.saga
