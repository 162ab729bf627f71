"""The edge of order_svc: a request becomes a command, an outcome becomes a response."""

from __future__ import annotations

from datetime import timedelta

from order_svc.domain import ORDER, SAGA_MODE, SHOP, CancelOrder, CreateOrder, SetSagaMode
from shop.orders.v1 import order_service_pb2 as pb
from shop.orders.v1.order_pb2 import ORDER_STATE_CANCELLED, ORDER_STATE_PENDING
from shop.orders.v1.order_service_pb2_grpc import OrderServiceServicer
from shop.orders.v1.saga_mode_pb2 import SagaMode
from twinlog import Clock, Ids, Transaction
from twinlog.rpc import Checks, Commands, Context, Currencies


class OrderService(OrderServiceServicer):
    """shop.orders.v1.OrderService."""

    def __init__(self, commands: Commands, *, clock: Clock, ids: Ids, deadline: timedelta) -> None:
        """``deadline``: how long an order may stay PENDING."""
        self._commands = commands
        self._clock = clock
        self._ids = ids
        self._deadline = deadline

    async def CreateOrder(self, request: pb.CreateOrderRequest, context: Context) -> pb.CreateOrderResponse:
        checks = Checks()
        given = checks.uuid("order_id", request.order_id, required=False)
        customer_id = checks.uuid("customer_id", request.customer_id)
        # Whether it is the customer's currency is for customer_svc to say: a customer may have one from before.
        total = checks.money("total", request.total, positive=True, currencies=Currencies.ANY)
        checks.enum("saga_mode", request.saga_mode, SagaMode, required=False)
        order_id = given or str(self._ids.uuid7())
        deadline = self._clock.now() + self._deadline

        def create(tx: Transaction) -> pb.CreateOrderResponse:
            mode = request.saga_mode or tx.state(SAGA_MODE, SHOP).saga_mode
            tx.do(ORDER, order_id, CreateOrder(order_id, customer_id, total, mode, deadline))
            return pb.CreateOrderResponse(order_id=order_id, state=ORDER_STATE_PENDING, saga_mode=mode)

        return await self._commands.execute(
            request,
            context,
            checks,
            create,
            pb.CreateOrderResponse,
            preload=[(SAGA_MODE, SHOP), (ORDER, order_id)],
            assume_empty=[] if given else [(ORDER, order_id)],
            begins=(ORDER, order_id),
        )

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> pb.CancelOrderResponse:
        checks = Checks()
        order_id = checks.uuid("order_id", request.order_id)
        response = pb.CancelOrderResponse(order_id=order_id, state=ORDER_STATE_CANCELLED)
        return await self._commands.do(request, context, checks, ORDER, order_id, CancelOrder(), response)

    async def SetSagaMode(self, request: pb.SetSagaModeRequest, context: Context) -> pb.SetSagaModeResponse:
        checks = Checks()
        checks.enum("saga_mode", request.saga_mode, SagaMode)
        command = SetSagaMode(request.saga_mode)
        response = pb.SetSagaModeResponse(saga_mode=request.saga_mode)
        return await self._commands.do(request, context, checks, SAGA_MODE, SHOP, command, response)

    async def GetSagaMode(self, request: pb.GetSagaModeRequest, context: Context) -> pb.GetSagaModeResponse:
        mode = await self._commands.state(SAGA_MODE, SHOP)
        return pb.GetSagaModeResponse(saga_mode=mode.saga_mode)
