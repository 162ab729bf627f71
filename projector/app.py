"""The wiring of the projector: three logs in, one database, two query services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Imported for the message types that they register: the timeline shows every event of every log.
import shop.customers.v1.events_pb2
import shop.orders.v1.events_pb2
import shop.sagas.v1.commands_pb2  # noqa: F401
import twinlog.v1.dead_letters_pb2
import twinlog.v1.saga_pb2  # noqa: F401
from projector.freshness import Announcer, Changes, Freshness
from projector.queries import CustomerQueries, OrderQueries
from projector.reads import ROWS, Views
from projector.views.customers import CUSTOMERS
from projector.views.orders import ORDERS
from projector.views.timeline import TIMELINE
from shop.queries.v1.customer_query_service_pb2_grpc import add_CustomerQueryServiceServicer_to_server
from shop.queries.v1.order_query_service_pb2_grpc import add_OrderQueryServiceServicer_to_server
from twinlog import (
    Address,
    Projection,
    Schema,
    Service,
    Settings,
    Shutdown,
    View,
    ViewStore,
    load,
    open_service,
)
from twinlog.rpc import PageTokens

PACKAGE = "projector.sql"
VIEWS: Mapping[str, Sequence[View[Any]]] = {
    "orders": [ORDERS, TIMELINE],
    "customers": [CUSTOMERS, TIMELINE],
    "sagas": [TIMELINE],
}
"""The views that each log feeds."""
LINGERS_SECONDS: Mapping[str, float] = {"sagas": 0.05}
"""The steps of a saga are read when it is over, and no state of an order waits for them."""


class QuerySettings(Settings):
    """What the projector has besides."""

    queries_address: Address = "127.0.0.1:50054"
    """Where projector serves."""


def wire(
    service: Service,
    store: ViewStore,
    on_commit: Callable[[str, int, Changes], None] = lambda _name, _position, _changes: None,
) -> None:
    """Feeds the views from every log; ``on_commit`` as a projection's."""
    for log, views in VIEWS.items():
        projection = Projection(f"projector.{log}", views, store, schema=service.schema, on_commit=on_commit)
        service.subscribe(projection, linger_seconds=LINGERS_SECONDS.get(log, 0.0))


async def main(shutdown: Shutdown) -> None:
    """Runs the service until it is asked to stop."""
    settings = load(QuerySettings)
    async with open_service(
        settings, shutdown, PACKAGE, name="projector", log="projector", database="shop_views", schema=Schema()
    ) as service:
        views = Views(service.log, PACKAGE, ROWS)
        freshness = Freshness({f"projector.{log}": log for log in VIEWS})
        announcer = Announcer(service, views, freshness)
        wire(service, views, announcer.committed)
        service.start("announcer", announcer.run())
        shared = (views, freshness, PageTokens(await views.page_key()))
        await service.serve(
            (
                OrderQueries(*shared),
                add_OrderQueryServiceServicer_to_server,
                "shop.queries.v1.OrderQueryService",
            ),
            (
                CustomerQueries(*shared),
                add_CustomerQueryServiceServicer_to_server,
                "shop.queries.v1.CustomerQueryService",
            ),
            address=settings.queries_address,
            setting="QUERIES_ADDRESS",
            domain="shop",
        )
