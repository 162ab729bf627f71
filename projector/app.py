"""The wiring of the projector: three logs in, one database, two query services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# For the message types that they register: the timeline decodes every event of every log.
import shop.customers.v1.events_pb2
import shop.orders.v1.events_pb2
import shop.sagas.v1.commands_pb2  # noqa: F401
import twinlog.v1.dead_letters_pb2
import twinlog.v1.saga_pb2  # noqa: F401
from projector.past import MomentQueries
from projector.queries import CustomerQueries, OrderQueries
from projector.reads import ROWS, Views
from projector.views.customers import CUSTOMERS
from projector.views.orders import ORDERS
from projector.views.timeline import TIMELINE
from twinlog import Address, Projection, Service, ServiceSpec, Settings, View, ViewStore
from twinlog.rpc import Past, ReadModel

PACKAGE = "projector.sql"
VIEWS: Mapping[str, Sequence[View[Any]]] = {
    "orders": [ORDERS, TIMELINE],
    "customers": [CUSTOMERS, TIMELINE],
    "sagas": [TIMELINE],
}
"""The views that each log feeds."""
WATCHED: Mapping[View[Any], Sequence[str]] = {ORDERS: ("customer_id", "state"), CUSTOMERS: ()}
"""The views whose rows are watched, each with the fields by which one may choose among them."""
LINGER_SECONDS: Mapping[str, float] = {"sagas": 0.05}
"""By log, the pause between batches: a saga's steps are read once it is over, and no order's state waits for them."""


class QuerySettings(Settings):
    """The settings of the projector."""

    queries_address: Address = "127.0.0.1:50054"
    """Where projector serves."""


SPEC = ServiceSpec(
    name="projector",
    log="",
    database="shop_views",
    domain="shop",
    settings=QuerySettings,
    address="queries_address",
    migrations=(PACKAGE,),
    views=lambda log: Views(log, PACKAGE, ROWS),
)


def feed(
    service: Service,
    store: ViewStore,
    on_commit: Callable[[str, int, Any], None] = lambda _name, _position, _changes: None,
) -> None:
    """Feeds the views from every log; ``on_commit`` is told of every batch that is in the views."""
    for log, views in VIEWS.items():
        projection = Projection(f"projector.{log}", views, store, schema=service.schema, on_commit=on_commit)
        service.subscribe(projection, linger_seconds=LINGER_SECONDS.get(log, 0.0))


def wire(service: Service, views: Views) -> tuple[OrderQueries, CustomerQueries, MomentQueries]:
    """The views of every log, and the queries of them."""
    reads = ReadModel(service, views, VIEWS, watched=WATCHED)
    feed(service, views, reads.committed)
    shared = (views, reads, service.pages, Past(service), service.personal)
    return OrderQueries(*shared), CustomerQueries(*shared), MomentQueries(*shared)
