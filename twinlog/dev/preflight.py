"""Checks settings and servers before anything is started; each refusal is one line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from nats.errors import Error as NatsError

from twinlog.dev.process import Misconfigured
from twinlog.jetstream.connection import close, reached
from twinlog.model.errors import ConfigurationError, Unavailable
from twinlog.postgres.database import ensure_database
from twinlog.service.logging import configure_logging
from twinlog.service.settings import load
from twinlog.service.spec import ServiceSpec

_TIMEOUT_SECONDS = 10.0
_EMBEDDED = {"postgres_url": "postgresql://embedded", "nats_url": "nats://embedded"}


def check_settings(services: Sequence[ServiceSpec]) -> None:
    """Raises Misconfigured where a service's setting is wrong; the message names each wrong one."""
    # Two services complain alike of what both have.
    if complaints := list(dict.fromkeys(_complaints(services))):
        raise _one_line("; ".join(complaints))


def _complaints(services: Sequence[ServiceSpec]) -> Iterator[str]:
    for service in services:
        defaults = {**_EMBEDDED, service.address_setting.lower(): service.default_address}
        unset = {field: value for field, value in defaults.items() if not os.environ.get(field.upper())}
        try:
            load(service.settings, **unset)
        except ConfigurationError as error:
            yield from str(error).split("; ")


async def check_postgres(url: str, databases: Sequence[str]) -> None:
    """Creates the databases that are missing. Raises Misconfigured where the server cannot be used."""
    async with _in_time("POSTGRES_URL"):
        for database in databases:
            await ensure_database(url, database)


async def check_nats(url: str) -> None:
    """Raises Misconfigured where the server cannot be used."""
    configure_logging("error")  # what the connection waits for is told here
    async with _in_time("NATS_URL"):
        try:
            client = await reached(url, "preflight")
        except Unavailable as error:
            raise _one_line(f"NATS_URL: {error}") from error
    await close(client)


@asynccontextmanager
async def _in_time(setting: str) -> AsyncIterator[None]:
    """Raises Misconfigured where a server does not answer in time, or cannot be used."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            yield
    except ConfigurationError as error:
        raise _one_line(str(error)) from error
    except TimeoutError as error:
        raise Misconfigured(f"{setting}: no server answered in {_TIMEOUT_SECONDS:g} s; is it up?") from error
    except (Unavailable, ValueError, NatsError) as error:
        what = f"{setting}: the server cannot be used: {error}; is it up, and is this its URL?"
        raise _one_line(what) from error


def _one_line(message: str) -> Misconfigured:
    return Misconfigured(" ".join(message.split()))
