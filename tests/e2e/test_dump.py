"""A service of the running shop that is asked by SIGUSR1 what it does."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import grpc.aio
import pytest

from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from tests.controls import new_id, wire
from tests.e2e.client import PATIENCE, Client
from tests.e2e.test_stop import Replica, orders_waits, replica_of

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def dumped(replica: Replica) -> dict[str, list[dict[str, Any]]]:
    """What it writes, by part."""
    replica.process.send_signal(signal.SIGUSR1)
    assert replica.process.stdout
    lines: dict[str, list[dict[str, Any]]] = {}
    async with asyncio.timeout(PATIENCE):
        while "end" not in lines:
            text = (await replica.process.stdout.readline()).decode()
            line = json.loads(text) if text.startswith("{") else {}
            if line.get("event") == "process.dump":
                lines.setdefault(line["part"], []).append(line)
    return lines


async def test_a_service_whose_log_is_locked_tells_who_waits_where(client: Client) -> None:
    customer = await client.customer()
    async with (
        replica_of(client, "order_svc") as replica,
        grpc.aio.insecure_channel(replica.address) as channel,
    ):
        request = CreateOrderRequest(request_id=new_id(), customer_id=customer, total=wire("1"))
        async with client.held_up("orders"):
            call = OrderServiceStub(channel).CreateOrder(request, timeout=PATIENCE)
            await orders_waits(client)
            told = await dumped(replica)
        assert (await call).order_id
    [waiting] = told["call"]
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
