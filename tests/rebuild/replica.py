"""A replica of the service with its queries, to be killed; see :mod:`tests.forks`. It shares STAYS_ADDRESS."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    GetOrderResponse,
    Order,
    WatchOrderRequest,
    WatchOrderResponse,
    WatchOrdersRequest,
    WatchOrdersResponse,
)
from tests.forks import forking
from tests.kernel.edge import Edge
from tests.rebuild.program import CHUNK, PACKAGE, SPEC, STAYS, Stay, StaysSettings
from twinlog import PostgresViews, Shutdown, load, open_service, run
from twinlog.consume import filling
from twinlog.postgres import view_builds
from twinlog.rpc import Context, ReadModel
from twinlog.rpc.validation import Checks


class Queries(Edge):
    """Stays as orders: the version of one says how often it has changed, the customer which process answers."""

    def __init__(self, reads: ReadModel, views: PostgresViews) -> None:
        super().__init__()
        self._reads = reads
        self._views = views

    async def GetOrder(self, request: GetOrderRequest, context: Context) -> GetOrderResponse:
        await self._reads.fresh(Checks(), request, context)
        rows = await self._views.rows(STAYS, [request.order_id])
        return GetOrderResponse(order=_order(rows.get(request.order_id)))

    async def WatchOrder(
        self, request: WatchOrderRequest, context: Context
    ) -> AsyncIterator[WatchOrderResponse]:
        async for change in self._reads.watch_row(STAYS, request.order_id, request.resume_token):
            yield WatchOrderResponse(order=_order(change.row), resume_token=change.resume_token)

    async def WatchOrders(
        self, request: WatchOrdersRequest, context: Context
    ) -> AsyncIterator[WatchOrdersResponse]:
        async for change in self._reads.watch_rows(STAYS, {}, request.resume_token):
            yield WatchOrdersResponse(
                orders=map(_order, change.rows.values()), resume_token=change.resume_token
            )


def _order(row: Stay | None) -> Order:
    changes = row.changes if row else 0
    return Order(order_id=row.stay_id if row else "", version=changes, customer_id=str(os.getpid()))


async def main(shutdown: Shutdown) -> None:
    """Runs it until it is killed."""
    async with open_service(SPEC, load(StaysSettings), shutdown) as service:
        views = PostgresViews(service.log, PACKAGE, {"stays": Stay})
        reads = ReadModel(service, views, {"stays": [STAYS]})
        reads.subscribe()
        await service.serve(Queries(reads, views))


if __name__ == "__main__":
    filling.CHUNK = CHUNK
    view_builds._LOOKS = 1  # for programs of release 0.1: there are none here
    forking(lambda: run(main))
