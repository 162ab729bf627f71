"""The shop on one machine: its servers, unless the environment names others, and its four services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.topology import DATABASES, NAMES, ROOT, SERVICES
from twinlog.dev import Console, System
from twinlog.dev import end_leftovers as end_all
from twinlog.dev import running as running_system


@dataclass(frozen=True)
class Shop(System):
    """The running shop."""

    @property
    def orders(self) -> str:
        """Where order_svc listens, as host:port."""
        return self.addresses["order_svc"]

    @property
    def customers(self) -> str:
        """Where customer_svc listens."""
        return self.addresses["customer_svc"]

    @property
    def sagas(self) -> str:
        """Where saga_orchestrator listens."""
        return self.addresses["saga_orchestrator"]

    @property
    def queries(self) -> str:
        """Where projector listens."""
        return self.addresses["projector"]


@asynccontextmanager
async def running(
    say: Callable[[str], None],
    *,
    data: Path = ROOT / ".data",
    fixed_ports: bool = False,
    fresh: bool = False,
    quiet: bool = False,
    console: Console | None = None,
    metrics: str = "",
) -> AsyncIterator[Shop]:
    """Starts everything and stops it again. Raises StartFailed, and Misconfigured before anything is started.

    POSTGRES_URL and NATS_URL name existing servers; without them embedded ones run in ``data``, on POSTGRES_PORT
    and NATS_PORT or on free ports. Services listen where their settings say, else on their default addresses
    (``fixed_ports``) or on free ports. ``fresh`` removes what an earlier run left in ``data``. ``quiet`` services
    write to ``data``/log instead of to ``say``. ``metrics``: where the first service tells its metrics, unless
    METRICS_ADDRESS says so, as host:port; the others do on the ports behind it. ``console``: runs the console, too.
    """
    async with running_system(
        {service.name: service for service in SERVICES},
        say,
        root=ROOT,
        data=data,
        addresses={service.name: service.default_address for service in SERVICES} if fixed_ports else None,
        databases=DATABASES,
        fresh=fresh,
        quiet=quiet,
        console=console,
        metrics=metrics,
    ) as system:
        yield Shop(**vars(system))


def end_leftovers(data: Path) -> None:
    """Ends what a killed run left there: services first, then servers."""
    end_all(NAMES, data)
