"""The wiring of the projector: three logs in, one database, two query services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

# Imported for the message types that they register: the timeline shows every event of every log.
import shop.customers.v1.events_pb2
import shop.orders.v1.events_pb2
import shop.sagas.v1.commands_pb2  # noqa: F401
import twinlog.v1.dead_letters_pb2
import twinlog.v1.saga_pb2  # noqa: F401
from projector.freshness import Announcer, Freshness
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
    Service,
    ServiceSpec,
    Settings,
    Shutdown,
    ViewStore,
    load,
    open_service,
)
from twinlog.testing.internals import AnyView, Changes, CheckpointAdvance, Linger

PACKAGE = "projector.sql"
VIEWS: Mapping[str, Sequence[AnyView]] = {
    "orders": [ORDERS, TIMELINE],
    "customers": [CUSTOMERS, TIMELINE],
    "sagas": [TIMELINE],
}
"""The views that each log feeds."""
RESTS: Mapping[str, float] = {"sagas": 0.05}
"""Seconds between batches: the steps of a saga are read when it is over, and no state of an order waits for them."""


class QuerySettings(Settings):
    """The settings of the projector."""

    queries_address: Address = "127.0.0.1:50054"
    """Where projector serves."""


SPEC = ServiceSpec(
    name="projector",
    log="projector",
    database="shop_views",
    domain="shop",
    settings=QuerySettings,
    address="queries_address",
    migrations=(PACKAGE,),
)


def wire(
    node: Service,
    store: ViewStore,
    on_commit: Callable[[Changes, CheckpointAdvance], None] = lambda _changes, _move: None,
) -> None:
    """Feeds the views from every log."""
    for log, views in VIEWS.items():
        node.feed(
            log,
            Projection(f"projector.{log}", views, store, on_commit=on_commit, clock=node.clock, ids=node.ids),
            Linger(least=RESTS.get(log, 0.0)),
        )


async def main(shutdown: Shutdown) -> None:
    """Runs the service until it is asked to stop."""
    settings = load(QuerySettings)
    async with open_service(SPEC, settings, shutdown) as node:
        views = Views(node.log, PACKAGE, ROWS)
        freshness = Freshness({f"projector.{log}": log for log in VIEWS})
        announcer = Announcer(node.client, views, freshness)
        wire(node, views, announcer.committed)
        node.start("announcer", announcer.run())
        shared = (views, freshness, await node.page_tokens())
        await node.serve(
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
        )
