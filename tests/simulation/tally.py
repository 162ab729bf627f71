"""A service whose only effect is not idempotent: it writes down every event it sees. Exactly once shows."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value

from shop.customers.v1 import events_pb2 as customers
from shop.orders.v1 import events_pb2 as orders
from twinlog import (
    Address,
    Aggregate,
    Dispatch,
    Events,
    Policies,
    Service,
    ServiceSpec,
    Settings,
    ViewStore,
    on,
)
from twinlog.testing import Hosted


@dataclass(frozen=True, slots=True)
class Seen:
    """How often."""

    times: int = 0


@dataclass(frozen=True, slots=True)
class See:
    """Once more."""


def decide(seen: Seen, _command: See) -> Events:
    return [Int64Value(value=seen.times + 1)]


def evolve(seen: Seen, event: Message) -> Seen:
    assert isinstance(event, Int64Value)
    return Seen(event.value)


TALLY: Aggregate[Seen, See] = Aggregate("tally", Seen(), decide, evolve, partition_key=lambda _seen: "one")

SEEN = {
    "orders": (
        orders.OrderCreated,
        orders.OrderApproved,
        orders.OrderRejected,
        orders.OrderCancelled,
        orders.OrderApprovalRefused,
        orders.SagaModeChanged,
    ),
    "customers": (
        customers.CustomerCreated,
        customers.CreditLimitChanged,
        customers.CreditReserved,
        customers.CreditReservationFailed,
        customers.CreditReleased,
    ),
}
"""Every event of these logs."""


def wire(service: Service, _views: ViewStore) -> None:
    """Both logs into one stream: so that the two cursors also race for it."""
    for log, types in SEEN.items():
        service.subscribe(Policies(log, "tally", dict.fromkeys(types, _see)))


def _see(_event: Message) -> Dispatch:
    return on(TALLY, "all").do(See())


class TallySettings(Settings):
    """Where nothing is served."""

    tally_address: Address = "127.0.0.1:0"


HOSTED = Hosted(
    ServiceSpec(
        name="tally",
        log="tallies",
        database="shop_tallies",
        domain="shop",
        settings=TallySettings,
        address="tally_address",
        aggregates=(TALLY,),
    ),
    wire,
    replays=False,
)
