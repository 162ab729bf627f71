"""Two installations on the same servers: the second is refused by name, or lives beside the first in a namespace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from stack.topology import ROOT
from tests import preloaded, servers
from tests.kernel.batches import grow
from tests.kernel.counter import COUNTER, Add
from tests.twin.relaying import mirrored, running
from tests.waiting import until
from twinlog import (
    Address,
    ConfigurationError,
    Policies,
    Schema,
    Service,
    ServiceSpec,
    Settings,
    Shutdown,
    on,
    open_service,
)
from twinlog.dev import EmbeddedPostgres, free_port
from twinlog.log.installation import Identity
from twinlog.testing import MemoryLog
from twinlog.testing.internals import Cursor, JetStreamTwin, NatsClient, Relay, TwinMissing, database_url

THEIRS = Identity("theirs", uuid4())
SHOP = {
    "order_svc": ("ORDERS_ADDRESS", "shop_orders"),
    "customer_svc": ("CUSTOMERS_ADDRESS", "shop_customers"),
    "saga_orchestrator": ("SAGAS_ADDRESS", "shop_sagas"),
    "projector": ("QUERIES_ADDRESS", "shop_views"),
}


class CountSettings(Settings):
    """The settings of the service below."""

    counts_address: Address = "127.0.0.1:0"
    """Where it serves."""


def spec(log: str) -> ServiceSpec:
    return ServiceSpec(log, log, log, "tests", CountSettings, "counts_address", [COUNTER], Schema())


@asynccontextmanager
async def service(
    log: str, source: str, postgres_url: str, nats_url: str, **more: str
) -> AsyncIterator[Service]:
    """One that counts the events of another log in its own."""
    task = asyncio.current_task()
    assert task is not None
    settings = CountSettings(postgres_url=postgres_url, nats_url=nats_url, log_level="error", **more)  # type: ignore[arg-type]
    async with open_service(spec(log), settings, Shutdown(task)) as opened:
        count = on(COUNTER, "all").do(Add(1))
        opened.subscribe(Policies(source, log, {Int64Value: lambda _event: count}))
        yield opened


def problem(service: Service) -> str:
    (cursor,) = (part for part in service.watched if isinstance(part, Cursor))
    return cursor.problem or ""


@asynccontextmanager
async def theirs(nats: NatsClient, events: int = 5) -> AsyncIterator[str]:
    """The log of another installation, with its stream; gives its name."""
    async with servers.stream(nats) as name:
        log = MemoryLog(name)
        await grow(log, events)
        async with running(Relay(log, JetStreamTwin(nats, name, identity=THEIRS))):
            await mirrored(log, JetStreamTwin(nats, name))
            yield name


async def test_a_service_whose_source_is_anothers_refuses_at_start(
    postgres_url: str, nats_url: str, nats: NatsClient
) -> None:
    async with theirs(nats) as source, servers.database(postgres_url) as own, servers.stream(nats):
        with pytest.raises(ConfigurationError) as refused:
            async with service(own, source, postgres_url, nats_url) as opened:
                await opened.serve()
        assert await count(postgres_url, own) == 0
    await JetStreamTwin(nats, own).delete()
    assert str(refused.value).startswith(
        f"TWINLOG_NAMESPACE: Stream {source} belongs to installation theirs, this service to "
    )
    assert "\n" not in str(refused.value)


async def test_a_service_whose_own_stream_is_anothers_refuses_at_start(
    postgres_url: str, nats_url: str, nats: NatsClient
) -> None:
    async with theirs(nats) as name:
        with pytest.raises(ConfigurationError, match=f"TWINLOG_NAMESPACE: Stream {name} belongs"):
            async with service(name, "nothing", postgres_url, nats_url) as opened:
                await opened.serve()
        await servers.execute(postgres_url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_a_domain_that_calls_its_log_as_another_of_its_installation_does_is_refused(
    postgres_url: str, nats_url: str, nats: NatsClient
) -> None:
    """Its database is another one, so that neither installation nor log says so; the stream does."""
    async with servers.database(postgres_url) as first, servers.database(postgres_url) as second:
        log = servers.unique()
        async with service(log, "nothing", postgres_url, nats_url, postgres_database=first) as counts:
            for _ in range(3):
                await counts.writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))
            await until(lambda: relayed(nats, log, 3))
            with pytest.raises(
                ConfigurationError, match=f"stream {log} has the events of another log {log}"
            ) as refused:
                async with service(log, log, postgres_url, nats_url, postgres_database=second) as opened:
                    await opened.serve()
            assert "\n" not in str(refused.value)
            assert await count(postgres_url, second) == 0
            await counts.writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))
            await until(lambda: relayed(nats, log, 4))
            assert counts.relay.problem is None
        await servers.execute(postgres_url, f'DROP DATABASE "{first}" WITH (FORCE)')
        # Nobody else has them now: it may be the same log, whose database was made anew.
        async with service(log, "nothing", postgres_url, nats_url, postgres_database=second) as opened:
            await opened._feeding.refuse_foreign_streams()
            await until(lambda: "repair" in (opened.relay.problem or ""))
    await JetStreamTwin(nats, log).delete()


async def relayed(nats: NatsClient, log: str, events: int) -> bool:
    with suppress(TwinMissing):
        return (await JetStreamTwin(nats, log).state()).last == events
    return False


async def test_a_source_that_becomes_anothers_later_is_an_outage(
    postgres_url: str, nats_url: str, nats: NatsClient
) -> None:
    source = servers.unique()
    async with servers.database(postgres_url) as own, servers.stream(nats) as _:
        async with service(own, source, postgres_url, nats_url) as opened:
            await until(lambda: "does not exist" in problem(opened))
            log = MemoryLog(source)
            await grow(log, 5)
            twin = JetStreamTwin(nats, source, identity=THEIRS)
            async with running(Relay(log, twin)):
                await until(lambda: f"Stream {source} belongs to installation theirs" in problem(opened))
                assert await count(postgres_url, own) == 0
                assert opened.dead_letters.problem is None
            await twin.delete()
        await JetStreamTwin(nats, own).delete()


async def test_a_stream_of_before_is_read(postgres_url: str, nats_url: str, nats: NatsClient) -> None:
    source = servers.unique()
    log, twin = MemoryLog(source), JetStreamTwin(nats, source)
    await grow(log, 5)
    async with servers.database(postgres_url) as own, running(Relay(log, twin)):
        async with service(own, source, postgres_url, nats_url):
            await until(lambda: reached(postgres_url, own, 5))
        await twin.delete()
        await JetStreamTwin(nats, own).delete()


async def test_installations_share_both_servers_in_namespaces(
    postgres_url: str, nats_url: str, nats: NatsClient
) -> None:
    """The same two services, twice: each counts what its own neighbor does, and nothing else."""
    source, own = servers.unique(), servers.unique()
    spaces = ("", "staging")
    names = [f"{space}_{name}" if space else name for space in spaces for name in (source, own)]
    try:
        for events, space in enumerate(spaces, 3):
            async with (
                service(source, "nothing", postgres_url, nats_url, twinlog_namespace=space) as counts,
                service(own, source, postgres_url, nats_url, twinlog_namespace=space),
            ):
                for _ in range(events):
                    await counts.writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))
                await until(lambda: reached(postgres_url, names[-1] if space else own, events))  # noqa: B023
        assert [await count(postgres_url, name) for name in names] == [3, 3, 4, 4]
        assert [(await JetStreamTwin(nats, name).state()).last for name in names[:2]] == [3, 3]
        staging = [JetStreamTwin(nats, name, namespace="staging") for name in (source, own)]
        assert [(await twin.state()).last for twin in staging] == [4, 4]
    finally:
        for name in names:
            await servers.execute(postgres_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await JetStreamTwin(nats, name).delete()


async def test_services_with_postgres_servers_of_their_own_are_one_installation_by_name(
    postgres_url: str, own_postgres: EmbeddedPostgres, nats_url: str, nats: NatsClient
) -> None:
    source, own = servers.unique(), servers.unique()
    try:
        async with (
            service(source, "nothing", own_postgres.url, nats_url, twinlog_installation="shop") as counts,
            service(own, source, postgres_url, nats_url, twinlog_installation="shop"),
        ):
            await counts.writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))
            await until(lambda: reached(postgres_url, own, 1))
    finally:
        await servers.execute(postgres_url, f'DROP DATABASE IF EXISTS "{own}" WITH (FORCE)')
        for name in (source, own):
            await JetStreamTwin(nats, name).delete()


async def test_an_installation_is_given_another_name_as_the_runbook_says(
    postgres_url: str, nats_url: str, nats: NatsClient
) -> None:
    """docs/operations.md, to the letter: stop, one statement for each database, the streams removed, start."""
    source, own = servers.unique(), servers.unique()
    page = (ROOT / "docs" / "operations.md").read_text()
    assert f'psql "$POSTGRES_URL/shop_orders" -c "{_RENAME.format(name="shop")}"' in page
    try:
        for name, events in (("", 1), ("shop", 2)):
            async with (
                service(source, "nothing", postgres_url, nats_url, twinlog_installation=name) as counts,
                service(own, source, postgres_url, nats_url, twinlog_installation=name) as counting,
            ):
                await counts.writer.execute(lambda tx: tx.do(COUNTER, "a", Add(1)))
                await until(lambda: reached(postgres_url, own, events))  # noqa: B023
                assert problem(counting) == ""
            if not name:
                with pytest.raises(ConfigurationError, match="TWINLOG_INSTALLATION=shop: database"):
                    async with service(own, source, postgres_url, nats_url, twinlog_installation="shop"):
                        pass
                for database in (source, own):
                    await servers.execute(postgres_url, _RENAME.format(name="shop"), database)
                    await nats.jsm().delete_stream(database)
    finally:
        for name in (source, own):
            await servers.execute(postgres_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await JetStreamTwin(nats, name).delete()


_RENAME = "UPDATE log_identity SET installation = '{name}', log_id = gen_random_uuid()"


async def count(postgres_url: str, database: str) -> int:
    """How many events there are in a log."""
    connection = await asyncpg.connect(database_url(postgres_url, database))
    try:
        return int(await connection.fetchval("SELECT count(*) FROM events"))
    finally:
        await connection.close()


async def reached(postgres_url: str, database: str, events: int) -> bool:
    with suppress(asyncpg.PostgresError):
        return await count(postgres_url, database) >= events
    return False


async def test_a_second_shop_on_the_nats_of_the_first_gets_nothing_of_it(
    own_postgres: EmbeddedPostgres, nats_url: str, nats: NatsClient
) -> None:
    """The shop's four services with an empty Postgres: each ends with one line, and their databases stay empty."""
    logs = {log: MemoryLog(log) for log in ("orders", "customers", "sagas", "projector")}
    for log in logs.values():
        await grow(log, 20)
    relays = [Relay(log, JetStreamTwin(nats, name, identity=THEIRS)) for name, log in logs.items()]
    async with running(*relays):
        for name, log in logs.items():
            await mirrored(log, JetStreamTwin(nats, name))
        env = {**os.environ, "POSTGRES_URL": own_postgres.url, "NATS_URL": nats_url}
        ended = await asyncio.gather(*(_run(module, env) for module in SHOP))
        for name, log in logs.items():
            await mirrored(log, JetStreamTwin(nats, name))
    for name in logs:
        await JetStreamTwin(nats, name).delete()
    for code, last in ended:
        assert (code, last.partition(" Stream ")[0]) == (2, "TWINLOG_NAMESPACE:"), last
    for _, database in SHOP.values():
        assert await count(own_postgres.url, database) == 0
    views = await asyncpg.connect(database_url(own_postgres.url, "shop_views"))
    for table in ("orders", "customers", "timeline"):  # a start that is refused has not made them
        assert await views.fetchval("SELECT to_regclass($1)", table) is None
    assert await views.fetchval("SELECT count(*) FROM checkpoints") == 0
    await views.close()


async def _run(module: str, env: dict[str, str]) -> tuple[int | None, str]:
    """A service's exit code and the last line that it says."""
    address = {SHOP[module][0]: f"127.0.0.1:{free_port()}"}
    ran = await preloaded.run(module, env={**env, **address})
    return ran.code, ran.err.splitlines()[-1]
