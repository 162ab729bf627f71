"""A running shop into whose logs something wrote what its services cannot read, as a newer replica would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from proof.auditor import Report, audit
from proof.chaos.unreadable import append
from saga_orchestrator.credit_saga import saga_id
from shop.orders.v1.order_pb2 import (
    ORDER_STATE_APPROVED,
    ORDER_STATE_PENDING,
    ORDER_STATE_REJECTED,
)
from shop.orders.v1.order_service_pb2 import CreateOrderRequest, CreateOrderResponse
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from shop.sagas.v1 import saga_service_pb2 as saga_pb
from stack.clients import orders_of, retried
from stack.shop import Shop
from stack.topology import NAMES
from tests.controls import MODES, Mode, new_id, wire
from tests.e2e.client import Client, Refusal, connect, hurried, refusal, refusal_of
from tests.servers import folder
from tests.shops import running_shop
from tests.waiting import until
from twinlog.audit import history
from twinlog.v1 import dead_letter_service_pb2 as letters
from twinlog.v1 import saga_service_pb2 as kernel_pb
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from twinlog.v1.saga_service_pb2_grpc import SagaServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORDERS, CANCELS = 114, 6
AT_ONCE = 64
"""Calls that are open at once."""
TYPE = "shop.orders.v1.OrderAnnotated"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[Client]:
    """A client of a shop of the test's own: what is poisoned stays poisoned."""
    with folder() as path:
        async with running_shop(path) as shop, connect(shop) as connected:
            yield connected


async def poison(client: Client, log: str, stream_type: str, stream_id: str, type: str = TYPE) -> int:
    """Appends an event whose type nobody knows, or whose payload nobody can read; gives its version."""
    payload = b"" if type == TYPE else b"\xff\xff"
    async with client.database(log) as connection:
        return await append(connection, stream_type, stream_id, type, payload)


def pids(shop: Shop) -> list[int]:
    return [shop.supervisor.pid(name) for name in NAMES]


async def signal(address: str, name: str) -> str:
    """What a check of a signal says: its problem, empty while there is none."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = health_pb2_grpc.HealthStub(channel).Check(HealthCheckRequest(service=name))
        status = (await call).status
        said = {key: str(text) for key, text in await call.trailing_metadata()}
    assert (status == HealthCheckResponse.SERVING) == ("x-problem" not in said)
    return said.get("x-problem", "")


async def parked(client: Client) -> dict[str, int]:
    """How many dead letters there are, by consumer."""
    found: dict[str, int] = {}
    for address in client.shop.addresses.values():
        async with grpc.aio.insecure_channel(address) as channel:
            groups = await DeadLetterServiceStub(channel).GroupDeadLetters(letters.GroupDeadLettersRequest())
            for group in groups.groups:
                found[group.consumer] = found.get(group.consumer, 0) + group.count
    return found


async def audited(client: Client) -> Report:
    return await audit(client.shop.postgres_url, client.shop.nats_url)


def unreadable(refused: Refusal, stream: str, version: int) -> bool:
    named = (refused.facts.get("stream"), refused.facts.get("version"))
    return (refused.code, refused.reason, named) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "STREAM_UNREADABLE",
        (stream, str(version)),
    )


async def told(call: Awaitable[Any]) -> Any:
    """What a call comes to: its response, or its refusal."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)


async def test_commands_in_one_batch_with_those_of_an_unreadable_order_go_through(client: Client) -> None:
    before = pids(client.shop)
    victim, neighbor = [await client.customer("1000") for _ in range(2)]
    bad = (await client.order(victim, "1", SAGA_MODE_CHOREOGRAPHY)).order_id
    version = await poison(client, "orders", "order", bad)
    at_once = asyncio.Semaphore(AT_ONCE)

    async def within(call: Awaitable[Any]) -> Any:
        async with at_once:
            return await told(call)

    def create(mode: Mode) -> Awaitable[Any]:
        request = CreateOrderRequest(
            request_id=new_id(), customer_id=neighbor, total=wire("1"), saga_mode=mode
        )
        return retried(client.orders.CreateOrder, request)  # a slow machine refuses some for a while

    # In turn, so that each batch has some of both.
    calls = [within(create(MODES[number % 2])) for number in range(ORDERS)]
    cancels = [within(client.cancel(bad)) for _ in range(CANCELS)]
    for number, cancel in enumerate(cancels):
        calls.insert((ORDERS + CANCELS) // CANCELS * number, cancel)
    results = await asyncio.gather(*calls)
    refusals = [result for result in results if isinstance(result, Refusal)]
    assert len(refusals) == CANCELS
    assert all(unreadable(refused, f"order/{bad}", version) for refused in refusals), refusals[0]

    async def all_approved() -> bool:
        states = [order.state for order in await orders_of(client, neighbor)]
        return states == [ORDER_STATE_APPROVED] * ORDERS

    await until(all_approved)
    assert f"order/{bad}" in await signal(client.shop.orders, "unreadable-streams")
    assert not await signal(client.shop.orders, "")

    async def view_has_set_it_aside() -> bool:
        return await parked(client) == {"projector.orders": 1}

    await until(view_has_set_it_aside)
    report = await audited(client)
    assert set(report.counts) == {history.DECODES}
    assert all(f"order/{bad}" in violation.ids for violation in report.violations)
    assert pids(client.shop) == before, "no process ended"


async def in_a_hurry(client: Client, mode: Mode, seconds: int, *customers: str) -> list[CreateOrderResponse]:
    """Orders that wait for their credit for so many seconds."""
    async with (
        hurried(client.shop, seconds=seconds) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        create = OrderServiceStub(channel).CreateOrder
        requests = [
            CreateOrderRequest(request_id=new_id(), customer_id=id, total=wire("1"), saga_mode=mode)
            for id in customers
        ]
        return [await retried(create, request) for request in requests]


@pytest.mark.parametrize(
    ("mode", "type"),
    [(SAGA_MODE_CHOREOGRAPHY, TYPE), (SAGA_MODE_ORCHESTRATION, "shop.orders.v1.OrderApproved")],
    ids=["unknown type", "no payload"],
)
async def test_a_deadline_of_an_unreadable_order_waits_and_nobody_else_does(
    client: Client, mode: Mode, type: str
) -> None:
    victim, neighbor, late = [await client.customer("1000") for _ in range(3)]
    async with client.without("customer_svc"):
        async with client.without("order_svc"):  # which would fire their timers before the poison is there
            for seconds in (1, 8, 64):
                bad, other = await in_a_hurry(client, mode, seconds, victim, late)
                version = await poison(client, "orders", "order", bad.order_id, type)
                if version == 2:
                    break  # else this machine is slow: the deadline came first
            await client.kill("order_svc")
        before = pids(client.shop)

        async def rejected() -> bool:
            seen = await client.get(other.order_id, other.consistency_token)
            return seen.state == ORDER_STATE_REJECTED

        await until(rejected, seconds=120)
    assert (await client.order(neighbor, "1", mode)).state == ORDER_STATE_APPROVED
    name = f"order/{bad.order_id}"
    assert unreadable(await refusal(client.cancel(bad.order_id)), name, version)

    async def waits() -> bool:
        return name in await signal(client.shop.orders, "timers")

    await until(waits)
    log = "customers" if mode == SAGA_MODE_CHOREOGRAPHY else "sagas"

    async def answer_is_set_aside() -> bool:
        return (await parked(client)).get(f"order_svc.{log}", 0) > 0

    await until(answer_is_set_aside)
    assert not await signal(client.shop.orders, "")
    report = await audited(client)
    assert name in {id for violation in report.violations for id in violation.ids}
    assert set(report.counts) == {history.DECODES}
    assert pids(client.shop) == before, "no process ended"


async def test_an_unreadable_customer_and_an_unreadable_saga_hold_up_their_own(client: Client) -> None:
    before = pids(client.shop)
    victim, neighbor = [await client.customer("1000") for _ in range(2)]
    version = await poison(client, "customers", "customer", victim)
    assert unreadable(await refusal(client.limit(victim, "5")), f"customer/{victim}", version)
    mine = [await client.create(victim, "1", mode) for mode in MODES]
    theirs = [await client.order(neighbor, "1", mode) for mode in MODES]
    assert [order.state for order in theirs] == [ORDER_STATE_APPROVED] * 2

    async def set_aside() -> bool:
        found = await parked(client)
        return all(found.get(f"customer_svc.{log}", 0) for log in ("orders", "sagas"))

    await until(set_aside)
    stuck = saga_id(mine[MODES.index(SAGA_MODE_ORCHESTRATION)].order_id)

    async def owner_is_told() -> bool:
        """Its command is a dead letter of the service that owes the answer, which says so."""
        async with grpc.aio.insecure_channel(client.shop.sagas) as channel:
            asked = kernel_pb.GetSagaRequest(saga_id=stuck)
            saga = (await SagaServiceStub(channel).GetSaga(asked)).saga
        [awaited] = saga.awaited
        assert awaited.owner == "customer_svc"
        set_aside = awaited.progress == kernel_pb.COMMAND_PROGRESS_DEAD_LETTER
        return bool(set_aside and awaited.dead_letters > 0)

    await until(owner_is_told)
    orchestrated = (await client.order(neighbor, "1", SAGA_MODE_ORCHESTRATION)).order_id
    saga = (await client.saga(orchestrated)).saga_id
    version = await poison(client, "sagas", "credit_saga", saga)
    assert unreadable(await refusal(client.saga(orchestrated)), f"credit_saga/{saga}", version)

    async def is_listed() -> bool:
        listed = await client.sagas.ListSagas(saga_pb.ListSagasRequest())
        return saga in {each.saga_id for each in listed.sagas}

    await until(is_listed)
    for order in mine:
        seen = await client.get(order.order_id, order.consistency_token)
        assert seen.state in (ORDER_STATE_PENDING, ORDER_STATE_REJECTED)
    assert f"customer/{victim}" in await signal(client.shop.customers, "unreadable-streams")
    report = await audited(client)
    named = {id for violation in report.violations for id in violation.ids}
    assert {f"customer/{victim}", f"credit_saga/{saga}"} <= named
    assert set(report.counts) == {history.DECODES}
    assert pids(client.shop) == before, "no process ended"
