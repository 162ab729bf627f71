"""The shop on one machine: servers, where none are given, and the four services."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.nats import EmbeddedNats
from stack.postgres import EmbeddedPostgres
from stack.process import free_port
from stack.supervisor import ROOT, Service, Supervisor

_SERVICES = [
    ("order_svc", "ORDERS_ADDRESS", 50051, 36),
    ("customer_svc", "CUSTOMERS_ADDRESS", 50052, 32),
    ("saga_orchestrator", "SAGAS_ADDRESS", 50053, 35),
    ("projector", "QUERIES_ADDRESS", 50054, 33),
]


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


@asynccontextmanager
async def running(
    say: Callable[[str], None], *, data: Path = ROOT / ".data", fixed_ports: bool = False
) -> AsyncIterator[Shop]:
    """Starts everything and stops it again.

    POSTGRES_URL and NATS_URL name servers of one's own; without them embedded ones run in ``data``. Addresses come
    from the services' settings; otherwise the documented ports (``fixed_ports``) or free ones are taken.
    """
    async with AsyncExitStack() as stack:
        postgres = nats = None
        postgres_url, nats_url = os.environ.get("POSTGRES_URL"), os.environ.get("NATS_URL")
        if not postgres_url:
            postgres = await stack.enter_async_context(EmbeddedPostgres(data / "postgres"))
            postgres_url = postgres.url
        if not nats_url:
            nats = await stack.enter_async_context(EmbeddedNats(data / "nats"))
            nats_url = nats.url
        services = [
            Service(
                module,
                setting,
                os.environ.get(setting) or f"127.0.0.1:{port if fixed_ports else free_port()}",
                colour,
            )
            for module, setting, port, colour in _SERVICES
        ]
        env = {"POSTGRES_URL": postgres_url, "NATS_URL": nats_url}
        supervisor = await stack.enter_async_context(Supervisor(services, env, say))
        addresses = [service.address for service in services]
        yield Shop(supervisor, postgres_url, nats_url, *addresses, postgres, nats)
