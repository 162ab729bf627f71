"""How a service starts and stops: in order, on SIGTERM as on Ctrl-C, under calls."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.queries.v1.order_query_service_pb2 import WatchOrderRequest
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from stack.topology import ROOT
from tests.controls import new_id, wire
from tests.e2e.client import PATIENCE, Client, refusal
from tests.programs import Program, program
from tests.waiting import until
from twinlog.dev import free_port

pytestmark = pytest.mark.asyncio(loop_scope="package")

SERVICES = {
    "order_svc": "ORDERS_ADDRESS",
    "customer_svc": "CUSTOMERS_ADDRESS",
    "saga_orchestrator": "SAGAS_ADDRESS",
    "projector": "QUERIES_ADDRESS",
}


@dataclass
class Replica:
    """One more process of a service."""

    program: Program
    address: str

    async def ends_well(self, signum: signal.Signals) -> str:
        """Sends the signal and gives what the process said; it has to end by itself, with 0.

        One that takes longer than twinlog.service.runtime.STOP_SECONDS ends with 1.
        """
        self.program.process.send_signal(signum)
        return await self.end()

    async def end(self) -> str:
        assert await self.program.ended() == 0, self.program.said
        return self.program.said


@asynccontextmanager
async def replica_of(client: Client, module: str, **env: str) -> AsyncIterator[Replica]:
    """A second replica of a service of the shop."""
    address = f"127.0.0.1:{free_port()}"
    async with started(client, module, {SERVICES[module]: address, "LOG_FORMAT": "json", **env}) as running:
        await running.serves(address)
        yield Replica(running, address)


def started(client: Client, module: str, env: Mapping[str, str]) -> AbstractAsyncContextManager[Program]:
    servers = {"POSTGRES_URL": client.shop.postgres_url, "NATS_URL": client.shop.nats_url}
    return program(sys.executable, "-m", module, env={**os.environ, **servers, **env}, cwd=ROOT)


# Each service with one of the signals, and calls in flight with both: what they do is in one place for all services,
# with tests/kernel/test_runtime.py.
@pytest.mark.parametrize(
    ("module", "signum"),
    [
        ("order_svc", signal.SIGTERM),
        ("customer_svc", signal.SIGINT),
        ("saga_orchestrator", signal.SIGTERM),
        ("projector", signal.SIGINT),
    ],
)
async def test_an_idle_service_ends_at_once_with_zero(
    client: Client, module: str, signum: signal.Signals
) -> None:
    async with replica_of(client, module) as replica:
        said = await replica.ends_well(signum)
        assert "Traceback" not in said
        assert '"rpc.stopped"' in said


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_call_in_flight_is_told_in_a_dump_and_finished(
    client: Client, signum: signal.Signals
) -> None:
    customer = await client.customer()
    async with (
        replica_of(client, "order_svc") as replica,
        grpc.aio.insecure_channel(replica.address) as channel,
    ):
        orders, health = OrderServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        async with client.held_up("orders"):
            request = CreateOrderRequest(request_id=new_id(), customer_id=customer, total=wire("1"))
            call = orders.CreateOrder(request, timeout=PATIENCE)
            tells_who_waits_where(await dumped_waiting(replica))
            replica.program.process.send_signal(signum)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        created = await call
        await replica.end()
        assert (await client.get(created.order_id, created.consistency_token)).customer_id == customer
        assert await client.orders.CreateOrder(request, timeout=PATIENCE) == created
        refused = await refusal(orders.CreateOrder(request, timeout=PATIENCE))
        assert refused.code == grpc.StatusCode.UNAVAILABLE


async def dumped(replica: Replica) -> dict[str, list[dict[str, Any]]]:
    """What it writes when it is asked by SIGUSR1 what it does, by part."""
    before = len(replica.program.lines)
    replica.program.process.send_signal(signal.SIGUSR1)
    await replica.program.until(lambda: "end" in _parts(replica.program.lines[before:]))
    return _parts(replica.program.lines[before:])


def _parts(lines: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    parts: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        told = json.loads(line) if line.startswith("{") else {}
        if told.get("event") == "process.dump":
            parts.setdefault(told["part"], []).append(told)
    return parts


async def dumped_waiting(replica: Replica) -> dict[str, list[dict[str, Any]]]:
    """The same, as soon as it appends: others that wait for the log's head do not say where this one is."""
    told: list[dict[str, list[dict[str, Any]]]] = []

    async def appending() -> bool:
        told.append(await dumped(replica))
        return bool(told[-1]["writer"][0]["appending"] and told[-1]["pool"][0]["in_use"])

    await until(appending)
    return told[-1]


def tells_who_waits_where(told: dict[str, list[dict[str, Any]]]) -> None:
    """As of an order_svc whose log is locked, with one order on its way."""
    [waiting] = [call for call in told["call"] if call["name"] != "grpc.health.v1.Health/Watch"]
    assert (waiting["name"], waiting["count"]) == ("shop.orders.v1.OrderService/CreateOrder", 1)
    assert "Writer.execute" in waiting["stands"]
    [writer] = told["writer"]
    assert (writer["log"], writer["appending"], writer["waiting_outside"]) == ("orders", 1, 0)
    assert writer["appending_seconds"] >= 0
    [pool] = told["pool"]
    assert pool["most"] >= pool["made"] >= pool["in_use"] >= 1
    assert {each["consumer"] for each in told["consumer"]} >= {"order_svc.customers", "order_svc.sagas"}
    assert all(each["checkpoint"] >= 0 for each in told["consumer"])
    assert told["relay"][0]["log"] == "orders"
    assert {"relay", "timers", "dead letters"} <= {task["name"] for task in told["task"]}


async def orders_waits(client: Client) -> None:
    """Returns when an append waits for the head of the orders log."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop_orders' AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(PATIENCE):
        while not await client.fetch("orders", waiting):
            await asyncio.sleep(0.01)


async def test_a_call_that_cannot_be_finished_is_told_so_and_the_service_ends(client: Client) -> None:
    customer = await client.customer()
    async with (
        replica_of(client, "order_svc") as replica,
        grpc.aio.insecure_channel(replica.address) as channel,
    ):
        orders = OrderServiceStub(channel)
        request = CreateOrderRequest(request_id=new_id(), customer_id=customer, total=wire("1"))
        async with client.held_up("orders"):
            call = orders.CreateOrder(request, timeout=PATIENCE)
            await orders_waits(client)
            said = await replica.ends_well(signal.SIGTERM)
            refused = await refusal(call)
        assert refused.code == grpc.StatusCode.UNAVAILABLE
        assert "Traceback" not in said
        created = await client.orders.CreateOrder(request, timeout=PATIENCE)
        assert (await client.orders.CreateOrder(request, timeout=PATIENCE)) == created


async def test_whoever_watches_is_told_to_call_again(client: Client) -> None:
    async with (
        replica_of(client, "projector") as replica,
        grpc.aio.insecure_channel(replica.address) as channel,
    ):
        async with client.without("customer_svc"):
            created = await client.create(new_id(), "1")
            request = WatchOrderRequest(
                order_id=created.order_id, consistency_token=created.consistency_token
            )
            watch = OrderQueryServiceStub(channel).WatchOrder(request, timeout=PATIENCE)
            await watch.read()
            await replica.ends_well(signal.SIGTERM)
            refused = await refusal(watch.read())
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")


# What is wrong with each setting is in tests/kernel/test_config.py.
@pytest.mark.parametrize(
    ("module", "setting", "value"),
    [("order_svc", "ORDER_DEADLINE_SECONDS", "-1"), ("projector", "NATS_URL", "")],
)
async def test_a_wrong_setting_is_refused_at_start_by_its_name(
    client: Client, module: str, setting: str, value: str
) -> None:
    async with started(client, module, {setting: value}) as refused:
        assert await refused.ended() == 2, refused.said
        [line] = refused.lines
        assert line.startswith(setting)


async def test_an_address_in_use_is_refused_by_its_setting(client: Client) -> None:
    async with started(client, "order_svc", {"ORDERS_ADDRESS": client.shop.orders}) as refused:
        assert await refused.ended() == 2, refused.said
        assert refused.lines[-1].startswith("ORDERS_ADDRESS: cannot listen on")
