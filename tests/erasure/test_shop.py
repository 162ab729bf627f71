"""The running shop: a customer's name is on no disk and in no log line, and is gone for good once it is erased."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest, EraseCustomerRequest
from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED
from shop.queries.v1.customer_query_service_pb2 import ListCustomersRequest
from stack.shop import Shop, running
from tests.controls import MODES, new_id, wire
from tests.e2e.client import PATIENCE, Client, connect, refusal
from tests.erasure.disks import files_with
from tests.servers import execute, folder

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAME = "Zephyrine Quartermaine-Okonkwo"
PLAIN = NAME.encode()
DATABASES = ("shop_orders", "shop_customers", "shop_sagas", "shop_views", "twinlog_keys")


class Running:
    """The shop, its data, and what it said."""

    def __init__(self, shop: Shop, data: Path, spoken: list[str], client: Client) -> None:
        self.shop, self.data, self.spoken, self.client = shop, data, spoken, client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at_work() -> AsyncIterator[Running]:
    spoken: list[str] = []
    with folder() as data:
        async with running(spoken.append, data=data) as shop, connect(shop) as client:
            yield Running(shop, data, spoken, client)
        assert not files_with(data, PLAIN), "also of what the stop wrote"
    assert not [line for line in spoken if NAME in line]


async def _created(client: Client, **more: str) -> str:
    request = CreateCustomerRequest(name=NAME, credit_limit=wire("20"), request_id=new_id(), **more)
    created = await client.customers.CreateCustomer(request, timeout=PATIENCE)
    assert await client.customers.CreateCustomer(request, timeout=PATIENCE) == created, "a retry"
    assert (await client.get_customer(created.customer_id, created.consistency_token)).name == NAME
    return str(created.customer_id)


async def _flushed(shop: Shop) -> None:
    """Whatever Postgres has in memory is on disk, too."""
    for database in DATABASES:
        await execute(shop.postgres_url, "CHECKPOINT", database)


def _cli(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "twinlog", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


async def test_a_name_is_on_no_disk_while_queries_show_it(at_work: Running) -> None:
    client = at_work.client
    customer = await _created(client)
    for mode in MODES:
        assert (await client.order(customer, "1", mode)).state == ORDER_STATE_APPROVED
    listed = await client.customer_queries.ListCustomers(ListCustomersRequest(), timeout=PATIENCE)
    assert NAME in {each.name for each in listed.customers}
    await _flushed(at_work.shop)
    assert not await asyncio.to_thread(files_with, at_work.data, PLAIN)
    found = await asyncio.to_thread(files_with, at_work.data, customer.encode())
    assert [path for path in found if "/pg" in path] and [path for path in found if "/nats" in path]


async def test_an_erased_customer_has_no_name_and_goes_on(at_work: Running) -> None:
    client, shop = at_work.client, at_work.shop
    customer, other = await _created(client), await _created(client)
    erase = EraseCustomerRequest(request_id=new_id(), customer_id=customer)
    erased = await client.customers.EraseCustomer(erase, timeout=PATIENCE)
    assert await client.customers.EraseCustomer(erase, timeout=PATIENCE) == erased, "a retry"
    assert not erased.plain_positions
    shown = await client.get_customer(customer, erased.consistency_token)
    assert (shown.name, shown.credit_limit) == ("erased", wire("20"))
    assert (await client.order(customer, "1")).state == ORDER_STATE_APPROVED
    assert (await client.get_customer(other)).name == NAME
    again = await client.customers.EraseCustomer(EraseCustomerRequest(customer_id=customer), timeout=PATIENCE)
    assert not again.plain_positions, "it is recorded once"
    told = await asyncio.to_thread(
        _cli, "log", "--stream", f"customer/{customer}", "--at", shop.customers, "--json"
    )
    types = [json.loads(line)["type"] for line in told.splitlines() if line.startswith("{")]
    assert types.count("shop.customers.v1.CustomerErased") == 1
    assert NAME not in told


async def test_who_does_not_exist_is_not_erased(at_work: Running) -> None:
    refused = await refusal(
        at_work.client.customers.EraseCustomer(EraseCustomerRequest(customer_id=new_id()), timeout=PATIENCE)
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "CUSTOMER_NOT_FOUND")
    bad: Any = EraseCustomerRequest(customer_id="me", request_id="you")
    refused = await refusal(at_work.client.customers.EraseCustomer(bad, timeout=PATIENCE))
    assert refused.fields == {"customer_id", "request_id"}
