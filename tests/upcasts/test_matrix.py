"""Every kind of upcaster × every place of reading: an old event is planted in a real log, and each sees today's."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value

from tests.upcasts.kinds import KINDS, Kind
from tests.upcasts.service import FAILING, HEARD, SEEN, SPEC, TALLY, OldSettings, Outside, Row
from tests.waiting import beside, until
from twinlog import Metadata, PostgresViews, Service, Shutdown, StreamId, load, open_service
from twinlog.audit.project import open_auditor
from twinlog.cli.log_events import show
from twinlog.console.process import serving
from twinlog.dev import free_port, until_serving
from twinlog.model.messages import pack
from twinlog.rpc import Commands
from twinlog.testing import START
from twinlog.testing.internals import Batch, NewEvent
from twinlog.v1 import dead_letter_service_pb2 as letters
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1 import view_service_pb2 as view_pb
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub
from twinlog.v1.saga_pb2 import SagaStarted
from twinlog.v1.view_service_pb2_grpc import ViewServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="package")
PLAIN = {name: 10 * place for place, name in enumerate(KINDS, 1)}
"""The number that the old event of each kind means."""
PARKED = {name: FAILING + number for name, number in PLAIN.items()}
"""The same of those that policies fail on."""


@dataclass
class World:
    """The running service, and where the old events are."""

    service: Service
    outside: Outside
    inspection: Any
    dead_letters: Any
    views: Any
    console: str
    positions: Mapping[str, int]
    sagas: Mapping[str, str]

    async def heard(self, by: str) -> list[int]:
        """The numbers that policies noted."""
        commands = Commands(self.service.log, self.service.writer)
        return [*(await commands.state(HEARD, by)).numbers]


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    """The old events are in the log before the service of today starts to read it."""
    with pytest.MonkeyPatch.context() as patch:
        address = f"127.0.0.1:{free_port()}"
        for name, value in {
            "POSTGRES_URL": postgres_url,
            "NATS_URL": nats_url,
            "TWINLOG_NAMESPACE": f"t{uuid4().hex[:12]}",
            "OLDS_ADDRESS": address,
        }.items():
            patch.setenv(name, value)
        patch.setattr("twinlog.consume.dead_lettering.RETRIES", 0)
        outside, shutdown = Outside(), Shutdown(asyncio.create_task(asyncio.sleep(0)))
        async with open_service(SPEC, load(OldSettings), shutdown) as service:
            positions, sagas = await plant(service)
            outside.wire(service)
            serving_task = asyncio.create_task(service.serve())
            await beside(serving_task, until_serving(address))
            async with (
                grpc.aio.insecure_channel(address) as channel,
                serving({"old_svc": address}) as console,
            ):
                yield World(
                    service,
                    outside,
                    InspectionServiceStub(channel),
                    DeadLetterServiceStub(channel),
                    ViewServiceStub(channel),
                    console,
                    positions,
                    sagas,
                )
            shutdown.request("the test is over")
            await serving_task


async def plant(service: Service) -> tuple[Mapping[str, int], Mapping[str, str]]:
    """Appends what older versions wrote. Gives the position of each kind's event, and the id of its saga."""
    sagas = {name: str(uuid4()) for name in KINDS}
    wanted: list[tuple[StreamId, Message, str]] = []
    for name, kind in KINDS.items():
        for id, number in ((name, PLAIN[name]), (f"{name} parked", PARKED[name])):
            key = str([*kind.means(number), ""][0])
            wanted.append((StreamId(TALLY.name, id), kind.written(number), key))
        started = SagaStarted(saga="watch", version=1, trigger=pack(kind.written(PLAIN[name])))
        wanted.append((StreamId("watch_saga", sagas[name]), started, "one"))
    for text in (b"c1", b"o2", b"c3"):
        wanted.append((StreamId(TALLY.name, f"keyed-{text.decode()}"), BytesValue(value=text), ""))
    events = [
        NewEvent.of(stream, 1, uuid4(), message, Metadata("c", "rpc/Old", "", "old"), key)
        for stream, message, key in wanted
    ]
    await service.log.append(Batch(START, {each.stream: 0 for each in events}, events))
    return {each.stream.id: position for position, each in enumerate(events, 1)}, sagas


every_kind = pytest.mark.parametrize("name", KINDS)


async def in_the_fold(world: World, name: str, kind: Kind) -> None:
    commands = Commands(world.service.log, world.service.writer)
    assert [*(await commands.state(TALLY, name)).numbers] == kind.means(PLAIN[name])


async def by_policies(world: World, name: str, kind: Kind) -> None:
    async def all_heard() -> bool:
        return {*kind.means(PLAIN[name])} <= {*await world.heard("policy")}

    await until(all_heard)


async def by_effects(world: World, name: str, kind: Kind) -> None:
    await until(lambda: {*kind.means(PLAIN[name])} <= {*world.outside.called})


async def in_the_view(world: World, name: str, kind: Kind) -> None:
    store = PostgresViews(world.service.log, "tests.upcasts.sql", {"seen": Row})
    wanted = " ".join(map(str, kind.means(PLAIN[name])))

    async def shown() -> bool:
        rows = await store.rows(SEEN, [name])
        return (rows[name].numbers if name in rows else "") == wanted

    await until(shown)


async def by_sagas(world: World, name: str, kind: Kind) -> None:
    for number in kind.means(PLAIN[name]) if kind.today is Int64Value else ():

        async def began(id: str = f"watch_saga/watch-{number}") -> bool:
            try:
                await world.inspection.GetStream(pb.GetStreamRequest(stream=id))
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND
                return False
            return True

        await until(began)


async def in_a_saga_that_was_under_way(world: World, name: str, kind: Kind) -> None:
    found = await world.inspection.GetStream(pb.GetStreamRequest(stream=f"watch_saga/{world.sagas[name]}"))
    number = next(iter(kind.means(PLAIN[name])), None)
    trigger = found.state["trigger"]
    if kind.today is Int64Value:
        assert trigger == (str(number) if number else True)
    else:
        assert trigger["number"] == number
    [event] = found.events
    assert event.HasField("read_as") == (number is not None)


async def in_time_travel(world: World, name: str, kind: Kind) -> None:
    request = pb.GetStreamRequest(stream=f"tally/{name}", upto_version=1, with_states=True)
    found = await world.inspection.GetStream(request)
    [told] = found.states
    assert [*found.state["numbers"]] == [*told.state["numbers"]] == kind.means(PLAIN[name])
    [event] = found.events
    check_read_as(event, name, kind)


async def in_inspection(world: World, name: str, kind: Kind) -> None:
    position = world.positions[name]
    request = pb.ReadLogRequest(after=position - 1, upto=position, types=[kind.today.DESCRIPTOR.name])
    found = [said.event async for said in world.inspection.ReadLog(request) if said.HasField("event")]
    assert [each.position for each in found] == ([position] if kind.means(0) else [])
    traced = await world.inspection.TraceEvent(pb.TraceEventRequest(address=f"olds/{position}"))
    check_read_as(traced.event, name, kind)
    if kind.means(0):
        assert traced.effects


def check_read_as(event: pb.LoggedEvent, name: str, kind: Kind) -> None:
    """The event is told as it is stored, and as what it is read as."""
    assert event.type == kind.written(0).DESCRIPTOR.full_name
    assert event.HasField("read_as")
    assert [each.type for each in event.read_as.events] == [kind.today.DESCRIPTOR.full_name] * len(
        kind.means(PLAIN[name])
    )


async def in_a_terminal(world: World, name: str, kind: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    [told] = (await world.inspection.GetStream(pb.GetStreamRequest(stream=f"tally/{name}"))).events
    show(told)
    said = capsys.readouterr().out
    for _ in kind.means(0):
        assert f"read as {kind.today.DESCRIPTOR.name} " in said
    assert kind.means(0) or "read as nothing: its type was dropped" in said


async def in_the_console(world: World, name: str, kind: Kind) -> None:
    def fetched() -> str:
        with urllib.request.urlopen(f"{world.console}/log/olds/{world.positions[name]}") as page:
            return str(page.read().decode())

    page = await asyncio.to_thread(fetched)
    assert "data-read-as" in page
    assert page.count(f"Read as <code>{kind.today.DESCRIPTOR.full_name}</code>") == len(kind.means(0))


async def as_a_dead_letter(world: World, name: str, kind: Kind) -> None:
    address = f"olds/{world.positions[f'{name} parked']}"
    request = letters.GetDeadLetterRequest(address=address, consumer="old_svc.olds")

    async def parked() -> Any:
        try:
            return await world.dead_letters.GetDeadLetter(request)
        except grpc.aio.AioRpcError:
            return None

    if not kind.means(0):
        assert await parked() is None  # nobody is given it, so that nobody fails on it
        return
    await until(parked)
    found = await parked()
    assert found.dead_letter.type == kind.written(0).DESCRIPTOR.full_name
    assert f"{PARKED[name]} is too much" in found.dead_letter.error
    assert [each.type for each in found.read_as.events] == [kind.today.DESCRIPTOR.full_name] * len(
        kind.means(0)
    )
    listed = await world.dead_letters.ListDeadLetters(letters.ListDeadLettersRequest(consumer="old_svc.olds"))
    assert address in {each.address for each in listed.dead_letters}


PLACES: Mapping[str, Callable[[World, str, Kind], Awaitable[None]]] = {
    place.__name__: place
    for place in (
        in_the_fold,
        by_policies,
        by_effects,
        in_the_view,
        by_sagas,
        in_a_saga_that_was_under_way,
        in_time_travel,
        in_inspection,
        in_the_console,
        as_a_dead_letter,
    )
}


@every_kind
@pytest.mark.parametrize("place", PLACES)
async def test_an_old_event_is_read_as_what_it_means_today(world: World, place: str, name: str) -> None:
    await PLACES[place](world, name, KINDS[name])


@every_kind
async def test_a_terminal_tells_both(world: World, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    await in_a_terminal(world, name, KINDS[name], capsys)


async def test_consumers_of_a_routing_key_get_old_events_that_had_none(world: World) -> None:
    async def heard() -> bool:
        return await world.heard("keyed") == [1, 3]

    await until(heard)
    described = await world.inspection.ListConsumers(pb.ListConsumersRequest(consumer="old_svc.keyed.olds"))
    [consumer] = described.consumers
    assert {*consumer.types} == {"OrderCreated", "BytesValue"}
    assert consumer.routing_key == ""


@pytest.mark.parametrize("near", [0, 500], ids=["from the log", "from the stream"])
async def test_a_view_that_is_built_anew_has_the_same_rows(
    world: World, near: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinlog.consume.filling.NEAR", near)
    begun = await world.views.RebuildView(view_pb.RebuildViewRequest(view="seen"))
    which = {"view": "seen", "build": begun.build.build}

    async def same() -> bool:
        try:
            found = (await world.views.CompareView(view_pb.CompareViewRequest(**which))).comparison
        except grpc.aio.AioRpcError as error:  # until it has caught up
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
            return False
        differing = found.changed + found.missing + found.added + found.unsettled
        return found.compared >= sum(bool(kind.means(0)) for kind in KINDS.values()) and not differing

    await until(same)
    await world.views.DropViewBuild(view_pb.DropViewBuildRequest(**which))


async def test_replayed_dead_letters_and_the_audit_at_the_end(world: World) -> None:
    """Last, since it mends the policies."""
    wanted = {number for name, kind in KINDS.items() for number in kind.means(PARKED[name])}
    counts = world.service.dead_letters.counts
    await until(lambda: counts() == {"old_svc.olds": sum(bool(kind.means(0)) for kind in KINDS.values())})
    world.outside.mended = True
    request = letters.ReplayDeadLettersRequest(
        selection=letters.DeadLetterSelection(consumer="old_svc.olds", all=True)
    )
    async for progress in world.dead_letters.ReplayDeadLetters(request):
        assert not progress.failed, progress
    assert wanted <= {*await world.heard("policy")}

    async def main(shutdown: Shutdown) -> None:
        async with open_service(SPEC, load(OldSettings), shutdown) as service:
            Outside().wire(service)
            await service.serve()

    async with open_auditor({"tests.upcasts": main}) as auditor:
        report = await auditor.round()
    assert report.violations == []
    assert report.figures.checked["view rows"]
