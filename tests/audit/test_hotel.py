"""A domain that is not the shop, on real servers and in a namespace of its own: audited while it works, and at rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import asyncpg
import pytest
from google.protobuf.message import Message

from tests.hotel import messages as pb
from tests.hotel.bookings import BOOKING, Cancel, Request
from tests.hotel.rooms import POLICIES as ROOM_POLICIES
from tests.hotel.rooms import ROOM, OpenRoom
from tests.hotel.services import HOTEL, HotelSettings
from tests.waiting import until
from twinlog import (
    Metadata,
    PostgresViews,
    Projection,
    Service,
    Shutdown,
    Transaction,
    View,
    load,
    open_service,
)
from twinlog.audit import Report, views
from twinlog.audit.project import open_auditor
from twinlog.log.chain import Head
from twinlog.service.runtime import Main
from twinlog.testing import MemoryViews
from twinlog.testing.internals import database_url

PACKAGE = "tests.audit.hotel_sql"


class Booked(NamedTuple):
    """A room that somebody has."""

    room_id: str
    booking_id: str
    rate: float = 0.1
    """In a column that rounds it."""


def booked(row: Booked | None, _event: Any, message: Any) -> Booked | None:
    if isinstance(message, pb.RoomReserved):
        return Booked(message.room_id, message.booking_id)
    free = isinstance(message, pb.RoomReleased) and row and row.booking_id == message.booking_id
    return None if free else row


BOOKED = View("booked", lambda _event, message: str(message.room_id), booked, events=[Message])


def program(name: str, opened: dict[str, Service] | None = None) -> Main:
    """The ``main`` of a service; with ``opened``, it puts its service there."""
    hosted = next(each for each in HOTEL if each.name == name)
    spec = replace(hosted.spec, migrations=(PACKAGE,)) if name == "rooms_svc" else hosted.spec

    async def main(shutdown: Shutdown) -> None:
        settings = load(HotelSettings, address="127.0.0.1:0")
        async with open_service(spec, settings, shutdown) as service:
            if name == "rooms_svc":
                store = PostgresViews(service.log, PACKAGE, {"booked": Booked})
                service.subscribe(
                    Projection("rooms_svc.booked", [BOOKED], store, schema=service.schema, source="rooms")
                )
                service.subscribe(ROOM_POLICIES)
            else:
                hosted.wire(service, MemoryViews())  # it keeps no view
            if opened is not None:
                opened[name] = service
            await service.serve()

    return main


NAMES = [each.name for each in HOTEL]
MAINS: Mapping[str, Main] = {name: program(name) for name in NAMES}


@asynccontextmanager
async def hotel() -> AsyncIterator[Mapping[str, Service]]:
    """All services, up."""
    opened: dict[str, Service] = {}
    async with AsyncExitStack() as stack:
        for name in NAMES:
            task: asyncio.Task[Any] = asyncio.create_task(asyncio.sleep(0))
            shutdown = Shutdown(task)
            running = asyncio.create_task(program(name, opened)(shutdown))
            stack.push_async_callback(_ended, running, shutdown)
        await until(lambda: len(opened) == len(NAMES))
        yield opened


async def _ended(running: asyncio.Task[None], shutdown: Shutdown) -> None:
    shutdown.request("the test is over")
    await running


@pytest.fixture(autouse=True)
def settings(postgres_url: str, nats_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_URL", postgres_url)
    monkeypatch.setenv("NATS_URL", nats_url)
    monkeypatch.setenv("TWINLOG_NAMESPACE", namespace)


async def work(services: Mapping[str, Service]) -> None:
    """Rooms are opened, booked, and given back."""

    def do(service: str, aggregate: Any, id: str, command: Any) -> Any:
        def decide(transaction: Transaction) -> None:
            transaction.do(aggregate, id, command, Metadata(correlation_id=id, actor="a guest"))

        return services[service].writer.execute(decide)

    for room in ("101", "102"):
        await do("rooms_svc", ROOM, room, OpenRoom(room))
    for number, room in enumerate(("101", "101", "102", "103")):
        await do("bookings_svc", BOOKING, f"b{number}", Request(f"b{number}", room, "Ada"))
    await do("bookings_svc", BOOKING, "b0", Cancel())


async def audited(**how: Any) -> Report:
    async with open_auditor(MAINS, **how) as auditor:
        return await auditor.until_settled(120)


async def test_a_hotel_is_audited_by_its_programs(postgres_url: str, namespace: str) -> None:
    async with hotel() as services:
        await work(services)
        during = await audited()
        assert during.violations == []
        assert during.settled, during.in_flight
    report = await audited(at_rest=True)
    assert report.violations == []
    assert report.settled, report.in_flight
    assert sum(report.figures.domain["sagas"].values()) == 4
    assert report.figures.checked["view rows"] >= 6, "the rooms, and the kernel's list of sagas"
    assert not report.notes

    connection = await asyncpg.connect(database_url(postgres_url, f"{namespace}_hotel_trips"))
    try:
        await connection.execute("UPDATE saga_instances SET reason = 'a whim' WHERE saga_id = 'b1'")
    finally:
        await connection.close()
    [violation] = (await audited()).violations
    assert (violation.check, violation.ids) == (views.EQUAL, ["trip_saga/b1"])
    assert violation.remedy.startswith(
        f'psql {namespace}_hotel_trips -1 -c "TRUNCATE saga_instances; DELETE FROM'
    )
    await _chains(postgres_url, f"{namespace}_hotel_bookings")


async def _chains(postgres_url: str, database: str) -> None:
    """The chains of a domain that is not the shop, also under a namespace."""
    async with open_auditor(MAINS, at_rest=True) as auditor:
        verified = await auditor.verify_chains()
        assert verified.violations == []
        checked = verified.figures.checked
        assert checked["events"] == checked["twin messages"] == sum(verified.figures.events.values()) > 20
        told = [note.rpartition(": ")[2] for note in verified.notes if "note this head elsewhere" in note]
        noted = [Head.parse(head) for head in told]
        assert len(noted) >= 3
        again = await auditor.verify_chains(noted)
        assert again.violations == []
        assert again.figures.checked["noted heads"] == len(noted)
        connection = await asyncpg.connect(database_url(postgres_url, database))
        try:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute("UPDATE events SET payload = payload || '\\x00' WHERE position = 2")
        finally:
            await connection.close()
        [found] = (await auditor.verify_chains(noted)).violations
        assert found.says == "bookings/2: event 2 is not what was linked"
