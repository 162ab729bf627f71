"""The service in this process, in a namespace of its own, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc.aio
import pytest

from tests.rebuild.program import CHUNK, SPEC, STAY, STAYS, Running, main
from tests.servers import create_database
from tests.waiting import beside, until
from twinlog import Metadata, Shutdown, Transaction
from twinlog.consume import filling
from twinlog.dev import free_port
from twinlog.postgres import view_builds
from twinlog.testing.internals import named
from twinlog.v1 import view_service_pb2 as pb
from twinlog.v1.view_service_pb2_grpc import ViewServiceStub

PATIENCE = 60.0


class Stays(NamedTuple):
    """A running service and its client."""

    running: Running
    stub: Any
    address: str

    async def write(self, *guests: str) -> int:
        """Has stays change, each named by its guest's first word; gives the last position."""
        position = 0
        for guest in guests:

            def work(transaction: Transaction, guest: str = guest) -> None:
                transaction.do(STAY, guest.split()[0], guest, Metadata())

            position = (await self.running.service.writer.execute(work)).position
        await self.running.reads.after(f"stays:{position}", PATIENCE)
        return position

    async def guests(self) -> list[str]:
        """What a query answers."""
        return [row[0] for row in await self.running.views.query("guests")]

    async def ready(self, build: int = 0) -> pb.ViewBuild:
        """The build, once it has caught up."""
        request = pb.GetRebuildRequest(view="stays", build=build)
        shown = pb.ViewBuild()

        async def is_ready() -> bool:
            nonlocal shown
            shown = (await self._answer(self.stub.GetRebuild, request, _is_away)).build
            return bool(shown.state != pb.VIEW_BUILD_STATE_FILLING and shown.percent == 100)

        await until(is_ready)
        return shown

    async def rebuilt(self, version: int = 0) -> int:
        """The number of a new build that has caught up."""
        request = pb.RebuildViewRequest(view="stays", version=version)
        number = (await self.stub.RebuildView(request, timeout=PATIENCE)).build.build
        await self.ready(number)
        return int(number)

    async def switch(self, build: int = 0, **options: bool) -> pb.SwitchViewResponse:
        """Switches to a build, once it agrees with the live one."""
        request = pb.SwitchViewRequest(view="stays", build=build, **options)
        answer: pb.SwitchViewResponse = await self._answer(self.stub.SwitchView, request, _disagrees)
        return answer

    async def back(self) -> pb.SwitchViewBackResponse:
        """Switches back, once the build agrees with the live one."""
        request = pb.SwitchViewBackRequest(view="stays")
        answer: pb.SwitchViewBackResponse = await self._answer(self.stub.SwitchViewBack, request, _disagrees)
        return answer

    async def drop(self, build: int) -> pb.DropViewBuildResponse:
        """Drops a build."""
        request = pb.DropViewBuildRequest(view="stays", build=build)
        answer: pb.DropViewBuildResponse = await self.stub.DropViewBuild(request, timeout=PATIENCE)
        return answer

    async def compared(self, build: int = 0) -> pb.ViewComparison:
        """How a build differs from the live one."""
        request = pb.CompareViewRequest(view="stays", build=build)
        answer: pb.CompareViewResponse = await self._answer(self.stub.CompareView, request, _is_away)
        return answer.comparison

    async def _answer(
        self, method: Any, request: Any, for_now: Callable[[grpc.aio.AioRpcError], bool]
    ) -> Any:
        """Asks again while it is refused for now."""
        answers: list[Any] = []

        async def answered() -> bool:
            try:
                answers.append(await method(request, timeout=PATIENCE))
            except grpc.aio.AioRpcError as error:
                if not for_now(error):
                    raise
            return bool(answers)

        await until(answered)
        return answers[0]


def _is_away(error: grpc.aio.AioRpcError) -> bool:
    """Whether the database's sessions are being ended."""
    return bool(error.code() == grpc.StatusCode.UNAVAILABLE)


def _disagrees(error: grpc.aio.AioRpcError) -> bool:
    """Whether only rows that are written meanwhile are in the way, as on a busy machine."""
    why = error.details() or ""
    return "not settled" in why or "is not as far as the live one" in why


@asynccontextmanager
async def serving(
    monkeypatch: pytest.MonkeyPatch, versions: Sequence[Any] = (STAYS,)
) -> AsyncIterator[Stays]:
    """The service, until the block ends."""
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("STAYS_ADDRESS", address)
    told: list[Running] = []
    shutdown = Shutdown(asyncio.create_task(asyncio.sleep(0)))
    running = asyncio.create_task(main(shutdown, told.append, versions))
    try:
        await until(lambda: bool(told) or running.done())
        assert told, running
        async with grpc.aio.insecure_channel(address) as channel:
            await beside(running, channel.channel_ready())
            yield Stays(told[0], ViewServiceStub(channel), address)
    finally:
        shutdown.request("the test is over")
        await running


@asynccontextmanager
async def in_use(stays: Stays) -> AsyncIterator[None]:
    """Ann's stay is changed, read and watched inside the block: nothing fails, and nothing is older than before."""
    await stays.write("ann")
    asked: list[int] = []
    watched: list[int] = []
    written = 1

    async def changes() -> int:
        return int((await stays.running.views.rows(STAYS, ["ann"]))["ann"].changes)

    async def ask() -> None:
        while True:
            asked.append(await changes())
            await asyncio.sleep(0.01)

    async def watch() -> None:
        async for each in stays.running.reads.watch(changes, "ann"):
            watched.append(each)

    async def write() -> None:
        nonlocal written
        while True:
            await stays.write("ann")
            written += 1
            assert await changes() >= written
            await asyncio.sleep(0.02)  # the rest of the processors is for what is tested

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for work in (ask, watch, write)]
        yield
        for task in tasks:
            task.cancel()
    assert asked == sorted(asked)
    assert watched == sorted(watched)
    assert written > 1


@pytest.fixture(autouse=True)
async def environment(
    postgres_url: str, nats_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_database(postgres_url, named(namespace, SPEC.database))  # the service would make it
    monkeypatch.setenv("POSTGRES_URL", postgres_url)
    monkeypatch.setenv("NATS_URL", nats_url)
    monkeypatch.setenv("TWINLOG_NAMESPACE", namespace)
    monkeypatch.setattr(filling, "CHUNK", CHUNK)
    monkeypatch.setattr(view_builds, "_LOOKS", 1)  # for programs of release 0.1: there are none here


@pytest.fixture
async def stays(environment: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stays]:
    """The service with version 1 of its view."""
    async with serving(monkeypatch) as running:
        yield running
