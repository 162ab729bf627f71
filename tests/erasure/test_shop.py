"""The running shop: a customer's name is on no disk and in no log line, and is gone for good once it is erased."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from customer_svc.domain import CUSTOMER, CreateCustomer
from proof.auditor import audit
from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest, EraseCustomerRequest
from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED
from shop.queries.v1.customer_query_service_pb2 import (
    GetCustomerRequest,
    ListCustomersRequest,
    WatchCustomerRequest,
)
from stack.shop import Shop
from tests import preloaded
from tests.controls import MODES, new_id, wire
from tests.e2e.client import PATIENCE, Client, connect, refusal
from tests.erasure.disks import files_with
from tests.observe.scraping import scraped
from tests.servers import execute, folder
from tests.shops import running_shop
from tests.waiting import until
from twinlog import Money, Schema, Writer
from twinlog.audit.erasure import search
from twinlog.dev import Console
from twinlog.postgres.log import open_log
from twinlog.service.archive import ArchiveOptions, archive_log
from twinlog.testing.internals import RandomIds, SystemClock
from twinlog.v1.moment_pb2 import Moment

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
        started = running_shop(data, spoken.append, metrics="127.0.0.1:0", console=Console(address=None))
        async with started as shop, connect(shop) as client:
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


async def _cli(*arguments: str) -> str:
    ran = await preloaded.run("twinlog", *arguments)
    assert ran.code == 0, ran.err
    return ran.out + ran.err


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
    past = GetCustomerRequest(customer_id=customer, as_of=Moment(version=1))

    async def is_erased() -> bool:
        answer = await client.customer_queries.GetCustomer(past, timeout=PATIENCE)
        return str(answer.customer.name) == "erased"

    await until(is_erased)  # another process: it learns of the erasure within a second or so
    then = GetCustomerRequest(customer_id=other, as_of=Moment(version=1))
    assert (await client.customer_queries.GetCustomer(then, timeout=PATIENCE)).customer.name == NAME
    watch = client.customer_queries.WatchCustomer(WatchCustomerRequest(customer_id=other), timeout=PATIENCE)
    assert (await anext(aiter(watch))).customer.name == NAME
    watch.cancel()
    assert (await client.order(customer, "1")).state == ORDER_STATE_APPROVED
    assert (await client.get_customer(other)).name == NAME
    again = await client.customers.EraseCustomer(EraseCustomerRequest(customer_id=customer), timeout=PATIENCE)
    assert not again.plain_positions, "it is recorded once"
    told = await _cli("log", "--stream", f"customer/{customer}", "--at", shop.customers, "--json")
    types = [json.loads(line)["type"] for line in told.splitlines() if line.startswith("{")]
    assert types.count("shop.customers.v1.CustomerErased") == 1
    assert NAME not in told


async def test_who_is_erased_while_orders_are_under_way_gets_them_all(at_work: Running) -> None:
    client = at_work.client
    customer = await _created(client)
    async with client.without("customer_svc"):
        waiting = [await client.create(customer, "1", mode) for mode in MODES for _ in range(2)]
    more = asyncio.gather(*(client.create(customer, "1", mode) for mode in MODES * 2))
    erased = await asyncio.gather(
        *(
            client.customers.EraseCustomer(EraseCustomerRequest(customer_id=customer), timeout=PATIENCE)
            for _ in range(2)
        )
    )
    for order in (*waiting, *await more):
        [*_, last] = await client.watch(order.order_id, order.consistency_token)
        assert last.state == ORDER_STATE_APPROVED
    await client.reserves(customer, "8")
    shown = await client.get_customer(customer, erased[0].consistency_token)
    assert (shown.name, shown.reserved) == ("erased", wire("8"))
    told = await _cli("log", "--stream", f"customer/{customer}", "--at", at_work.shop.customers, "--json")
    assert told.count("shop.customers.v1.CustomerErased") == 1


async def test_a_backup_of_the_keys_brings_nobody_back(at_work: Running) -> None:
    client, url = at_work.client, at_work.shop.postgres_url
    customer, other = await _created(client), await _created(client)
    await execute(url, "CREATE TABLE backup AS TABLE subject_keys", "twinlog_keys")
    erased = await client.customers.EraseCustomer(
        EraseCustomerRequest(customer_id=customer), timeout=PATIENCE
    )
    await client.get_customer(customer, erased.consistency_token)
    await execute(url, "TRUNCATE subject_keys", "twinlog_keys")
    await execute(url, "INSERT INTO subject_keys TABLE backup", "twinlog_keys")
    await execute(url, "DROP TABLE backup", "twinlog_keys")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'twinlog_keys'"
    await execute(url, end, "postgres")
    await until(lambda: bool([line for line in at_work.spoken if "keys.erased_again" in line]))
    past = GetCustomerRequest(customer_id=customer, as_of=Moment(version=1))

    async def is_erased() -> bool:
        answer = await client.customer_queries.GetCustomer(past, timeout=PATIENCE)
        return str(answer.customer.name) == "erased"

    await until(is_erased)
    assert (await client.get_customer(other)).name == NAME


async def test_while_the_keys_are_away_all_but_names_goes_on(at_work: Running, tmp_path: Path) -> None:
    """Commands, sagas, queries of orders, exports and audits; and then the names are there again."""
    client, url = at_work.client, at_work.shop.postgres_url
    customer = await _created(client)
    before = await client.order(customer, "1")
    get = GetCustomerRequest(customer_id=customer)
    create = CreateCustomerRequest(name=NAME, credit_limit=wire("20"))
    erase = EraseCustomerRequest(customer_id=customer)
    await execute(url, "ALTER DATABASE twinlog_keys ALLOW_CONNECTIONS false", "postgres")
    try:
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'twinlog_keys'"
        await execute(url, end, "postgres")

        async def is_refused() -> bool:  # no key is trusted for longer than 5 s
            try:
                await client.customer_queries.GetCustomer(get, timeout=PATIENCE)
            except grpc.aio.AioRpcError as error:
                return bool(error.code() == grpc.StatusCode.UNAVAILABLE)
            return False

        await until(is_refused)
        for call in (
            client.customer_queries.GetCustomer(get, timeout=PATIENCE),
            client.customers.CreateCustomer(create, timeout=PATIENCE),
            client.customers.EraseCustomer(erase, timeout=PATIENCE),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "KEYS_UNAVAILABLE")
            assert NAME not in str(refused)
        for mode in MODES:
            assert (await client.order(customer, "1", mode)).state == ORDER_STATE_APPROVED
        await client.limit(customer, "30")
        assert await client.get(before.order_id) == before
        await client.kill("customer_svc")  # which knows no customer then, and starts all the same
        for mode in MODES:
            assert (await client.order(customer, "1", mode)).state == ORDER_STATE_APPROVED
        file = str(tmp_path / "customers.twinlog")
        where = ("--database", "shop_customers", "--postgres-url", url)
        await _cli("export", "customers", file, *where)
        report = await audit(url, at_work.shop.nats_url, wait_seconds=240)
        assert report.settled and report.clean, report.violations
    finally:
        await execute(url, "ALTER DATABASE twinlog_keys ALLOW_CONNECTIONS true", "postgres")

    async def is_back() -> bool:
        try:
            return (await client.get_customer(await _created(client))).name == NAME
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            return False

    await until(is_back)  # also of the process that was started meanwhile
    assert (await client.get_customer(customer)).name == NAME


async def test_nothing_that_people_and_machines_are_shown_has_an_erased_name(at_work: Running) -> None:
    """Pages of the console, metrics, and what the services tell of their parts."""
    client, shop = at_work.client, at_work.shop
    customer = await _created(client)
    await client.order(customer, "1")
    erased = await client.customers.EraseCustomer(
        EraseCustomerRequest(customer_id=customer), timeout=PATIENCE
    )
    await client.get_customer(customer, erased.consistency_token)
    position = int(erased.consistency_token.rpartition(":")[2])
    stream = f"log/customers/stream/customer/{customer}"
    paths = ["", "log", stream, f"log/customers/{position}", f"story/customers/{position}", "sagas", "views"]
    pages = [await scraped(f"{shop.console}/{path}") for path in paths]
    pages += [await scraped(f"http://{address}/metrics") for address in shop.metrics.values()]
    assert customer in pages[2], "they show the customer"
    assert not [page for page in pages if customer in page and NAME in page]


async def test_a_log_as_a_file_holds_no_name(at_work: Running, tmp_path: Path) -> None:
    await _created(at_work.client)
    file = tmp_path / "customers.twinlog"
    url = at_work.shop.postgres_url
    await _cli("export", "customers", str(file), "--database", "shop_customers", "--postgres-url", url)
    done = await search([NAME], "", "", [tmp_path])
    assert (done.files, done.found) == (1, [])
    assert (await search(["shop.customers.v1.CustomerCreated"], "", "", [tmp_path])).found, (
        "it is looked into"
    )


async def test_the_report_finds_the_name_nowhere(at_work: Running, tmp_path: Path) -> None:
    """Nor in the files of an archive, which it finds by itself; and who is archived is erased like others."""
    shop, (old, _, customer) = at_work.shop, [await _created(at_work.client) for _ in range(3)]
    url = f"file://{tmp_path}"
    asked = ArchiveOptions(
        "customers", url, datetime.now(UTC), shop.postgres_url, "shop_customers", ("customer",), 2
    )
    assert (await archive_log(asked, lambda _line: None)).removed
    done = await search([NAME], shop.postgres_url, shop.nats_url)
    assert not done.found and done.files
    assert [e for e in (await search([old], shop.postgres_url, "")).found if e.where.startswith(url)]
    then = GetCustomerRequest(customer_id=old, as_of=Moment(version=1))
    assert (await at_work.client.customer_queries.GetCustomer(then, timeout=PATIENCE)).customer.name == NAME
    erase = EraseCustomerRequest(customer_id=old)
    assert not (await at_work.client.customers.EraseCustomer(erase, timeout=PATIENCE)).plain_positions

    async def is_erased() -> bool:
        answer = await at_work.client.customer_queries.GetCustomer(then, timeout=PATIENCE)
        return str(answer.customer.name) == "erased"

    await until(is_erased)
    there = {each.where for each in (await search([customer], shop.postgres_url, shop.nats_url)).found}
    assert {"customers", "shop_customers.public.events", "shop_views.public.customers"} <= there


async def test_names_from_before_the_encryption_are_told(at_work: Running) -> None:
    """As 0.1.0 wrote them: they stay, and the call says so."""
    client, shop, customer = at_work.client, at_work.shop, new_id()
    await asyncio.to_thread(_written_plainly, shop.postgres_url, customer)
    erase = EraseCustomerRequest(customer_id=customer)
    refused = await refusal(client.customers.EraseCustomer(erase, timeout=PATIENCE))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PLAIN_EVENTS")
    position = int(refused.facts["positions"])
    assert (await client.get_customer(customer, f"customers:{position}")).name == "Plain Before"
    erase.accept_plain_events = True
    erased = await client.customers.EraseCustomer(erase, timeout=PATIENCE)
    assert erased.plain_positions == [position]
    assert (await client.get_customer(customer, erased.consistency_token)).name == "erased"


def _written_plainly(postgres_url: str, customer: str) -> None:
    """Appends a customer as a program does that does not seal."""

    async def write() -> None:
        async with open_log(postgres_url, "shop_customers", "customers") as log:
            writer = Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds())
            create = CreateCustomer(customer, "Plain Before", Money.of(wire("20")))
            async with writer:
                await writer.execute(lambda tx: tx.do(CUSTOMER, customer, create))

    asyncio.run(write())


async def test_who_does_not_exist_is_not_erased(at_work: Running) -> None:
    refused = await refusal(
        at_work.client.customers.EraseCustomer(EraseCustomerRequest(customer_id=new_id()), timeout=PATIENCE)
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "CUSTOMER_NOT_FOUND")
    bad: Any = EraseCustomerRequest(customer_id="me", request_id="you")
    refused = await refusal(at_work.client.customers.EraseCustomer(bad, timeout=PATIENCE))
    assert refused.fields == {"customer_id", "request_id"}
