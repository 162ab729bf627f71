"""The shop on one machine: its servers, unless the environment names others, and its four services."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from stack.preflight import check_nats, check_postgres, check_settings
from stack.topology import COLORS, NAMES, ROOT, SERVICES
from twinlog import ServiceSpec
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
    """None where POSTGRES_URL names a server."""
    nats: EmbeddedNats | None
    """None where NATS_URL names a server."""

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where each service listens, as host:port, by its name."""
        return dict(zip(NAMES, (self.orders, self.customers, self.sagas, self.queries), strict=True))

    async def while_up(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, which is canceled when a server goes down or a service refuses to run.

        Raises StartFailed then.
        """
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
    """Starts everything and stops it again. Raises StartFailed, and Misconfigured before anything is started.

    POSTGRES_URL and NATS_URL name existing servers; without them embedded ones run in ``data``, on POSTGRES_PORT
    and NATS_PORT or on free ports. Services listen where their settings say, else on their default addresses
    (``fixed_ports``) or on free ports. ``fresh`` removes what an earlier run left in ``data``. ``quiet`` services
    write to ``data``/log instead of to ``say``.
    """
    check_settings()
    end_leftovers(data)
    if fresh:
        shutil.rmtree(data, ignore_errors=True)
    async with AsyncExitStack() as stack:
        services = [
            Program(
                service.name,
                service.address_setting,
                _address(service, fixed=fixed_ports),
                COLORS[service.name],
            )
            for service in SERVICES
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
        served = ",".join(f"{name}={service.address}" for name, service in zip(NAMES, services, strict=True))
        env = {"POSTGRES_URL": postgres_url, "NATS_URL": nats_url, "TWINLOG_SERVICES": served}
        if sys.stdout.isatty():
            env["LOG_FORMAT"] = os.environ.get("LOG_FORMAT", "pretty")
        supervisor = await stack.enter_async_context(
            Supervisor(services, env, say, root=ROOT, folder=data, quiet=quiet)
        )
        orders, customers, sagas, queries = (service.address for service in services)
        yield Shop(supervisor, postgres_url, nats_url, orders, customers, sagas, queries, postgres, nats)


def end_leftovers(data: Path) -> None:
    """Ends what a killed run left there: services first, then servers."""
    if data.exists():
        for name in NAMES:
            end_leftover_service(data, name)
        EmbeddedPostgres(data / "postgres").end_leftover()
        EmbeddedNats(data / "nats").end_leftover()


def _address(service: ServiceSpec, *, fixed: bool) -> str:
    """Where a service is to listen: as it is set, else at its default address or, unless ``fixed``, a free port."""
    setting = service.address_setting
    given = os.environ.get(setting) or (service.default_address if fixed else f"127.0.0.1:{free_port()}")
    host, _, port = given.rpartition(":")
    if not port_is_free(host, int(port)):
        raise Misconfigured(
            f"{setting}: {given} is taken; stop what listens there or set {setting} to another host:port"
        )
    return given


def _port(setting: str) -> int:
    """The port that is set for an embedded server; 0 for any that is free."""
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
