"""The shop on one machine: servers, where none are given, and the four services."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stack.preflight import check_nats, check_postgres
from stack.topology import ROOT
from twinlog.dev import (
    EmbeddedNats,
    EmbeddedPostgres,
    Misconfigured,
    Program,
    Supervisor,
    end_leftover_service,
    free_port,
    port_is_free,
)

_SERVICES = [
    ("order_svc", "ORDERS_ADDRESS", 50051, 36),
    ("customer_svc", "CUSTOMERS_ADDRESS", 50052, 32),
    ("saga_orchestrator", "SAGAS_ADDRESS", 50053, 35),
    ("projector", "QUERIES_ADDRESS", 50054, 33),
]
T = TypeVar("T")


@dataclass(frozen=True)
class Shop:
    """The running shop."""

    supervisor: Supervisor
    postgres_url: str
    nats_url: str
    orders: str
    customers: str
    sagas: str
    queries: str
    postgres: EmbeddedPostgres | None
    nats: EmbeddedNats | None

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        """Does ``work``; gives it up where a server goes down or a service cannot run as it is configured."""
        task = asyncio.ensure_future(work)
        ends: list[asyncio.Future[Any]] = []
        for server in (self.postgres, self.nats):
            if server:
                ends.append(asyncio.ensure_future(server.ended()))
        try:
            problems = [*ends, self.supervisor.failed]
            await asyncio.wait([task, *problems], return_when=asyncio.FIRST_COMPLETED)
            for down in problems:
                if down.done():
                    await down
            return await task
        finally:
            for each in (task, *ends):
                each.cancel()
            await asyncio.wait([task, *ends])


@asynccontextmanager
async def running(
    say: Callable[[str], None],
    *,
    data: Path = ROOT / ".data",
    fixed_ports: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> AsyncIterator[Shop]:
    """Starts everything and stops it again. Raises StartFailed.

    POSTGRES_URL and NATS_URL name servers of one's own; without them embedded ones run in ``data``, on
    POSTGRES_PORT and NATS_PORT or on free ports. Addresses come from the services' settings; otherwise the
    documented ports (``fixed_ports``) or free ones are taken. ``fresh``: what an earlier run left in ``data`` is
    removed. ``quiet``: services write to ``data``/log rather than to ``say``.
    """
    end_leftovers(data)
    if fresh:
        shutil.rmtree(data, ignore_errors=True)
    async with AsyncExitStack() as stack:
        services = [
            Program(module, setting, _address(setting, port if fixed_ports else 0), colour)
            for module, setting, port, colour in _SERVICES
        ]
        postgres = nats = None
        postgres_url, nats_url = os.environ.get("POSTGRES_URL"), os.environ.get("NATS_URL")
        if postgres_url:
            await check_postgres(postgres_url)
        if nats_url:
            await check_nats(nats_url)
        if not postgres_url:
            postgres = EmbeddedPostgres(data / "postgres", _port("POSTGRES_PORT"))
            await stack.enter_async_context(postgres)
            postgres_url = postgres.url
        if not nats_url:
            nats = await stack.enter_async_context(EmbeddedNats(data / "nats", _port("NATS_PORT")))
            nats_url = nats.url
        env = {"POSTGRES_URL": postgres_url, "NATS_URL": nats_url}
        if sys.stdout.isatty():
            env["LOG_FORMAT"] = os.environ.get("LOG_FORMAT", "pretty")
        supervisor = await stack.enter_async_context(
            Supervisor(services, env, say, root=ROOT, folder=data, quiet=quiet)
        )
        orders, customers, sagas, queries = (service.address for service in services)
        yield Shop(supervisor, postgres_url, nats_url, orders, customers, sagas, queries, postgres, nats)


def end_leftovers(data: Path) -> None:
    """Ends whatever a killed run left there: services first, then servers."""
    if data.exists():
        for module, *_ in _SERVICES:
            end_leftover_service(data, module)
        EmbeddedPostgres(data / "postgres").end_leftover()
        EmbeddedNats(data / "nats").end_leftover()


def _address(setting: str, port: int) -> str:
    """Where a service is to listen; ``port`` 0: where nothing is set, any that is free."""
    given = os.environ.get(setting) or f"127.0.0.1:{port or free_port()}"
    host, _, wanted = given.rpartition(":")
    if wanted.isdecimal() and not port_is_free(host, int(wanted)):
        raise Misconfigured(
            f"{setting}: {given} is taken; stop what listens there or set {setting} to another host:port"
        )
    return given


def _port(setting: str) -> int:
    """The port that is set for an embedded server; 0 where none is."""
    given = os.environ.get(setting, "0")
    if not given.isdecimal() or int(given) > 65535:
        raise Misconfigured(
            f"{setting}={given} is wrong: a port is 1 to 65535; leave it unset for any that is free"
        )
    if int(given) and not port_is_free("127.0.0.1", int(given)):
        raise Misconfigured(
            f"{setting}: port {given} is taken; stop what listens there, set {setting} to another port, or leave it "
            "unset for any that is free"
        )
    return int(given)
