"""The edge of order_svc: a request becomes a command, an outcome becomes a response."""

from __future__ import annotations

from datetime import timedelta

from order_svc.domain import ORDER, SAGA_MODE, SHOP, CancelOrder, CreateOrder, SetSagaMode
from shop.orders.v1 import order_service_pb2 as pb
from shop.orders.v1.order_pb2 import ORDER_STATE_CANCELLED, ORDER_STATE_PENDING
from shop.orders.v1.order_service_pb2_grpc import OrderServiceServicer
from shop.orders.v1.saga_mode_pb2 import SagaMode
from twinlog import Clock, Ids, Transaction, Writer
from twinlog.rpc import Checks, Context, call_metadata, request_identity, tokens


class OrderService(OrderServiceServicer):
    """shop.orders.v1.OrderService."""

    def __init__(self, writer: Writer, *, clock: Clock, ids: Ids, deadline: timedelta) -> None:
        """``deadline``: how long an order may stay PENDING."""
        self._writer = writer
        self._clock = clock
        self._ids = ids
        self._deadline = deadline

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> pb.CreateOrderResponse:
        checks = Checks()
        given = checks.uuid("order_id", request.order_id, required=False)
        customer_id = checks.uuid("customer_id", request.customer_id)
        total = checks.money("total", request.total, positive=True)
        checks.enum("saga_mode", request.saga_mode, SagaMode, required=False)
        identity = request_identity(checks, request, pb.CreateOrderResponse)
        checks.done()
        order_id = given or str(self._ids.uuid7())
        deadline = self._clock.now() + self._deadline

        def create(tx: Transaction) -> pb.CreateOrderResponse:
            mode = request.saga_mode or tx.state(SAGA_MODE, SHOP).saga_mode
            tx.do(ORDER, order_id, CreateOrder(order_id, customer_id, total, mode, deadline))
            return pb.CreateOrderResponse(order_id=order_id, state=ORDER_STATE_PENDING, saga_mode=mode)

        outcome = await self._writer.execute(
            create,
            metadata=call_metadata(context, "CreateOrder"),
            request=identity,
            preload=[(SAGA_MODE, SHOP), *([(ORDER, given)] if given else [])],
            assume_empty=[] if given else [(ORDER, order_id)],
        )
        outcome.result.consistency_token = tokens.write({"orders": outcome.position})
        return outcome.result

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> pb.CancelOrderResponse:
        checks = Checks()
        order_id = checks.uuid("order_id", request.order_id)
        identity = request_identity(checks, request, pb.CancelOrderResponse)
        checks.done()

        def cancel(tx: Transaction) -> pb.CancelOrderResponse:
            tx.do(ORDER, order_id, CancelOrder())
            return pb.CancelOrderResponse(order_id=order_id, state=ORDER_STATE_CANCELLED)

        outcome = await self._writer.execute(
            cancel,
            metadata=call_metadata(context, "CancelOrder"),
            request=identity,
            preload=[(ORDER, order_id)],
        )
        outcome.result.consistency_token = tokens.write({"orders": outcome.position})
        return outcome.result

    async def SetSagaMode(self, request: pb.SetSagaModeRequest, context: Context) -> pb.SetSagaModeResponse:
        checks = Checks()
        checks.enum("saga_mode", request.saga_mode, SagaMode)
        checks.done()
        outcome = await self._writer.execute(
            lambda tx: tx.do(SAGA_MODE, SHOP, SetSagaMode(request.saga_mode)),
            metadata=call_metadata(context, "SetSagaMode"),
            preload=[(SAGA_MODE, SHOP)],
        )
        return pb.SetSagaModeResponse(saga_mode=outcome.result.saga_mode)

    async def GetSagaMode(self, request: pb.GetSagaModeRequest, context: Context) -> pb.GetSagaModeResponse:
        outcome = await self._writer.execute(
            lambda tx: tx.state(SAGA_MODE, SHOP), preload=[(SAGA_MODE, SHOP)]
        )
        return pb.GetSagaModeResponse(saga_mode=outcome.result.saga_mode)
