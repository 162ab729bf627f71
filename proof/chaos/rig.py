"""A shop to break: servers on fixed ports, one supervised process per replica, and proxies where wanted."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import asyncpg
import psutil

from proof.chaos.disk import Disk, NotAvailable, small_disk
from proof.chaos.pooler import PgBouncer
from proof.chaos.proxy import Proxy
from stack.topology import NAMES, ROOT, SERVICES
from twinlog import ServiceSpec
from twinlog.dev import (
    EmbeddedNats,
    EmbeddedPostgres,
    Program,
    StartFailed,
    Supervisor,
    free_port,
    until_serving,
)
from twinlog.testing.internals import database_url

_READY_SECONDS = 90.0
_GONE_SECONDS = 20.0
_RESTART_TRIES = 20
_POSTGRES_DISK, _NATS_DISK = 400, 64


@dataclass(frozen=True)
class Layout:
    """What a shop consists of."""

    replicas: int = 1
    """Processes of each service."""
    nats: int = 1
    """The number of NATS servers; several are a cluster that keeps each stream on every server."""
    proxied: bool = False
    """Whether services reach their servers through proxies."""
    pooled: bool = False
    """Whether services reach Postgres through a pgbouncer."""
    disk: str = ""
    """The server, "postgres" or "nats", that gets a small file system; empty for neither."""
    max_file: str = "64GB"
    """The limit of NATS's file store."""
    clocks_ahead: tuple[float, ...] = ()
    """By how many seconds the clock of each replica's machine is ahead; empty: none is."""
    settings: tuple[tuple[str, str], ...] = (("ORDER_DEADLINE_SECONDS", "10"),)
    """Further settings of the services."""


class Replica:
    """One process of a service, which its supervisor restarts whenever it ends."""

    def __init__(
        self, service: str, number: int, supervisor: Supervisor, address: str, env: dict[str, str]
    ) -> None:
        self.env = env
        """Its own environment variables, as of its next start."""
        self.service = service
        self.number = number
        self.supervisor = supervisor
        self.address = address

    def __str__(self) -> str:
        return f"{self.service}/{self.number}"

    @property
    def pid(self) -> int:
        """The id of the process that runs now."""
        return self.supervisor.pid(self.service)

    async def kill(self) -> None:
        """Sends SIGKILL and returns when the process is gone. The supervisor starts another."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> float:
        """Sends SIGTERM; returns the seconds until the process was gone. The supervisor starts another."""
        return await self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Stops the process with SIGSTOP."""
        self.supervisor.signal(self.service, signal.SIGSTOP)

    def thaw(self) -> None:
        """Resumes a frozen process."""
        self.supervisor.signal(self.service, signal.SIGCONT)

    async def ready(self) -> None:
        """Returns when it is SERVING. Raises StartFailed."""
        await _within(_READY_SECONDS, until_serving(self.address), f"{self} is not SERVING")

    async def _end(self, signum: signal.Signals) -> float:
        loop, pid = asyncio.get_running_loop(), self.pid
        started = loop.time()
        self.supervisor.signal(self.service, signum)
        await _within(_GONE_SECONDS, _gone(pid), f"{self} does not end by {signum.name}")
        return loop.time() - started


@dataclass
class Rig:
    """A running shop."""

    layout: Layout
    folder: Path
    postgres: EmbeddedPostgres
    nats: Sequence[EmbeddedNats]
    replicas: dict[str, list[Replica]]
    postgres_proxies: dict[str, Proxy]
    nats_proxies: dict[str, Proxy]
    disk: Disk | None
    lines: list[str]
    """What the services said."""
    pooler: PgBouncer | None = None

    @property
    def nats_url(self) -> str:
        """The URLs of every NATS server, separated by commas."""
        return ",".join(server.url for server in self.nats)

    @property
    def all(self) -> list[Replica]:
        """Every process of every service."""
        return [replica for replicas in self.replicas.values() for replica in replicas]

    @property
    def proxies(self) -> list[Proxy]:
        """Every proxy."""
        return [*self.postgres_proxies.values(), *self.nats_proxies.values()]

    def addresses(self, service: str) -> list[str]:
        """Where the replicas of a service serve."""
        return [replica.address for replica in self.replicas[service]]

    @asynccontextmanager
    async def connected(self, database: str = "postgres") -> AsyncIterator[asyncpg.Connection]:
        """A connection to a database of the shop."""
        connection = await asyncpg.connect(database_url(self.postgres.url, database), timeout=10)
        try:
            yield connection
        finally:
            await connection.close()

    async def ready(self) -> None:
        """Returns when every replica is SERVING. Raises StartFailed."""
        await asyncio.gather(*(replica.ready() for replica in self.all))

    async def restart_postgres(self) -> None:
        """Starts a killed Postgres. Raises StartFailed where processes of the killed one stay in the way."""
        await _with_retries(self.postgres.start)


@asynccontextmanager
async def running(layout: Layout) -> AsyncIterator[Rig]:
    """Starts a shop in a temporary folder and stops it again. Raises NotAvailable and StartFailed."""
    with _folder() as folder:
        async with AsyncExitStack() as stack:
            disk = None
            if layout.disk:
                megabytes = _POSTGRES_DISK if layout.disk == "postgres" else _NATS_DISK
                disk = stack.enter_context(small_disk(folder / layout.disk, megabytes))
            postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres"))
            nats = _servers(layout, folder)
            await stack.enter_async_context(_together(nats))
            rig = Rig(layout, folder, postgres, nats, {}, {}, {}, disk, [])
            if layout.proxied:
                for name in NAMES:
                    rig.postgres_proxies[name] = await stack.enter_async_context(Proxy(postgres.port))
                    rig.nats_proxies[name] = await stack.enter_async_context(Proxy(nats[0].port))
            if layout.pooled:
                rig.pooler = await stack.enter_async_context(PgBouncer(folder / "pooler", postgres))
            for service in SERVICES:
                rig.replicas[service.name] = [_replica(rig, service, n + 1) for n in range(layout.replicas)]
            await stack.enter_async_context(_together([replica.supervisor for replica in rig.all]))
            yield rig


def _servers(layout: Layout, folder: Path) -> list[EmbeddedNats]:
    if layout.nats == 1:
        return [EmbeddedNats(folder / "nats", max_file=layout.max_file)]
    ports = [free_port() for _ in range(layout.nats)]
    password = token_hex(24)
    routes = ", ".join(f'"nats://routes:{password}@127.0.0.1:{port}"' for port in ports)
    authorization = f'authorization {{ user: routes, password: "{password}" }}'
    return [
        EmbeddedNats(
            folder / f"nats{number}",
            max_file=layout.max_file,
            extra=f"cluster {{ name: chaos, listen: 127.0.0.1:{port}, {authorization}, routes: [{routes}] }}",
            password=password,
        )
        for number, port in enumerate(ports, 1)
    ]


def _replica(rig: Rig, service: ServiceSpec, number: int) -> Replica:
    name, address = service.name, f"127.0.0.1:{free_port()}"
    postgres_url, nats_url = rig.postgres.url, rig.nats_url
    if rig.layout.proxied:
        postgres_url = rig.postgres.url_at(rig.postgres_proxies[name].port)
        nats_url = rig.nats[0].url_at(rig.nats_proxies[name].port)
    if rig.pooler:
        postgres_url = rig.pooler.url
    env = {
        "POSTGRES_URL": postgres_url,
        "NATS_URL": nats_url,
        "STREAM_REPLICAS": str(rig.layout.nats),
        **dict(rig.layout.settings),
    }
    if rig.layout.clocks_ahead:
        env["CHAOS_CLOCK_AHEAD"] = str(rig.layout.clocks_ahead[number - 1])
        env["PYTHONPATH"] = f"{ROOT / 'proof' / 'chaos' / 'skewed'}:{ROOT}"
    say = _prefixed(rig.lines, f"{name}/{number}")
    folder = rig.folder / f"{name}{number}"
    own: dict[str, str] = {}
    program = Program(name, service.address_setting, address, env=own)
    supervisor = Supervisor([program], env, say, root=ROOT, folder=folder)
    return Replica(name, number, supervisor, address, own)


def _prefixed(lines: list[str], name: str) -> Callable[[str], None]:
    return lambda line: lines.append(f"{name} {line}")


@asynccontextmanager
async def _together(managers: Sequence[Any]) -> AsyncIterator[None]:
    """Enters all at once, and leaves all at once."""
    try:
        await asyncio.gather(*(manager.__aenter__() for manager in managers))
        yield
    finally:
        await asyncio.gather(*(manager.__aexit__(None, None, None) for manager in managers))


@contextmanager
def _folder() -> Iterator[Path]:
    # Its path is short, and the user that Postgres runs as may enter it.
    path = Path(tempfile.mkdtemp(prefix="twinlog-chaos-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


async def _gone(pid: int) -> None:
    while psutil.pid_exists(pid):
        await asyncio.sleep(0.01)


async def _within(seconds: float, work: Awaitable[None], complaint: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError as error:
        raise StartFailed(f"{complaint} after {seconds:g} s") from error


async def _with_retries(start: Callable[[], Awaitable[None]]) -> None:
    for _ in range(_RESTART_TRIES - 1):
        with suppress(StartFailed):
            return await start()
        await asyncio.sleep(0.5)
    return await start()


def others(replicas: Iterable[Replica], but: Replica) -> list[Replica]:
    """Every replica but one."""
    return [replica for replica in replicas if replica is not but]


__all__ = ["Layout", "NotAvailable", "Replica", "Rig", "others", "running"]
