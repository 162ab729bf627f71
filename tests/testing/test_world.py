"""A world: a domain's services in one process, whose time passes when it is asked to."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from order_svc.domain import ORDER, State
from shop.customers.v1 import customer_service_pb2 as customers
from shop.orders.v1 import order_service_pb2 as orders
from tests.controls import MODES, Mode, new_id, wire
from tests.hotel import messages as pb
from tests.hotel.bookings import BOOKING, POINTS, BookingNotFound
from tests.hotel.rooms import ROOM, ROOMS, RoomRow
from tests.hotel.services import HOTEL, BookingService, RoomService
from tests.simulation.shop import services
from twinlog import Aggregate, ConfigurationError, Policies, Service, ViewStore, on
from twinlog.rpc import Commands
from twinlog.testing import START, Hosted, World
from twinlog.testing.simulation import loop

ORDERS = 500
LEAST_A_SECOND = 150.0
"""Orders; measured are over 1,000 on an idle machine in either mode."""

LONGEST_PROCESSOR_SECONDS = 10.0
"""For a year in which nothing happens; measured is a hundredth of one. Without skipping it are hours."""


@pytest.fixture
def hotel() -> Iterator[World]:
    with World(HOTEL) as world:
        world.call("rooms_svc", "OpenRoom", pb.OpenRoomRequest(room_id="101"))
        yield world


def book(world: World, booking_id: str = "b") -> None:
    request = pb.BookRoomRequest(booking_id=booking_id, room_id="101", guest="Ada")
    world.call("bookings_svc", "BookRoom", request)


def test_an_event_has_all_its_effects(hotel: World) -> None:
    book(hotel)
    assert hotel.state(BOOKING, "b").state == "requested"

    hotel.settle()

    assert hotel.state(BOOKING, "b").state == "confirmed"
    assert hotel.states(POINTS)["Ada"].bookings == ("b",)
    assert hotel.rows(ROOMS) == {"101": RoomRow("101", "b")}
    names = [message.DESCRIPTOR.name for message in hotel.messages("bookings")]
    assert names == ["BookingRequested", "BookingConfirmed", "PointsEarned"]


def test_a_service_that_is_away_is_waited_for_and_its_deadline_passes(hotel: World) -> None:
    with hotel.away("rooms_svc"):
        book(hotel)
        hotel.settle()
        assert hotel.state(BOOKING, "b").state == "requested"
        hotel.advance(timedelta(seconds=5))
    hotel.settle()

    assert hotel.state(BOOKING, "b").state == "rejected"
    assert hotel.state(ROOM, "101").booking_id == ""
    assert timedelta(seconds=5) <= hotel.now() - START < timedelta(seconds=7)


def test_days_without_anything_due_pass_at_once_and_what_is_due_in_them_has_its_time(hotel: World) -> None:
    with hotel.away("rooms_svc"):
        book(hotel)
        hotel.advance(timedelta(minutes=30))
    hotel.settle()
    retried = [event for event in hotel.logs["trips"].events if event.type.endswith("CommandRetried")]
    times = [event.recorded_at - START for event in retried]
    assert timedelta(seconds=4) < times[0] < timedelta(seconds=11)
    later = [second - first for first, second in pairwise(times)][-3:]
    assert all(timedelta(minutes=5) <= each < timedelta(minutes=5, seconds=1) for each in later)

    began = time.process_time()
    hotel.advance(timedelta(days=365))
    assert time.process_time() - began < LONGEST_PROCESSOR_SECONDS
    assert timedelta(days=365) <= hotel.now() - START < timedelta(days=365, hours=1)


def test_a_query_in_sql_has_a_function_in_its_place() -> None:
    rooms, bookings, trips = HOTEL

    def edge(service: Service, store: ViewStore) -> Asked:
        rooms.wire(service, store)
        return Asked(Commands(service.log, service.writer), store)

    free = {"free_rooms": lambda tables, most: [row.room_id for row in tables["rooms"].values()][:most]}
    for queries, found in ((free, ["101"]), ({}, None)):
        with World([replace(rooms, wire=edge, queries=queries), bookings, trips]) as world:
            world.call("rooms_svc", "OpenRoom", pb.OpenRoomRequest(room_id="101"))
            world.settle()
            if found is None:
                with pytest.raises(NotImplementedError, match=r"no query 'free_rooms'; say what it gives"):
                    world.call("rooms_svc", "FreeRooms", 5)
            else:
                assert world.call("rooms_svc", "FreeRooms", 5) == found


class Asked(RoomService):
    """Rooms, and a query of them."""

    def __init__(self, commands: Commands, store: Any) -> None:
        super().__init__(commands)
        self._store = store

    async def FreeRooms(self, most: int, _context: Any) -> Any:
        return await self._store.query("free_rooms", most)


def test_of_two_bookings_one_gets_the_room(hotel: World) -> None:
    book(hotel, "one")
    book(hotel, "two")
    hotel.settle()
    assert {booking.state for booking in hotel.states(BOOKING).values()} == {"confirmed", "rejected"}


def test_errors_are_raised_as_the_service_raises_them(hotel: World) -> None:
    with pytest.raises(BookingNotFound):
        hotel.call("bookings_svc", "CancelBooking", pb.CancelBookingRequest(booking_id="b"))
    with pytest.raises(LookupError, match="bookings_svc serves no method Cancel:"):
        hotel.call("bookings_svc", "Cancel", pb.CancelBookingRequest())
    with pytest.raises(LookupError, match="no service hotel_svc, only rooms_svc, bookings_svc, trips_svc"):
        hotel.call("hotel_svc", "CancelBooking", pb.CancelBookingRequest())


def test_an_event_that_is_set_aside_fails_the_test() -> None:
    def fail(event: Any) -> None:
        raise RuntimeError("no such day")

    def wired(service: Service, _views: ViewStore) -> None:
        service.subscribe(Policies("bookings", "rooms_svc", {pb.BookingRequested: fail}))

    def edge(service: Service, _views: ViewStore) -> BookingService:
        return BookingService(Commands(service.log, service.writer))

    rooms, bookings, _ = HOTEL
    with World([replace(rooms, wire=wired), replace(bookings, wire=edge)]) as world:
        book(world)
        with pytest.raises(AssertionError, match=r"rooms_svc\.bookings has set an event aside.*no such day"):
            world.settle()
        world.settle(dead_letters=True)


def test_a_policy_that_sets_off_its_own_cause_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_MOST_AT_ONCE", 10_000)
    echo: Aggregate[int, None] = Aggregate(
        name="echo",
        initial=0,
        decide=lambda _said, _command: [StringValue(value="again")],
        evolve=lambda said, _event: said + 1,
        partition_key=lambda _said: "one",
        events=[StringValue],
    )
    writers = []

    def edge(service: Service, _views: ViewStore) -> BookingService:
        service.subscribe(
            Policies("bookings", "bookings_svc", {StringValue: lambda _said: on(echo, "a").do(None)})
        )
        writers.append(service.writer)
        return BookingService(Commands(service.log, service.writer))

    rooms, bookings, trips = HOTEL
    spec = replace(bookings.spec, aggregates=[*bookings.spec.aggregates, echo])
    with World([rooms, replace(bookings, spec=spec, wire=edge), trips]) as world:
        world.run(writers[-1].execute(lambda transaction: transaction.do(echo, "a", None)))
        with pytest.raises(RuntimeError, match="something sets itself off"):
            world.settle()


def test_two_services_with_one_log_are_refused() -> None:
    rooms, bookings, _ = HOTEL
    both = [rooms, replace(bookings, spec=replace(bookings.spec, log="rooms"))]
    with pytest.raises(ValueError, match="two services have the log rooms"):
        World(both)


def test_two_services_in_one_database_are_refused_as_at_their_start() -> None:
    rooms, bookings, trips = HOTEL
    guests = replace(bookings, spec=replace(bookings.spec, database="hotel_rooms"))
    with pytest.raises(
        ConfigurationError, match="hotel_rooms holds log rooms, and this service's log is bookings"
    ):
        World([rooms, guests, trips])


def test_a_log_that_nobody_has_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"rooms_svc\.trips follows the log trips, which no service here has"
    ):
        World(HOTEL[:1])


async def test_inside_another_event_loop_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="make the test a plain `def`"), World(HOTEL):
        pass


@pytest.mark.parametrize("mode", MODES)
def test_the_shop_takes_a_thousand_orders_a_second(mode: Mode) -> None:
    with World(services(30.0)) as world:
        buyers = [new_id() for _ in range(20)]
        world.call_all("customer_svc", "CreateCustomer", [*map(_customer, buyers)])
        placed = [_order(buyers[number % len(buyers)], mode) for number in range(ORDERS)]
        seconds = _measured(world, placed)

        assert [order.state for order in world.states(ORDER).values()] == [State.APPROVED] * ORDERS
        assert ORDERS / seconds > LEAST_A_SECOND, f"{ORDERS / seconds:.0f} orders a second"


def _measured(world: World, placed: Sequence[orders.CreateOrderRequest]) -> float:
    """Seconds of the processor until all is done: what else runs on the machine does not count."""
    with _no_collections():
        began = time.process_time()
        world.call_all("order_svc", "CreateOrder", placed)
        world.settle()
        return time.process_time() - began


@contextmanager
def _no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _customer(id: str) -> customers.CreateCustomerRequest:
    return customers.CreateCustomerRequest(customer_id=id, name="Ada", credit_limit=wire("1000"))


def _order(buyer: str, mode: Mode) -> orders.CreateOrderRequest:
    return orders.CreateOrderRequest(order_id=new_id(), customer_id=buyer, total=wire("1"), saga_mode=mode)


def test_hosted_names_its_service() -> None:
    assert [hosted.name for hosted in HOTEL if isinstance(hosted, Hosted)] == [
        "rooms_svc",
        "bookings_svc",
        "trips_svc",
    ]
