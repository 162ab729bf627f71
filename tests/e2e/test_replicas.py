"""Several projectors on one port: each answers the same, tokens included, and one that is killed is not missed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import grpc
import grpc.aio
import pytest

from shop.orders.v1.order_pb2 import ORDER_STATE_CANCELLED
from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    GetOrderResponse,
    ListOrdersRequest,
    Order,
    WatchOrdersRequest,
)
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from stack.topology import ROOT
from tests.e2e.client import PATIENCE, Client
from tests.programs import Program, program
from tests.waiting import GOING_AWAY, until
from twinlog.dev import free_port
from twinlog.v1.inspection_pb2 import DescribeRequest
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="package")

_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
"""Channels to one address share their connection otherwise."""


class Replicas:
    """Two projectors that share a port, and a channel to each of them."""

    def __init__(self, client: Client, address: str, stack: AsyncExitStack) -> None:
        self._client = client
        self._stack = stack
        self.address = address
        self.processes: list[Program] = []
        self.channels: dict[str, grpc.aio.Channel] = {}
        """By when the process that answers has started."""

    async def start(self) -> None:
        """One more; returns when a connection has come to it."""
        servers = {"POSTGRES_URL": self._client.shop.postgres_url, "NATS_URL": self._client.shop.nats_url}
        env = {
            **os.environ,
            **servers,
            "QUERIES_ADDRESS": self.address,
            "SHARE_PORT": "1",
            "LOG_LEVEL": "error",
        }
        started = await self._stack.enter_async_context(
            program(sys.executable, "-m", "projector", env=env, cwd=ROOT)
        )
        self.processes.append(started)
        await started.until(self._found)

    async def _found(self) -> bool:
        """Whether a new connection has come to the process that was started last; it is kept then."""
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(self.address, _OWN_CONNECTION)
            )
            try:
                told = await InspectionServiceStub(channel).Describe(DescribeRequest(), timeout=PATIENCE)
            except grpc.aio.AioRpcError:  # it does not listen yet
                return False
            if self.channels.setdefault(told.started_at.ToJsonString(), channel) is channel:
                self._stack.push_async_exit(stack.pop_all())
        return len(self.channels) == len(self.processes)

    @property
    def stubs(self) -> list[OrderQueryServiceStub]:
        return [OrderQueryServiceStub(channel) for channel in self.channels.values()]


@asynccontextmanager
async def two(client: Client) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        replicas = Replicas(client, f"127.0.0.1:{free_port()}", stack)
        await replicas.start()
        await replicas.start()
        yield replicas


async def read(stub: OrderQueryServiceStub, order_id: str, token: str) -> Order:
    request = GetOrderRequest(order_id=order_id, consistency_token=token)
    found: GetOrderResponse = await stub.GetOrder(request, timeout=PATIENCE, wait_for_ready=True)
    return found.order


async def read_all(stub: OrderQueryServiceStub, tokens: Mapping[str, str]) -> list[Order]:
    return [await read(stub, order_id, token) for order_id, token in tokens.items()]


async def answers(stub: OrderQueryServiceStub, tokens: Mapping[str, str], expected: list[Order]) -> bool:
    """Whether it answers so; not where the connection breaks under a call that is on its way."""
    try:
        return await read_all(stub, tokens) == expected
    except grpc.aio.AioRpcError as error:
        assert error.code() in GOING_AWAY
        return False


async def changed(stub: OrderQueryServiceStub, customer: str, token: str) -> tuple[set[str], str]:
    """The orders of a customer that a watch is told of at once, and where it goes on."""
    request = WatchOrdersRequest(customer_id=customer, resume_token=token)
    watching = stub.WatchOrders(request, timeout=PATIENCE)
    first = await watching.read()
    watching.cancel()
    return {order.order_id for order in first.orders}, first.resume_token


async def test_replicas_on_one_port_answer_the_same_and_one_that_is_killed_is_not_missed(
    client: Client,
) -> None:
    customer = await client.customer("1000")
    async with two(client) as replicas:
        tokens: dict[str, str] = {}
        seen: list[Order] = []
        for _ in range(3):
            created = await client.create(customer, "1")
            await client.watch(created.order_id, created.consistency_token)
            tokens[created.order_id] = (await client.cancel(created.order_id)).consistency_token
            for stub in [*replicas.stubs, *replicas.stubs]:  # what it has seen at one, it sees at the other
                now = await read_all(stub, tokens)
                assert all(new.version >= old.version for new, old in zip(now, seen, strict=False))
                seen = now
            assert seen[-1].state == ORDER_STATE_CANCELLED
        page = ListOrdersRequest(customer_id=customer, page_size=2)
        first, second = [await stub.ListOrders(page, timeout=PATIENCE) for stub in replicas.stubs]
        assert first == second
        page.page_token = first.next_page_token  # of one replica, for the other
        rest = await replicas.stubs[1].ListOrders(page, timeout=PATIENCE)
        assert {order.order_id for order in (*first.orders, *rest.orders)} == tokens.keys()

        here, there = replicas.stubs
        known, watched = await changed(here, customer, "")
        assert known == tokens.keys()
        missed = await client.create(customer, "1")
        await read(there, missed.order_id, missed.consistency_token)
        told, watched = await changed(there, customer, watched)  # a watch goes on at the other one
        assert told - tokens.keys() == {missed.order_id}
        again, _ = await changed(here, customer, watched)
        assert again <= told | tokens.keys(), "it is told of changes only"

        expected = await read_all(replicas.stubs[0], tokens)
        killed, _ = replicas.processes
        assert await killed.ends_at(signal.SIGKILL) == -signal.SIGKILL
        for stub in replicas.stubs:  # the channel whose process is gone connects to the one that is left
            await until(partial(answers, stub, tokens, expected))
        after = await client.create(customer, "1")
        for stub in replicas.stubs:
            assert (await read(stub, after.order_id, after.consistency_token)).order_id == after.order_id
