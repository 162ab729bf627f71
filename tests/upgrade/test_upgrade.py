"""From the released shop to the tree's and back, service by service, over the same data and under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import grpc
import grpc.aio
import pytest

from proof.auditor.auditor import audit, open_auditor
from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_pb2 import (
    ORDER_STATE_APPROVED,
    ORDER_STATE_CANCELLED,
    ORDER_STATE_REJECTED,
    OrderState,
)
from shop.orders.v1.order_service_pb2 import CancelOrderRequest, CreateOrderRequest
from shop.queries.v1.order_query_service_pb2 import ListOrdersRequest, WatchOrderRequest
from stack.clients import Call, Clients, connect, orders_of, retried, retry_seconds
from stack.topology import ROOT
from tests import servers
from tests.controls import MODES, Mode, wire
from tests.upgrade.released import make_tree
from tests.waiting import GOING_AWAY, until
from twinlog.dev import EmbeddedNats, EmbeddedPostgres, Program, Supervisor, free_port
from twinlog.v1.view_service_pb2 import (
    VIEW_BUILD_STATE_READY,
    DropViewBuildRequest,
    GetRebuildRequest,
    RebuildViewRequest,
    SwitchViewBackRequest,
    SwitchViewRequest,
    ViewBuildState,
)
from twinlog.v1.view_service_pb2_grpc import ViewServiceStub

_SETTINGS = {
    "order_svc": "ORDERS_ADDRESS",
    "customer_svc": "CUSTOMERS_ADDRESS",
    "saga_orchestrator": "SAGAS_ADDRESS",
    "projector": "QUERIES_ADDRESS",
}
_STORIES = (
    ("1", ORDER_STATE_APPROVED),
    ("1", ORDER_STATE_CANCELLED),
    ("1000000", ORDER_STATE_REJECTED),
)
"""What an order is of, in EUR, and the state that it comes to, over and over again."""
_LIMIT = "900000"
_WORKERS = 2
"""For each mode; one order at a time."""
_PAUSE_SECONDS = 0.2
"""Between two of a worker's orders: processes that start and stop meanwhile get their share of the processors."""
_PHASE_ORDERS = 4
"""Of each mode, that begin and end in a phase."""
_UPGRADE_ORDER = ("customer_svc", "projector", "order_svc", "saga_orchestrator")
_ROLLBACK_ORDER = ("saga_orchestrator", "order_svc", "customer_svc", "projector")
"""The order in which the services' replicas of the other version end: each mixture of the two works for a while."""
_CALL_SECONDS = 100.0
_SETTLE_SECONDS = 200.0


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released tree."""
    tree = tmp_path_factory.mktemp("released")
    make_tree(tree)
    return tree


async def test_upgrade_and_rollback(
    own_postgres: EmbeddedPostgres, own_nats: EmbeddedNats, released: Path
) -> None:
    """Nobody refuses anything, nothing is lost, and the auditor finds nothing."""
    env = {"POSTGRES_URL": own_postgres.url, "NATS_URL": own_nats.url, "LOG_FORMAT": "json"}
    said: list[str] = []

    def say(line: str) -> None:
        print(line)
        said.append(line)

    async with load() as orders, AsyncExitStack() as new:
        async with replicas(released, env, say, orders) as older:
            await orders.phase()
            newer = await new.enter_async_context(replicas(ROOT, env, say, orders))
            await orders.phase()
            for first, second in ((older, newer), (newer, older)):
                await take_what_each_gives(first.addresses, second.addresses)
            with pytest.raises(grpc.aio.AioRpcError, match=r"release 0\.1 is at work .* Stop it"):
                await rebuilt(newer.addresses.queries)
            for service in _UPGRADE_ORDER:
                await orders.phase(1)
                await older.stop(service)
        await rebuilt(newer.addresses.queries)
        await orders.phase()
        async with replicas(released, env, say, orders):
            for service in _ROLLBACK_ORDER:
                await orders.phase(1)
                await newer.stop(service)
            await new.aclose()
            await orders.phase()
            await orders.finish()
            report = await audit(own_postgres.url, own_nats.url, wait_seconds=_SETTLE_SECONDS)
            assert (report.in_flight, report.violations, report.notes) == ([], [], [])
            async with open_auditor(own_postgres.url, own_nats.url) as auditor:
                assert (await auditor.verify_chains()).violations == []
            assert await orders.seen() == orders.states
    assert [line for line in said if '"level": "error"' in line or "ended with" in line] == []


class Addresses(NamedTuple):
    """Where the replicas of one tree are."""

    orders: str
    customers: str
    sagas: str
    queries: str


class Replicas(NamedTuple):
    """One of each service, of one tree."""

    addresses: Addresses
    supervisors: Mapping[str, Supervisor]

    async def stop(self, service: str) -> None:
        await self.supervisors[service].__aexit__()


class Load:
    """Orders in both modes, through whichever replicas are up; a call that one of them refuses ends the test."""

    def __init__(self, channels: AsyncExitStack, group: asyncio.TaskGroup) -> None:
        self._channels = channels
        self._sides: list[Clients] = []
        self._turn = 0
        self._going = True
        self._customers: list[str] = []
        self._ended: Counter[Mode] = Counter()
        self.states: dict[str, OrderState.ValueType] = {}
        """What became of each order, as its client knows it."""
        self._workers = [group.create_task(self._work(mode)) for mode in MODES for _ in range(_WORKERS)]

    async def finish(self) -> None:
        """Returns when the last order has come to its end."""
        self._going = False
        await asyncio.gather(*self._workers)

    async def phase(self, count: int = _PHASE_ORDERS) -> None:
        """Returns when so many orders of each mode have begun, and come to their end, since it was called."""
        goal = {mode: self._ended[mode] + _WORKERS + count for mode in MODES}
        await until(lambda: all(self._ended[mode] >= goal[mode] for mode in MODES), seconds=_SETTLE_SECONDS)

    @asynccontextmanager
    async def through(self, addresses: Addresses) -> AsyncIterator[None]:
        """For the block, these replicas get their share of the calls. Their connections stay until the end."""
        side = await self._channels.enter_async_context(connect(addresses))
        self._sides.append(side)
        try:
            yield
        finally:
            self._sides.remove(side)

    async def seen(self) -> dict[str, OrderState.ValueType]:
        """The orders as the view has them."""
        found = [await orders_of(self._side(), customer_id) for customer_id in self._customers]
        return {order.order_id: order.state for orders in found for order in orders}

    async def _work(self, mode: Mode) -> None:
        await until(lambda: bool(self._sides))
        customer = CreateCustomerRequest(request_id=new_id(), name="Ada", credit_limit=wire(_LIMIT))
        customer_id = (await self._call(lambda side: side.customers.CreateCustomer, customer)).customer_id
        self._customers.append(customer_id)
        while self._going:
            for total, state in _STORIES:
                request = CreateOrderRequest(
                    request_id=new_id(), customer_id=customer_id, total=wire(total), saga_mode=mode
                )
                answer = await self._call(lambda side: side.orders.CreateOrder, request)
                order_id = answer.order_id
                first = await self._outcome(order_id, answer.consistency_token)
                if state == ORDER_STATE_CANCELLED:
                    assert first == ORDER_STATE_APPROVED
                    cancel = CancelOrderRequest(request_id=new_id(), order_id=order_id)
                    answer = await self._call(lambda side: side.orders.CancelOrder, cancel)
                    first = await self._outcome(order_id, answer.consistency_token)
                assert OrderState.Name(first) == OrderState.Name(state)
                self.states[order_id] = state
                self._ended[mode] += 1
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _call(self, method: Callable[[Clients], Call[Any]], request: Any) -> Any:
        """The answer of one replica, or of the next where one is on its way up or down, or busy and says so."""
        while True:
            try:
                return await method(self._side())(request, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() not in GOING_AWAY and retry_seconds(error) is None:
                    raise
            await asyncio.sleep(0.02)

    async def _outcome(self, order_id: str, token: str) -> OrderState.ValueType:
        """The state of an order that is no longer pending."""
        request = WatchOrderRequest(order_id=order_id, consistency_token=token)
        while True:
            try:
                watch = self._side().order_queries.WatchOrder(request, timeout=_CALL_SECONDS)
                states: list[OrderState.ValueType] = [seen.order.state async for seen in watch]
                return states[-1]
            except grpc.aio.AioRpcError as error:
                if error.code() not in GOING_AWAY and retry_seconds(error) is None:
                    raise
            await asyncio.sleep(0.02)

    def _side(self) -> Clients:
        self._turn += 1
        return self._sides[self._turn % len(self._sides)]


@asynccontextmanager
async def load() -> AsyncIterator[Load]:
    """Orders for the block, as soon as there are replicas."""
    async with AsyncExitStack() as channels, asyncio.TaskGroup() as group:
        orders = Load(channels, group)
        yield orders
        await orders.finish()


@asynccontextmanager
async def replicas(
    tree: Path, env: Mapping[str, str], say: Callable[[str], None], orders: Load
) -> AsyncIterator[Replicas]:
    """One replica of each service, from a tree; they get calls while they start and stop, too."""
    programs = [Program(module, setting, f"127.0.0.1:{free_port()}") for module, setting in _SETTINGS.items()]
    addresses = Addresses(*(program.address for program in programs))
    with servers.folder() as folder:
        supervisors = {
            program.module: Supervisor([program], env, say, root=tree, folder=folder) for program in programs
        }
        async with orders.through(addresses):
            try:
                await asyncio.gather(*(each.__aenter__() for each in supervisors.values()))
                yield Replicas(addresses, supervisors)
            finally:
                await asyncio.gather(*(each.__aexit__() for each in supervisors.values()))


async def take_what_each_gives(first: Addresses, second: Addresses) -> None:
    """A request that is sent to both has one answer, and what one answers with, the other takes: ids and tokens."""
    async with connect(first) as one, connect(second) as other:

        async def twice(method: Callable[[Clients], Call[Any]], request: Any) -> Any:
            answers = [await retried(method(side), request) for side in (one, other)]
            assert answers[0] == answers[1]
            return answers[0]

        customer = CreateCustomerRequest(request_id=new_id(), name="Ada", credit_limit=wire(_LIMIT))
        customer_id = (await twice(lambda side: side.customers.CreateCustomer, customer)).customer_id
        made = list[str]()
        for _ in range(2):
            request = CreateOrderRequest(request_id=new_id(), customer_id=customer_id, total=wire("1"))
            answer = await twice(lambda side: side.orders.CreateOrder, request)
            made.append(answer.order_id)
        listed = ListOrdersRequest(
            customer_id=customer_id, page_size=1, consistency_token=answer.consistency_token
        )
        pages = [await other.order_queries.ListOrders(listed, timeout=_CALL_SECONDS)]
        listed.page_token = pages[0].next_page_token
        pages.append(await one.order_queries.ListOrders(listed, timeout=_CALL_SECONDS))
        assert [order.order_id for page in pages for order in page.orders] == made[::-1]


async def rebuilt(address: str) -> None:
    """A view is built anew, read, and left again: what was released knows of no second build."""
    async with grpc.aio.insecure_channel(address) as channel:
        views, states = ViewServiceStub(channel), list[ViewBuildState.ValueType]()

        async def asked(method: Any, request: Any) -> Any:
            return await method(request, timeout=_SETTLE_SECONDS, wait_for_ready=True)

        async def caught_up() -> bool:
            states.append((await asked(views.GetRebuild, GetRebuildRequest(view="orders"))).build.state)
            return states[-1] == VIEW_BUILD_STATE_READY

        await asked(views.RebuildView, RebuildViewRequest(view="orders", share=100))
        await until(caught_up)
        await asked(views.SwitchView, SwitchViewRequest(view="orders"))
        await asked(views.SwitchViewBack, SwitchViewBackRequest(view="orders"))
        await asked(views.DropViewBuild, DropViewBuildRequest(view="orders", build=2))


def new_id() -> str:
    return str(uuid4())
