"""The wiring of trips_svc."""

from twinlog import Address, PostgresViews, Service, ServiceSpec, Settings, ViewStore
from twinlog.rpc import Commands, ReadModel

from trips_svc.domain import TRIP
from trips_svc.policies import POLICIES
from trips_svc.saga import TRIP_SAGAS
from trips_svc.service import TripQueries, TripService
from trips_svc.view import PACKAGE, ROWS, VIEWS


class TripSettings(Settings):
    trips_address: Address = "127.0.0.1:50063"
    """Where trips_svc serves."""


SPEC = ServiceSpec(
    name="trips_svc",
    log="trips",
    database="hotel_trips",
    domain="hotel",
    settings=TripSettings,
    address="trips_address",
    aggregates=(TRIP, TRIP_SAGAS),
    migrations=(PACKAGE,),
    views=lambda log: PostgresViews(log, PACKAGE, ROWS),
)


def wire(service: Service, views: ViewStore) -> tuple[TripService, TripQueries]:
    service.subscribe(*POLICIES, TRIP_SAGAS)
    reads = ReadModel(service, views, VIEWS, name="views")
    reads.subscribe()
    commands = Commands(service.log, service.writer)
    return TripService(commands, service.ids), TripQueries(reads, views)
