"""The console's process: settings, pages, a socket, and an orderly stop."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress

import structlog
import uvicorn
from pydantic_settings import BaseSettings, SettingsConfigDict

from twinlog._aio.reasons import reason
from twinlog.console import pages
from twinlog.console.app import Console
from twinlog.console.connections import Connection
from twinlog.console.page import Page
from twinlog.console.services import connected
from twinlog.model.errors import ConfigurationError
from twinlog.observe.metrics.info import Info
from twinlog.observe.metrics.serving import telling
from twinlog.service import logging as logs
from twinlog.service.runtime import Shutdown
from twinlog.service.settings import Address, OptionalAddress, Services, load, services_in

_log = structlog.get_logger(component="console")
_STOP_SECONDS = 2


class ConsoleSettings(BaseSettings):
    """The settings of the console; the environment has a field under its upper-case name."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    console_address: Address = "127.0.0.1:50050"
    """Where the console serves. It asks for no login: whoever reaches it may do all that it can."""
    twinlog_services: Services = ""
    """The services that it shows, as name=host:port with commas."""
    console_pages: str = ""
    """Modules that add pages of a domain, with commas; each has PAGES."""
    metrics_address: OptionalAddress = ""
    """Where Prometheus gets the console's own metrics, as host:port; empty: there are none."""
    log_level: logs.Level = "info"
    """What is logged: debug, info, warning or error."""
    log_format: logs.Format = "auto"
    """How it is logged: pretty, json, or auto, which is pretty on a terminal."""


class AddressTaken(ConfigurationError):
    """CONSOLE_ADDRESS: {address} cannot be had ({why}); stop what listens there, or set it to another host:port."""


class NoServices(ConfigurationError):
    """TWINLOG_SERVICES is empty: set it to the services to show, such as order_svc=127.0.0.1:50051, with commas."""


class PagesUnusable(ConfigurationError):
    """CONSOLE_PAGES: {module} cannot be used: {why}"""


async def main(shutdown: Shutdown) -> None:
    """Serves the console until it is asked to stop. Raises ConfigurationError."""
    settings = load(ConsoleSettings)
    logs.configure_logging(settings.log_level, settings.log_format)
    services = services_in(settings.twinlog_services)
    if not services:
        raise NoServices
    added = pages_of(settings.console_pages)
    async with serving(services, settings.console_address, added, metrics=settings.metrics_address) as url:
        _log.info("console.serving", url=url, services=[*services])
        await shutdown.wait()


@asynccontextmanager
async def serving(
    services: Mapping[str, str],
    address: str = "127.0.0.1:0",
    added: Sequence[Page] = (),
    *,
    metrics: str = "",
) -> AsyncIterator[str]:
    """The console's URL, where it serves while the block runs. Raises AddressTaken.

    ``metrics``: where it tells its own, as host:port; empty: nowhere.
    """
    host, _, port = address.rpartition(":")
    with _bound(host.strip("[]"), int(port)) as listening:
        async with connected(services) as known:
            console = Console(known, [*pages.PAGES, *added], hosts=[host])
            told: AbstractAsyncContextManager[object] = nullcontext()
            if metrics:
                told = telling([Info("console"), console.pages], metrics)
            server = _Server(
                uvicorn.Config(
                    console.app,
                    http=Connection,
                    log_config=None,
                    access_log=False,
                    lifespan="off",
                    server_header=False,
                    timeout_graceful_shutdown=_STOP_SECONDS,
                )
            )
            async with told:
                task = asyncio.create_task(server.serve([listening]))
                try:
                    yield f"http://{host}:{listening.getsockname()[1]}"
                finally:
                    console.live.close()
                    server.should_exit = True
                    await task


def pages_of(modules: str) -> list[Page]:
    """The pages that modules add. Raises PagesUnusable."""
    found: list[Page] = []
    for name in filter(None, (each.strip() for each in modules.split(","))):
        try:
            found += importlib.import_module(name).PAGES
        except Exception as error:  # whatever the domain's own code raises
            raise PagesUnusable(module=name, why=f"{type(error).__name__}: {error}") from error
    return found


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the process."""
        yield


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        with suppress(OSError):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(128)
        except OSError as error:
            raise AddressTaken(address=f"{host}:{port}", why=reason(error)) from None
        yield listening
