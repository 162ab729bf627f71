"""The service of docs/third-service.md, taken from the page as it stands, beside a real orders log."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import grpc
import grpc.aio
import pytest

from order_svc.domain import ORDER, ApproveOrder, CancelOrder, CreateOrder
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY
from stack.topology import ROOT
from tests import servers
from twinlog import Money, Schema, Writer
from twinlog._aio.tasks import Tasks
from twinlog.dev import EmbeddedNats, free_port, spawn, stop, until_serving
from twinlog.testing import MemoryLog
from twinlog.testing.internals import JetStreamTwin, NatsClient, RandomIds, Relay, SystemClock, connect

PAGE = ROOT / "docs" / "third-service.md"
_BLOCK = re.compile(r"```\w+\n(?:#|//) (\S+)\n(.*?)```", re.DOTALL)
_PATIENCE = 60.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files and the code generated from its proto."""
    folder = tmp_path_factory.mktemp("stamps")
    for name, text in _BLOCK.findall(PAGE.read_text()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder / 'protos'}"]
    outputs = [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    subprocess.run([*protoc, *outputs, "stamps/v1/stamps.proto"], check=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def test_its_tests_pass(service: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=service,
        env=environment(service),
        check=True,
        timeout=_PATIENCE,
    )


async def test_it_follows_the_orders_and_answers(
    service: Path, postgres_url: str, own_nats: EmbeddedNats
) -> None:
    customer, order, cancelled = (str(uuid4()) for _ in range(3))
    client = await connect(own_nats.url, "tests")
    async with orders_log(client) as orders, running(service, postgres_url, own_nats.url) as address:
        for order_id in (order, cancelled):
            await approve(orders, order_id, customer)
        await stamps(address, customer, 2)
        await orders.execute(lambda tx: tx.do(ORDER, cancelled, CancelOrder()))
        await stamps(address, customer, 1)
    await client.close()


async def approve(orders: Writer, order_id: str, customer_id: str) -> None:
    create = CreateOrder(
        order_id,
        customer_id,
        Money(10**9, "EUR"),
        SAGA_MODE_CHOREOGRAPHY,
        SystemClock().now() + timedelta(minutes=1),
    )
    await orders.execute(lambda tx: tx.do(ORDER, order_id, create))
    await orders.execute(lambda tx: tx.do(ORDER, order_id, ApproveOrder()))


async def stamps(address: str, customer_id: str, wanted: int) -> None:
    """Returns when the service counts that many."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(_PATIENCE):
        ask = channel.unary_unary("/stamps.v1.StampService/GetStamps")
        request = b"\x0a\x24" + customer_id.encode()
        while await ask(request) != bytes([0x08, wanted]):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def orders_log(client: NatsClient) -> AsyncIterator[Writer]:
    """A writer of an orders log, whose twin is in JetStream."""
    log = MemoryLog("orders")

    def crash(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    async with Tasks(crash) as tasks:
        relay = Relay(log, JetStreamTwin(client, log.name))
        tasks.start("relay", relay.run())
        async with Writer(
            log, schema=Schema(), clock=SystemClock(), ids=RandomIds(), on_commit=relay.offer
        ) as writer:
            yield writer


@asynccontextmanager
async def running(folder: Path, postgres_url: str, nats_url: str) -> AsyncIterator[str]:
    """The address of the service, in a process of its own."""
    address = f"127.0.0.1:{free_port()}"
    env = environment(folder) | {
        "POSTGRES_URL": postgres_url,
        "NATS_URL": nats_url,
        "STAMPS_ADDRESS": address,
    }
    process = await spawn([sys.executable, "-m", "stamps_svc"], env=env, cwd=folder)
    try:
        async with asyncio.timeout(_PATIENCE):
            await until_serving(address)
        yield address
    finally:
        await stop(process)
        await servers.execute(postgres_url, 'DROP DATABASE IF EXISTS "shop_stamps" WITH (FORCE)')
