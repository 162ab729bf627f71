"""The wiring of the projector: three logs in, one database, two query services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

# Imported for the message types that they register: the timeline shows every event of every log.
import shop.customers.v1.events_pb2
import shop.orders.v1.events_pb2
import shop.sagas.v1.commands_pb2  # noqa: F401
import twinlog.v1.saga_pb2  # noqa: F401
from projector.freshness import Announcer, Freshness
from projector.queries import CustomerQueries, OrderQueries
from projector.reads import ROWS, Views
from projector.views.customers import CUSTOMERS
from projector.views.orders import ORDERS
from projector.views.timeline import TIMELINE
from shop.queries.v1.customer_query_service_pb2_grpc import add_CustomerQueryServiceServicer_to_server
from shop.queries.v1.order_query_service_pb2_grpc import add_OrderQueryServiceServicer_to_server
from twinlog import logs
from twinlog.config import Address, Settings, load
from twinlog.cursor import Cursor
from twinlog.jetstream import JetStreamTwin, close, connect
from twinlog.lease import Lease
from twinlog.log import Move
from twinlog.paging import PageTokens
from twinlog.postgres import PostgresLease, open_database
from twinlog.projection import AnyView, Changes, Projection, ViewStore
from twinlog.rpc import Service, serve
from twinlog.runtime import Shutdown
from twinlog.tasks import Tasks
from twinlog.twin import Twin

VIEWS: Mapping[str, Sequence[AnyView]] = {
    "orders": [ORDERS, TIMELINE],
    "customers": [CUSTOMERS, TIMELINE],
    "sagas": [TIMELINE],
}
"""The views that each log feeds."""


class QuerySettings(Settings):
    """What the projector has besides."""

    queries_address: Address = "127.0.0.1:50054"
    """Where projector serves."""


def wire(
    store: ViewStore,
    *,
    twin: Callable[[str], Twin],
    lease: Callable[[str], Lease],
    on_commit: Callable[[Changes, Move], None] = lambda _changes, _move: None,
) -> Sequence[Cursor]:
    """One cursor a log, to be run."""
    projections = {
        log: Projection(f"projector.{log}", of, store, on_commit=on_commit) for log, of in VIEWS.items()
    }
    return [Cursor(twin(log), each, lease(each.consumer)) for log, each in projections.items()]


async def main(shutdown: Shutdown) -> None:
    """Runs the service until it is asked to stop."""
    settings = load(QuerySettings)
    logs.configure(settings.log_level, settings.log_format)
    client = await connect(settings.nats_url, "projector")
    try:
        async with open_database(settings.postgres_url, "shop_views", "projector.sql") as pool:
            views = Views(pool, "projector.sql", ROWS)
            freshness = Freshness({f"projector.{log}": log for log in VIEWS})
            announcer = Announcer(client, views, freshness)
            cursors = wire(
                views,
                twin=lambda log: JetStreamTwin(client, log, replicas=settings.stream_replicas),
                lease=lambda work: PostgresLease(pool, work, str(uuid4())),
                on_commit=announcer.committed,
            )
            shared = (views, freshness, PageTokens(await views.page_key()))
            async with Tasks(shutdown.crash) as tasks:
                tasks.start("announcer", announcer.run())
                for cursor in cursors:
                    tasks.start("cursor", cursor.run())
                services: list[Service] = [
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
                ]
                async with serve(
                    services,
                    address=settings.queries_address,
                    setting="QUERIES_ADDRESS",
                    domain="shop",
                    health=cursors,
                ):
                    await shutdown.wait()
    finally:
        await close(client)
