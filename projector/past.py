"""Orders and customers as they were, and everything about an order at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from projector.reads import Views, timeline_message, write_customer, write_order
from projector.views.customers import CUSTOMERS, CustomerRow
from projector.views.orders import ORDERS, OrderRow
from shop.queries.v1 import moment_query_service_pb2 as pb
from shop.queries.v1.moment_query_service_pb2_grpc import MomentQueryServiceServicer
from shop.sagas.v1.saga_service_pb2 import GetSagaRequest, Saga
from shop.sagas.v1.saga_service_pb2_grpc import SagaServiceStub
from twinlog import NotFound, Personal, StreamId, Unavailable
from twinlog.rpc import Checks, Context, Moment, Past, ReadModel, moment_of, time_left, tokens
from twinlog.v1.moment_pb2 import LogPosition

_SECONDS = 5.0
"""How long a call without a deadline waits for the views, and for the saga."""


class OrderNotFound(NotFound):
    """There is no such order here; right after creating it, pass the consistency_token of the response."""

    reason = "ORDER_NOT_FOUND"


class CustomerNotFound(NotFound):
    """There is no such customer here; right after creating it, pass the consistency_token of the response."""

    reason = "CUSTOMER_NOT_FOUND"


class OrderNotThere(OrderNotFound):
    """There was no such order by then; without the moment, the answer is how it is now."""


class CustomerNotThere(CustomerNotFound):
    """There was no such customer by then; without the moment, the answer is how it is now."""


class PastViews:
    """The views as they were, folded from the logs that they follow."""

    def __init__(self, past: Past, personal: Personal) -> None:
        self._past = past
        self._personal = personal

    async def order(self, order_id: str, as_of: Moment) -> OrderRow:
        """An order at a moment. Raises OrderNotFound."""
        stream = StreamId("order", order_id)
        row: OrderRow | None = (await self._past.row(ORDERS, OrderRow, "orders", stream, order_id, as_of)).row
        if row is None:
            raise OrderNotThere
        return row

    async def customer(self, customer_id: str, as_of: Moment) -> CustomerRow:
        """A customer at a moment, the name as it is opened today. Raises CustomerNotFound."""
        stream = StreamId("customer", customer_id)
        found = await self._past.row(CUSTOMERS, CustomerRow, "customers", stream, customer_id, as_of)
        row: CustomerRow | None = found.row
        if row is None or not row.created_position:
            raise CustomerNotThere
        return row._replace(name=await self._personal.open(customer_id, row.name))

    async def cut(self, order_id: str, at: Moment) -> Mapping[str, int]:
        """A position of each log at a moment of an order. Raises OrderNotFound."""
        if at.version:
            stream = StreamId("order", order_id)
            found = await self._past.row(ORDERS, OrderRow, "orders", stream, order_id, at)
            if found.row is None:
                raise OrderNotThere
            at = Moment(position=found.position)
        return await self._past.cut("orders", at)

    async def saga(self, order_id: str, position: int, seconds: float) -> Saga | None:
        """An order's saga at a position of its log; None where it had none."""
        if not position:
            return None
        request = GetSagaRequest(order_id=order_id)
        request.as_of.position = position
        asked: Any = SagaServiceStub(await self._past.peers.owner("sagas"))
        try:
            saga: Saga = (await asked.GetSaga(request, timeout=seconds)).saga
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise Unavailable(
                f"saga_orchestrator does not answer ({error.code().name}: {error.details()})"
            ) from error
        return saga


class MomentQueries(MomentQueryServiceServicer):
    """shop.queries.v1.MomentQueryService."""

    def __init__(self, views: Views, reads: ReadModel, past: PastViews) -> None:
        self._views = views
        self._reads = reads
        self._past = past

    async def GetMoment(self, request: pb.GetMomentRequest, context: Context) -> pb.GetMomentResponse:
        checks = Checks()
        order_id = checks.uuid("order_id", request.order_id)
        at = moment_of(checks, "at", request.at)
        checks.done()
        cut = await self._past.cut(order_id, at)
        if not cut["orders"]:
            raise OrderNotThere
        order = await self._past.order(order_id, Moment(position=cut["orders"]))
        response = pb.GetMomentResponse(
            cut=[LogPosition(log=log, position=position) for log, position in sorted(cut.items())],
            saga=await self._past.saga(order_id, cut.get("sagas", 0), time_left(context, _SECONDS)),
        )
        write_order(response.order, order)
        if customers := cut.get("customers"):
            try:
                customer = await self._past.customer(order.customer_id, Moment(position=customers))
                write_customer(response.customer, customer, customer.name)
            except CustomerNotFound:
                pass  # the order was made for nobody, or before its customer
        await self._reads.after(tokens.write(self._in_views(cut)), time_left(context, _SECONDS))
        rows = [row for row in await self._views.timeline(order_id) if row.position <= cut.get(row.log, 0)]
        response.entries.extend(map(timeline_message, rows))
        return response

    @staticmethod
    def _in_views(cut: Mapping[str, int]) -> Mapping[str, int]:
        return {log: position for log, position in cut.items() if log in FOLLOWED and position}


FOLLOWED = ("orders", "customers", "sagas")
"""The logs that the timeline follows."""
