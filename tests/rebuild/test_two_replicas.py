"""Two projectors behind one port, of which one is killed at each stage: a rebuild, a switch, the way back.

Queries and watches come to either of them, as the port has it, and go on at any with their tokens.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc.aio
import pytest

from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, WatchOrderRequest, WatchOrdersRequest
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from tests.forks import Forks, forks
from tests.rebuild.conftest import PATIENCE
from tests.rebuild.program import SPEC, STAY, StaysSettings
from tests.rebuild.test_crashes import grow
from tests.waiting import GOING_AWAY, RETRIED_SOON
from twinlog import Metadata, Service, Shutdown, Transaction, load, open_service
from twinlog.dev import free_port
from twinlog.v1 import view_service_pb2 as pb
from twinlog.v1.view_service_pb2_grpc import ViewServiceStub

EVENTS = 2_000
SECONDS = 200.0
"""For what takes two at the most where nothing else is going on."""
PACE_SECONDS = 0.04
TAKEN = 5
"""Answers or messages after which a client goes elsewhere."""
GUEST = "ann"
AGAIN = (*GOING_AWAY, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""What asks a client to try again; all else is an error."""
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), *RETRIED_SOON]
"""Channels to one address share their connection otherwise, and would all come to one replica."""


class Town:
    """The replicas, and those who write, ask and watch. A guest's change is known by its number: 1, 2, 3 …"""

    def __init__(self, replicas: Forks, address: str) -> None:
        self._replicas = replicas
        self._address = address
        self._pids: list[int] = []
        self.written = 0
        self.asked: dict[str, list[int]] = defaultdict(list)
        """By replica, what queries were answered."""
        self.watched_one: list[list[int]] = [[]]
        """What a watch of the guest was told, from each time on that it began without a token."""
        self.watched_all: list[list[int]] = [[]]
        """The same of a watch of all."""
        self.broken: list[str] = []
        """Promises."""

    async def start(self) -> None:
        self._pids.append(await self._replicas.start())

    async def replace(self) -> None:
        """Kills the replica that has been there for longest, and starts another one."""
        await self._replicas.kill(self._pids.pop(0))
        await self.start()

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(self._address, _OWN_CONNECTION) as channel:
            yield channel

    async def asks(self, method: str, request: Any) -> Any:
        """The answer; None where the replica goes, or says that it is not the moment."""
        async with self.channel() as channel:
            call = getattr(ViewServiceStub(channel), method)
            try:
                return await call(request, timeout=PATIENCE, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                assert error.code() in (*AGAIN, grpc.StatusCode.FAILED_PRECONDITION), error
                return None

    async def write(self, service: Service) -> None:
        """Has the guest change, until it is cancelled."""

        def work(transaction: Transaction) -> None:
            transaction.do(STAY, GUEST, GUEST, Metadata())

        while True:
            await service.writer.execute(work)
            self.written += 1
            await asyncio.sleep(PACE_SECONDS)

    async def query(self) -> None:
        """Asks one replica and then another, each time for what is at least as new as the answers so far."""
        token = ""
        while True:
            async with self.channel() as channel:
                ask = OrderQueryServiceStub(channel).GetOrder
                with suppress_going_away(self.broken):
                    for _ in range(TAKEN):
                        request = GetOrderRequest(order_id=GUEST, consistency_token=token)
                        call = ask(request, timeout=PATIENCE, wait_for_ready=True)
                        order = (await call).order
                        self.asked[order.customer_id].append(order.version)
                        if token and order.version < int(token.partition(":")[2]) - EVENTS:
                            self.broken.append(f"{token} was answered with change {order.version}")
                        token = dict(list(await call.trailing_metadata()))["twinlog-consistency-token"]
                        await asyncio.sleep(PACE_SECONDS)

    async def watch(self, method: str, make: Callable[[str], Any], told: list[list[int]]) -> None:
        """Watches at one replica and then at another, from the last token."""
        token = ""
        while True:
            async with self.channel() as channel:
                watching = getattr(OrderQueryServiceStub(channel), method)(make(token), wait_for_ready=True)
                try:
                    with suppress_going_away(self.broken):
                        for _ in range(TAKEN):
                            message = await watching.read()
                            orders = message.orders if told is self.watched_all else [message.order]
                            told[-1] += [each.version for each in orders if each.order_id == GUEST]
                            token = message.resume_token
                except Expired:  # of a machine that took 5 s to follow a switch
                    token = ""
                    told.append([])

    async def gets_on(self) -> None:
        """Returns when all of them have seen what is written only now."""
        wanted = self.written + 1

        def seen() -> bool:
            told = ([*self.asked.values()], self.watched_one, self.watched_all)
            return all(max(map(max, filter(None, each)), default=0) >= wanted for each in told)

        await self._replicas.until(seen, seconds=SECONDS)

    async def comes(self, state: int, build: int, method: str, request: Any) -> None:
        """Asks until a build is in this state."""

        async def is_so() -> bool:
            found = await self.asks("ListViews", pb.ListViewsRequest())
            if found and any((each.build, each.state) == (build, state) for each in found.views[0].builds):
                return True
            await self.asks(method, request)
            return False

        await self._replicas.until(is_so, seconds=SECONDS)

    async def makes_live(self, build: int, method: str, request: Any) -> None:
        """Switches; a replica is killed meanwhile, which may be the one that was asked."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.asks(method, request))
            group.create_task(self.replace())
        await self.comes(pb.VIEW_BUILD_STATE_LIVE, build, method, request)

    def assert_kept(self) -> None:
        """Nothing failed, stepped back or was told twice."""
        assert not self.broken
        for answers in self.asked.values():
            assert answers == sorted(answers), "a replica steps back"
        for told in (*self.watched_one, *self.watched_all):
            assert told == sorted(set(told)), "a watch steps back, or is told a state twice"


class Expired(Exception):
    """A token is too old."""


@contextmanager
def suppress_going_away(broken: list[str]) -> Iterator[None]:
    """Notes what a call should not have been answered."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if "WATCH_EXPIRED" in str(error.trailing_metadata()):
            raise Expired from error
        if error.code() not in AGAIN:
            broken.append(f"{error.code()}: {error.details()}")


@asynccontextmanager
async def in_use(town: Town) -> AsyncIterator[None]:
    """Written, asked and watched inside the block."""
    shutdown = Shutdown(asyncio.create_task(asyncio.sleep(0)))
    async with open_service(SPEC, load(StaysSettings), shutdown) as service, asyncio.TaskGroup() as group:
        work = [
            town.write(service),
            town.query(),
            town.watch("WatchOrder", _of_one, town.watched_one),
            town.watch("WatchOrders", _of_all, town.watched_all),
        ]
        tasks = [group.create_task(each) for each in work]
        await town.gets_on()
        yield
        for task in tasks:
            task.cancel()


def _of_one(token: str) -> WatchOrderRequest:
    return WatchOrderRequest(order_id=GUEST, resume_token=token)


def _of_all(token: str) -> WatchOrdersRequest:
    return WatchOrdersRequest(resume_token=token)


async def test_queries_and_watches_roam_while_replicas_are_killed(
    postgres_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow(postgres_url, namespace, EVENTS)
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("LOG_LEVEL", "error")
    async with forks("tests.rebuild.replica", env={"STAYS_ADDRESS": address, "SHARE_PORT": "1"}) as replicas:
        town = Town(replicas, address)
        for _ in range(2):
            await town.start()
        async with in_use(town):
            rebuild = pb.RebuildViewRequest(view="stays", share=50)
            await town.asks("RebuildView", rebuild)
            await town.replace()
            await town.comes(pb.VIEW_BUILD_STATE_READY, 2, "RebuildView", rebuild)
            for build, method, request in (
                (2, "SwitchView", pb.SwitchViewRequest(view="stays", build=2, confirm_differences=True)),
                (1, "SwitchViewBack", pb.SwitchViewBackRequest(view="stays")),
            ):
                await town.makes_live(build, method, request)
                await town.gets_on()
    town.assert_kept()
