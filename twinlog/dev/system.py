"""All services of a project on one machine, with their servers, unless the environment names others."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from twinlog.dev.nats import EmbeddedNats
from twinlog.dev.postgres import EmbeddedPostgres
from twinlog.dev.preflight import check_nats, check_postgres, check_settings
from twinlog.dev.process import Misconfigured, free_port, port_is_free
from twinlog.dev.supervisor import METRICS, Program, Supervisor, end_leftover_service
from twinlog.service.settings import checked_address
from twinlog.service.spec import ServiceSpec

T = TypeVar("T")
_COLORS = (36, 32, 35, 33, 34, 31)
"""ANSI colors of what services say."""
CONSOLE = "twinlog.console"
"""Run as ``python -m``."""
_CONSOLE_SETTING = "CONSOLE_ADDRESS"
FIRST_METRICS = "127.0.0.1:9461"
"""Where the first service tells its metrics; the others do on the ports behind it."""
CONSOLE_METRICS = 9465
"""The console's port for them."""
_MOST_STEPS = 100


@dataclass(frozen=True)
class Console:
    """How the console is to be run."""

    address: str | None = "127.0.0.1:50050"
    """Where, as host:port, unless CONSOLE_ADDRESS says otherwise; None: on a free port."""
    pages: Sequence[str] = ()
    """Modules that add pages."""


@dataclass(frozen=True)
class System:
    """Running services and their servers."""

    supervisor: Supervisor
    postgres_url: str
    nats_url: str
    addresses: Mapping[str, str]
    """Where each service listens, as host:port, by its module."""
    postgres: EmbeddedPostgres | None
    """None where POSTGRES_URL names a server."""
    nats: EmbeddedNats | None
    """None where NATS_URL names a server."""
    console: str = ""
    """The console's URL; empty where none runs."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Where each process tells its metrics, as host:port, by its module; empty where none does."""

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
    services: Mapping[str, ServiceSpec],
    say: Callable[[str], None],
    *,
    root: Path,
    data: Path,
    addresses: Mapping[str, str] | None = None,
    databases: Sequence[str] = (),
    fresh: bool = False,
    quiet: bool = False,
    restarts: bool = False,
    console: Console | None = None,
    metrics: str = "",
) -> AsyncIterator[System]:
    """Starts everything and stops it again. Raises StartFailed, and Misconfigured before anything is started.

    ``services``: by module; each is run in ``root`` as ``python -m module``. POSTGRES_URL and NATS_URL name existing
    servers, whose ``databases`` are checked; without them embedded ones run in ``data``, on POSTGRES_PORT and NATS_PORT
    or on free ports. Services listen where their settings say, else at their ``addresses`` or, where those have none,
    on free ports. ``fresh`` removes what an earlier run left in ``data``. ``quiet`` services write to ``data``/log
    instead of to ``say``. ``restarts``: see Supervisor. ``metrics``: where the first service tells its metrics, unless
    METRICS_ADDRESS says so; the others do on the ports behind it, the console on 9465; empty: none does.
    ``console``: runs the console, too.
    """
    check_settings([*services.values()])
    end_leftovers(services, data)
    if fresh:
        shutil.rmtree(data, ignore_errors=True)
    first = os.environ.get(METRICS, metrics)
    told = metrics_addresses(first, len(services))
    wanted = {spec.address_setting: (addresses or {}).get(module) for module, spec in services.items()}
    where = _addresses({**wanted, **({_CONSOLE_SETTING: console.address} if console else {})})
    programs = [
        Program(module, spec.address_setting, where[spec.address_setting], color, {METRICS: at})
        for (module, spec), color, at in zip(services.items(), cycle(_COLORS), told, strict=False)
    ]
    shown = [_shown(console, where[_CONSOLE_SETTING], console_address(first))] if console else []
    listening = {program.module: program.address for program in programs}
    metrics_at = {each.module: at for each in (*programs, *shown) if (at := each.env[METRICS])}
    page = f"http://{shown[0].address}" if shown else ""
    async with _servers(data, databases) as servers:
        env = _environment(servers, services, listening)
        async with Supervisor(
            [*programs, *shown], env, say, root=root, folder=data, quiet=quiet, restarts=restarts
        ) as supervisor:
            yield System(
                supervisor,
                servers.postgres_url,
                servers.nats_url,
                listening,
                servers.postgres,
                servers.nats,
                page,
                metrics_at,
            )


def _environment(
    servers: _Servers, services: Mapping[str, ServiceSpec], listening: Mapping[str, str]
) -> dict[str, str]:
    """What each program is told of the others."""
    env = {
        "POSTGRES_URL": servers.postgres_url,
        "NATS_URL": servers.nats_url,
        "TWINLOG_SERVICES": ",".join(f"{spec.name}={listening[at]}" for at, spec in services.items()),
    }
    if sys.stdout.isatty():
        env["LOG_FORMAT"] = os.environ.get("LOG_FORMAT", "pretty")
    return env


class _Servers(NamedTuple):
    postgres_url: str
    nats_url: str
    postgres: EmbeddedPostgres | None
    nats: EmbeddedNats | None


@asynccontextmanager
async def _servers(data: Path, databases: Sequence[str]) -> AsyncIterator[_Servers]:
    """Those that the environment names, checked before any is started; embedded ones in ``data`` for the others."""
    postgres = nats = None
    postgres_url, nats_url = os.environ.get("POSTGRES_URL", ""), os.environ.get("NATS_URL", "")
    if postgres_url:
        await check_postgres(postgres_url, databases)
    if nats_url:
        await check_nats(nats_url)
    if not postgres_url:
        postgres = EmbeddedPostgres(data / "postgres", _port("POSTGRES_PORT"))
    if not nats_url:
        nats = EmbeddedNats(data / "nats", _port("NATS_PORT"))
    if postgres and nats and not postgres.has_data:
        # As where /var/tmp was cleaned: streams of logs that are no more would be refused as somebody else's.
        shutil.rmtree(nats.store, ignore_errors=True)
    async with AsyncExitStack() as stack:
        for server in (postgres, nats):
            if server:
                await stack.enter_async_context(server)
        yield _Servers(
            postgres.url if postgres else postgres_url, nats.url if nats else nats_url, postgres, nats
        )


def end_leftovers(modules: Sequence[str] | Mapping[str, object], data: Path) -> None:
    """Ends what a killed run left there: services first, then servers."""
    if data.exists():
        for name in (*modules, CONSOLE):
            end_leftover_service(data, name)
        EmbeddedPostgres(data / "postgres").end_leftover()
        EmbeddedNats(data / "nats").end_leftover()


@contextmanager
def locked(folder: Path, pid_file: Path) -> Iterator[None]:
    """Refuses a second run of a project. Raises Misconfigured, which says who runs, by ``pid_file``."""
    # The folder itself is the lock: it survives the loss of the data, and the kernel releases it in any case.
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = pid_file.read_text().strip() if pid_file.exists() else f"in {folder.name}"
            raise Misconfigured(f"already running, {who}; stop it first") from None
        yield
    finally:
        os.close(lock)


def _shown(console: Console, address: str, metrics: str) -> Program:
    pages = os.environ.get("CONSOLE_PAGES") or ",".join(console.pages)
    env = {"CONSOLE_PAGES": pages, METRICS: metrics}
    return Program(CONSOLE, _CONSOLE_SETTING, address, env=env, http=True)


def _addresses(preferred: Mapping[str, str | None]) -> Mapping[str, str]:
    """Where programs are to listen, by setting: as it is set, else as is preferred, else on a free port.

    Raises Misconfigured, which names each that is wrong, and each that is taken.
    """
    found: dict[str, str] = {}
    wrong: list[str] = []
    taken: list[str] = []
    for setting, wanted in preferred.items():
        given = os.environ.get(setting) or wanted or "127.0.0.1:0"
        try:
            host, _, port = checked_address(given).rpartition(":")
        except ValueError as error:
            wrong.append(f"{setting}={given} is wrong: {error}")
            continue
        if int(port) and (given in found.values() or not port_is_free(host.strip("[]"), int(port))):
            taken.append(f"{setting}: {given} is taken")
        found[setting] = given if int(port) else f"{host}:{free_port()}"
    if taken:
        others = "it" if len(taken) == 1 else "each"
        taken[-1] += f"; stop what listens there, or set {others} to another host:port"
    if wrong or taken:
        raise Misconfigured("; ".join([*wrong, *taken]))
    return found


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


def metrics_addresses(first: str, number: int) -> Sequence[str]:
    """Addresses for so many services, from a first one on; empty ones where that is empty.

    A port that is taken is left out, and so is that of the console. With port 0 all are any that are free.
    """
    if not first:
        return [""] * number
    host, _, port = first.rpartition(":")
    found: list[int] = []
    for _ in range(number):
        wanted = (found[-1] if found else int(port) - 1) + 1 if int(port) else 0
        found.append(_next(host, wanted) or free_port())
    return [f"{host}:{each}" for each in found]


def console_address(first: str) -> str:
    """The console's address, where the first service has that one; empty where that is empty."""
    if not first:
        return ""
    host, _, port = first.rpartition(":")
    fixed = int(port) and port_is_free(host.strip("[]"), CONSOLE_METRICS)
    return f"{host}:{CONSOLE_METRICS if fixed else free_port()}"


def _next(host: str, port: int) -> int:
    """The first port from one on that is free; 0 where there is none nearby, and where that one is 0."""
    ports = range(port, min(port + _MOST_STEPS, 65_536)) if port else ()
    return next(
        (each for each in ports if each != CONSOLE_METRICS and port_is_free(host.strip("[]"), each)), 0
    )
