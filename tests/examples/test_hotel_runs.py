"""The hotel as it runs: trips in both modes, kill -9 of each service, and every trip is all done or all undone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc.aio
from google.protobuf.message_factory import GetMessageClass

from tests import preloaded
from tests.chain.test_heads import key_pair
from tests.examples.conftest import Example
from tests.programs import Program, supervisor
from twinlog.cli.reflected import pool_of
from twinlog.dev import free_port

_PATIENCE_SECONDS = 120.0
_SERVICES = ("rooms_svc", "payments_svc", "trips_svc")
_MODES = ("MODE_ORCHESTRATION", "MODE_CHOREOGRAPHY")
_TRIPS_A_KILL = 16
_ROOMS = {"101": 9_000, "102": 9_000, "suite": 90_000}
_NIGHTS = ("2027-05-01", "2027-05-02", "2027-05-03")


async def test_trips_survive_kill_9_of_each_service(hotel: Example) -> None:
    private, public = key_pair(hotel.folder)
    hotel = Example(hotel.folder, {**hotel.env, "CHAIN_KEY_FILE": private})
    ports = {service: free_port() for service in _SERVICES}
    addresses = {service: f"127.0.0.1:{port}" for service, port in ports.items()}
    async with running(hotel, addresses) as dev:
        asked = Asked(hotel, addresses)
        for room_id, cents in _ROOMS.items():
            await asked.grpcurl("rooms_svc", "RoomService/AddRoom", room_id=room_id, cents_a_night=cents)
        for mode in _MODES:
            night = ["2027-06-01" if mode == _MODES[0] else "2027-06-02"]
            booked = await asked.grpcurl(
                "trips_svc", "TripService/BookTrip", guest="Ada", room_id="101", nights=night, mode=mode
            )
            [*_, trip] = await asked.watched(booked["trip_id"], booked["consistency_token"])
            assert trip["state"] == "confirmed"

        async with Clients(addresses["trips_svc"]) as clients:
            for killed in _SERVICES:
                load = asyncio.create_task(clients.book(_TRIPS_A_KILL))
                await dev.until(lambda: clients.answered > 0 or load.done())  # noqa: B023
                asked.kill(killed)
                await load
            trips = await clients.settled()
        states = {trip.trip_id: trip.state for trip in trips}
        confirmed = {trip.trip_id for trip in trips if trip.state == "confirmed"}
        assert len(states) == len(_SERVICES) * _TRIPS_A_KILL
        assert confirmed, states
        # Each look at the logs is two processes: the audit waits until nothing is under way any more.
        audited = json.loads(await told(hotel, "audit", "--wait", "120", "--json"))
        assert (audited["violations"], audited["in_flight"]) == ([], [])
        assert await asked.all_or_nothing(states)
        assert audited["figures"]["checked"]["events"] > 2 * len(states)
        described = [await asked.described(service) for service in _SERVICES]
        heads = [log["chain"]["text"] for of in described for log in of["logs"] if "chain" in log]
        await verified(hotel, heads, public)


async def verified(hotel: Example, heads: Sequence[str], key: str) -> None:
    """The chains of all logs, with heads that the services told and signed."""
    given = [word for head in heads for word in ("--head", head)]
    said = json.loads(await told(hotel, "audit", "--chain", "--json", "--key", key, *given))
    assert said["violations"] == []
    assert said["figures"]["checked"]["noted heads"] == len(heads) == len(_SERVICES)
    assert len([note for note in said["notes"] if "note this head elsewhere" in note]) == len(heads)


async def told(hotel: Example, *arguments: str) -> str:
    """What the command `twinlog` prints; the test fails with it where the command does."""
    ran = await preloaded.run("twinlog", *arguments, env=hotel.env, cwd=hotel.folder)
    assert ran.code == 0, ran
    return ran.out


class Asked:
    """The hotel, asked by commands."""

    def __init__(self, hotel: Example, addresses: Mapping[str, str]) -> None:
        self._hotel = hotel
        self._addresses = addresses

    async def grpcurl(self, service: str, method: str, **request: Any) -> Any:
        """The answer."""
        return json.loads(await self._run(service, method, request))

    async def described(self, service: str) -> Any:
        """What a service tells of itself."""
        command = ["grpcurl", "-plaintext", self._addresses[service]]
        asked = "twinlog.v1.InspectionService/Describe"
        return json.loads(await asyncio.to_thread(self._hotel.run, *command, asked))

    async def watched(self, trip_id: str, token: str) -> Sequence[Any]:
        """All answers of a watch, until it ends."""
        request = {"trip_id": trip_id, "consistency_token": token}
        said = (await self._run("trips_svc", "TripQueryService/WatchTrip", request)).strip()
        return [json.loads(f"{{{each}}}") for each in said[1:-1].split("}\n{")]

    async def _run(self, service: str, method: str, request: Mapping[str, Any]) -> str:
        command = ["grpcurl", "-plaintext", "-d", json.dumps(request), self._addresses[service]]
        return await asyncio.to_thread(self._hotel.run, *command, f"hotel.v1.{method}")

    def kill(self, service: str) -> None:
        """kill -9."""
        [file] = (self._hotel.folder / ".twinlog").rglob(f"{service}.pid")
        os.kill(int(file.read_text()), signal.SIGKILL)

    async def all_or_nothing(self, states: Mapping[str, str]) -> bool:
        """Whether trips have a room and are paid for exactly where they are confirmed, by the logs."""
        held: set[str] = set()
        paid: set[str] = set()
        for type, trip_id in [*await self._events("rooms"), *await self._events("payments")]:
            match type:
                case "RoomHeld":
                    held.add(trip_id)
                case "RoomFreed":
                    held.discard(trip_id)
                case "PaymentTaken":
                    paid.add(trip_id)
                case "PaymentRefunded":
                    paid.discard(trip_id)
        confirmed = {trip_id for trip_id, state in states.items() if state == "confirmed"}
        return held & states.keys() == paid & states.keys() == confirmed

    async def _events(self, log: str) -> Sequence[tuple[str, str]]:
        at = ("--at", self._addresses[f"{log}_svc"])
        said = await told(self._hotel, "log", log, "--json", "--after", "0", *at)
        events = map(json.loads, said.splitlines())
        return [(each["type"].rpartition(".")[2], each["payload"].get("trip_id", "")) for each in events]


class Clients:
    """Guests who insist on an answer, and half of whom cancel; they know the hotel by reflection."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._tokens: dict[str, str] = {}
        self.answered = 0
        """Trips that were acknowledged since the newest round began."""

    async def __aenter__(self) -> Clients:
        self._channel = grpc.aio.insecure_channel(self._address)
        with grpc.insecure_channel(self._address) as channel:
            self._pool, services = pool_of(channel)
            for service in services:
                self._pool.FindServiceByName(service)  # while it is there to be asked
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._channel.close()

    async def book(self, count: int) -> None:
        """So many trips, a few at a time, in both modes; every third is cancelled."""
        self.answered, few = 0, asyncio.Semaphore(4)

        async def guest(number: int) -> None:
            async with few:
                wanted = {"room_id": [*_ROOMS][number % 3], "nights": [_NIGHTS[number % 2], _NIGHTS[2]]}
                booked = await self._insist("BookTrip", guest="Ada", mode=_MODES[number % 2], **wanted)
                self.answered += 1
                self._tokens[booked.trip_id] = booked.consistency_token
                if number % 3 == 0:
                    cancelled = await self._insist("CancelTrip", trip_id=booked.trip_id)
                    self._tokens[booked.trip_id] = cancelled.consistency_token

        async with asyncio.TaskGroup() as guests:
            for number in range(count):
                guests.create_task(guest(number))

    async def settled(self) -> Sequence[Any]:
        """All trips, once every one is decided."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                trips = [
                    await self._call("TripQueryService/GetTrip", trip_id=trip_id, consistency_token=token)
                    for trip_id, token in self._tokens.items()
                ]
                if not [trip for trip in trips if trip.state == "booked"]:
                    return trips
                await asyncio.sleep(0.1)

    async def _insist(self, method: str, **fields: Any) -> Any:
        return await self._call(f"TripService/{method}", request_id=str(uuid4()), **fields)

    async def _call(self, method: str, **fields: Any) -> Any:
        name, _, short = method.partition("/")
        described = self._pool.FindServiceByName(f"hotel.v1.{name}").FindMethodByName(short)
        request, response = GetMessageClass(described.input_type), GetMessageClass(described.output_type)
        call: Any = self._channel.unary_unary(
            f"/hotel.v1.{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                try:
                    return await call(request(**fields), timeout=10)
                except grpc.aio.AioRpcError as error:
                    assert error.code() in (
                        grpc.StatusCode.UNAVAILABLE,
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                    ), error
                    await asyncio.sleep(0.1)


@asynccontextmanager
async def running(hotel: Example, addresses: Mapping[str, str]) -> AsyncIterator[Program]:
    """`twinlog dev`, once it is up, until Ctrl-C."""
    given = {f"{service.removesuffix('_svc').upper()}_ADDRESS": each for service, each in addresses.items()}
    command = ("twinlog", "dev", "--no-restart", "--json")
    async with supervisor(*command, env={**hotel.env, **given}, cwd=hotel.folder) as dev:
        await dev.says("twinlog status")
        assert sum("metrics of" in line for line in dev.lines) == len(addresses) + 1  # the console
        [up] = [json.loads(line) for line in dev.lines if line.startswith('{"services"')]
        assert up["services"] == addresses
        assert up["metrics"].keys() == {*addresses, "twinlog.console"}
        assert up["postgres"].startswith("127.0.0.1:")
        yield dev
        assert await dev.ends_at(signal.SIGINT) == 0, dev.said
