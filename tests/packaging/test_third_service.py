"""The service of docs/third-service.md, from the page as it stands, outside the checkout and beside a running shop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from shlex import quote

import grpc.aio
import pytest

from stack.topology import ROOT
from tests import servers
from tests.docs.third_service import commands, write_files
from tests.e2e.client import connect
from tests.packaging.conftest import Adopter
from tests.programs import program
from tests.shops import running_shop
from twinlog.dev import free_port

_PATIENCE_SECONDS = 180.0


@pytest.fixture(scope="module", autouse=True)
def generated(adopter: Adopter) -> str:
    """What the commands say that generate the page's protos and run its tests."""
    write_files(adopter.folder)
    return adopter.run("bash", "-e", "-c", f"SHOP={quote(str(ROOT))}\n{commands('grpc_tools.protoc')}")


def test_its_protos_are_generated_and_its_tests_pass(generated: str) -> None:
    assert "3 passed" in generated


async def test_it_follows_a_running_shop_and_answers(adopter: Adopter) -> None:
    said: list[str] = []
    with servers.folder() as folder:
        async with (
            running_shop(folder, said.append) as shop,
            connect(shop) as client,
            stamps_svc(adopter, shop.postgres_url, shop.nats_url) as address,
        ):
            customer = await client.customer()
            orders = [await client.order(customer, "1") for _ in range(2)]
            await stamps(address, customer, 2)
            await client.cancel(orders[0].order_id)
            await stamps(address, customer, 1)


@asynccontextmanager
async def stamps_svc(adopter: Adopter, postgres_url: str, nats_url: str) -> AsyncIterator[str]:
    """The address of the service, in a process of the adopter's environment."""
    address = f"127.0.0.1:{free_port()}"
    env = {**adopter.env, "POSTGRES_URL": postgres_url, "NATS_URL": nats_url, "STAMPS_ADDRESS": address}
    try:
        async with program(adopter.bin / "python", "-m", "stamps_svc", env=env, cwd=adopter.folder) as svc:
            await svc.serves(address)
            yield address
    finally:
        await servers.execute(postgres_url, 'DROP DATABASE IF EXISTS "shop_stamps" WITH (FORCE)')


async def stamps(address: str, customer_id: str, wanted: int) -> None:
    """Returns when the service counts that many."""
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(_PATIENCE_SECONDS):
        ask = channel.unary_unary("/stamps.v1.StampService/GetStamps")
        request = b"\x0a\x24" + customer_id.encode()
        while await ask(request) != bytes([0x08, wanted]):
            await asyncio.sleep(0.05)
