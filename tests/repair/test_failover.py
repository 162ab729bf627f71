"""Failovers to a server that lacks the last commits, and restores in place: noticed, and mended by what is printed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from proof.auditor import audit
from proof.chaos.proxy import Proxy
from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from stack.shop import Shop, running
from tests import preloaded, servers
from tests.audit.world import _keep, _put_back
from tests.controls import MODES, wire
from tests.e2e.client import PATIENCE, Client, connect, refusal
from tests.waiting import until
from twinlog.dev import EmbeddedPostgres
from twinlog.service.relink import LEFT
from twinlog.service.repair import Options, repair
from twinlog.testing.internals import JetStreamTwin, database_url, open_pool
from twinlog.testing.internals import connect as connect_to_nats

LOGS = {
    "orders": "shop_orders",
    "customers": "shop_customers",
    "sagas": "shop_sagas",
    "projector": "shop_views",
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own_postgres() -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres that only these tests use."""
    async with servers.postgres_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def supervised(own_postgres: EmbeddedPostgres) -> AsyncIterator[tuple[Shop, list[str]]]:
    """A shop for all of these tests, since each leaves it whole; and what its services say."""
    spoken: list[str] = []
    async with servers.nats_server() as nats:
        with pytest.MonkeyPatch.context() as patch, servers.folder() as path:
            patch.setenv("POSTGRES_URL", own_postgres.url)
            patch.setenv("NATS_URL", nats.url)
            async with running(spoken.append, data=path) as started:
                yield started, spoken


@pytest.fixture
def spoken(supervised: tuple[Shop, list[str]]) -> list[str]:
    """What the services say during the test."""
    _, lines = supervised
    lines.clear()
    return lines


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(supervised: tuple[Shop, list[str]]) -> AsyncIterator[Client]:
    shop, _ = supervised
    async with connect(shop) as connected:
        yield connected


async def test_a_failover_that_lost_the_last_commits(
    own_postgres: EmbeddedPostgres, client: Client, spoken: list[str]
) -> None:
    """To a replica that is some seconds behind, as Postgres commits without waiting, while clients go on."""
    await servers.execute(own_postgres.url, "ALTER SYSTEM SET synchronous_commit = off", "postgres")
    await servers.execute(own_postgres.url, "SELECT pg_reload_conf()", "postgres")
    customer = await client.customer("1000")
    await _trade(client, customer)
    async with _replica(own_postgres) as (replica, wire):
        await _clean(client)
        wire.lose()
        wire.refusing = True
        await _trade(client, customer)
        approved = await client.order(await client.customer("100"), "7")
        await _clean(client)
        before = await _heads(client)
        load = asyncio.create_task(_go_on(client, customer))

        await servers.execute(replica.url, "SELECT pg_promote()", "postgres")
        await own_postgres.kill()
        await replica.stop()
        shutil.rmtree(own_postgres._data)
        shutil.move(replica._data, own_postgres._data)
        await own_postgres.start()

    await until(lambda: _said(spoken, "orders", "customers", "sagas"), seconds=180)
    await _refuses(client, "orders", customer)
    for log in ("orders", "customers", "sagas"):
        said = await _would_do(client, log)
        assert f"lost events {log}/" in said and "Nothing was changed" in said
    assert await _heads(client) < before
    for log in ("customers", "sagas", "orders"):
        await _repair(client, log)
    load.cancel()
    await _clean(client)
    assert all(now >= then for now, then in zip(await _heads(client), before, strict=True))
    assert (await client.get(approved.order_id)).state == approved.state
    await _trade(client, customer)
    await _clean(client)
    for log in ("customers", "sagas", "orders"):
        assert "nothing to repair" in await _would_do(client, log)


async def test_a_restore_in_place_of_each_database(client: Client, spoken: list[str]) -> None:
    customer = await client.customer("1000")
    await _trade(client, customer)
    await _clean(client)
    for log in LOGS:
        spoken.clear()
        await _keep(client.shop.postgres_url, LOGS[log])
        await _trade(client, customer)
        await _clean(client)
        before = await _heads(client)

        async with open_pool(database_url(client.shop.postgres_url, LOGS[log]), size=1) as pool:
            await _put_back(pool)
        if log != "projector":  # its log is empty: the views are made again from where they were set back to
            await until(partial(_said, spoken, log), seconds=180)
            await _refuses(client, log, customer)
            assert "Because of them" in await _would_do(client, log)
            await _done(Options(log, client.shop.postgres_url, client.shop.nats_url))
        await _clean(client)
        assert await _heads(client) >= before
    await _trade(client, customer)
    await _clean(client)


@pytest.mark.parametrize("log", ["orders", "customers", "sagas"])
async def test_what_neither_log_nor_stream_has_is_given_up(client: Client, log: str) -> None:
    """Its stream was deleted, and the log has other events in the place of some that others have handled."""
    customer = await client.customer("1000")
    await _clean(client)
    head = await client.head(log)
    for mode in MODES:
        await client.order(customer, "1", mode)
    await client.customer("5")
    await _clean(client)
    lost = await client.head(log)
    async with client.database(log) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM events WHERE position > $1", head)
        await connection.execute("UPDATE log_head SET position = $1", head)
    nats = await connect_to_nats(client.shop.nats_url, "tests")
    await JetStreamTwin(nats, log).delete()
    await nats.close()
    await client.customer("7")
    pending = [await client.create(customer, "1", mode) for mode in MODES]
    asked = Options(log, client.shop.postgres_url, client.shop.nats_url)

    async def would_give_up() -> bool:
        said: list[str] = []
        return await repair(asked, said.append) == LEFT and "give them up with --give-up" in said[-1]

    await until(would_give_up)
    said = await _done(asked._replace(give_up=True))
    assert f" to {lost}, the log notes from " in said
    await until(lambda: _made_again(client), seconds=180)
    for order in pending:
        await client.watch(order.order_id, order.consistency_token)
    for mode in MODES:
        await client.order(customer, "1", mode)
    await _clean(client)
    assert "nothing to repair" in await _would_do(client, log)


async def _made_again(client: Client) -> bool:
    """Follows an audit, which names views that show what is gone, and nothing else; gives whether they are right."""
    report = await audit(client.shop.postgres_url, client.shop.nats_url, wait_seconds=10)
    assert {violation.check for violation in report.violations} <= {"view row equals fold"}, report.violations
    for command in {violation.remedy for violation in report.violations}:
        database, statements = re.findall(r'^psql (\S+) -1 -c "(.*)"', command)[0]
        service = "projector" if database == LOGS["projector"] else "saga_orchestrator"
        async with client.without(service):
            await servers.execute(client.shop.postgres_url, statements, database)
    return not report.violations


async def _refuses(client: Client, log: str, customer: str) -> None:
    """No command is acknowledged by the service of a forked log; it says why once it has its Postgres again."""
    order = CreateOrderRequest(customer_id=customer, total=wire("1"))
    new = CreateCustomerRequest(name="Ada", credit_limit=wire("1"))

    async def says_why() -> bool:
        call = (
            client.orders.CreateOrder(order, timeout=PATIENCE)
            if log == "orders"
            else client.customers.CreateCustomer(new, timeout=PATIENCE)
        )
        refused = await refusal(call)
        assert refused.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED), refused
        return refused.reason == "LOG_FORKED"

    if log in ("orders", "customers"):
        await until(says_why)


async def _trade(client: Client, customer: str) -> None:
    """Orders of every kind."""
    created = [await client.order(customer, "1", mode) for mode in MODES for _ in range(3)]
    await client.order(customer, "100000", MODES[0])
    for order in created[::2]:
        await client.cancel(order.order_id)
    await client.limit(await client.customer("5"), "6")


async def _clean(client: Client) -> None:
    report = await audit(client.shop.postgres_url, client.shop.nats_url, wait_seconds=240)
    assert not report.violations, "\n".join(map(str, report.violations))
    assert report.settled, report.in_flight


async def _heads(client: Client) -> list[int]:
    return [await client.count(log, "true") for log in ("orders", "customers", "sagas")]


def _said(spoken: list[str], *logs: str) -> bool:
    """Whether the way out was printed for these logs."""
    return all(any(f"`twinlog repair {log}` puts it back" in line for line in spoken) for log in logs)


async def _would_do(client: Client, log: str) -> str:
    """What the command says with --dry-run."""
    return await _done(Options(log, client.shop.postgres_url, client.shop.nats_url, dry_run=True))


async def _done(asked: Options) -> str:
    """What the command says, without a process for it."""
    said: list[str] = []
    assert await repair(asked, said.append) != LEFT, said
    return "\n".join(said)


async def _repair(client: Client, log: str) -> None:
    """Follows the way out to the letter."""
    env = {**os.environ, "POSTGRES_URL": client.shop.postgres_url, "NATS_URL": client.shop.nats_url}
    ran = await preloaded.run("twinlog", "repair", log, env=env)
    assert ran.code == 0, ran
    assert "Where database twinlog_keys was set back as well, persons who were erased since" in ran.out


@asynccontextmanager
async def _replica(server: EmbeddedPostgres) -> AsyncIterator[tuple[EmbeddedPostgres, Proxy]]:
    """One that streams from a server, and the wire between them."""
    with servers.folder() as path:
        async with Proxy(server.port) as wire:
            replica = servers.Postgres(path / "replica", fsync=False)
            replica.folder.mkdir(parents=True)
            shutil.copy(server.folder / "password", replica.folder)
            await asyncio.to_thread(_base_backup, server, server.url_at(wire.port), replica._data)
            owner = server._data.stat()
            for each in (replica.folder, *replica.folder.rglob("*")):
                os.chown(each, owner.st_uid, owner.st_gid)
            async with replica:
                yield replica, wire


def _base_backup(server: EmbeddedPostgres, url: str, target: Path) -> None:
    command = [str(server._bin / "pg_basebackup"), "-R", "-d", url, "-D", str(target), "--checkpoint=fast"]
    subprocess.run(command, check=True, capture_output=True)


async def _go_on(client: Client, customer: str) -> None:
    """Creates orders, whatever comes of them: some are lost before anybody else has seen them."""
    while True:
        with suppress(grpc.aio.AioRpcError):
            await client.create(customer, "1", MODES[0])
        await asyncio.sleep(0.01)
