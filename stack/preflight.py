"""Checks settings and servers before anything is started; each refusal is one line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

from nats.errors import Error as NatsError

from stack.topology import DATABASES, SERVICES
from twinlog import ConfigurationError, Unavailable, load
from twinlog.dev import Misconfigured
from twinlog.testing.internals import configure_logging, connect, ensure_database

_TIMEOUT_SECONDS = 10.0
_ABOUT_DATA = ("Migration ", "The database has schema version ", "The tables of ")
_EMBEDDED = {"postgres_url": "postgresql://embedded", "nats_url": "nats://embedded"}


def check_settings() -> None:
    """Raises Misconfigured where a service's setting is wrong; the message names each wrong one."""
    # Two services complain alike of what both have.
    if complaints := list(dict.fromkeys(_complaints())):
        raise _one_line("; ".join(complaints))


def _complaints() -> Iterator[str]:
    for service in SERVICES:
        defaults = {**_EMBEDDED, service.address_setting.lower(): service.default_address}
        unset = {field: value for field, value in defaults.items() if not os.environ.get(field.upper())}
        try:
            load(service.settings, **unset)
        except ConfigurationError as error:
            yield from str(error).split("; ")


def is_about_data(refusal: str) -> bool:
    """Whether a service refuses the data that it finds, rather than a setting or its own code."""
    return refusal.startswith(_ABOUT_DATA)


async def check_postgres(url: str) -> None:
    """Creates the databases that are missing. Raises Misconfigured where the server cannot be used."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            for database in DATABASES:
                await ensure_database(url, database)
    except ConfigurationError as error:
        raise _one_line(str(error)) from error
    except TimeoutError as error:
        raise Misconfigured(
            f"POSTGRES_URL: the server did not answer in {_TIMEOUT_SECONDS:g} s; is it up?"
        ) from error
    except (Unavailable, ValueError) as error:
        raise _one_line(
            f"POSTGRES_URL: the server cannot be used: {error}; is it up, and is this its URL?"
        ) from error


async def check_nats(url: str) -> None:
    """Raises Misconfigured where the server cannot be used."""
    configure_logging("error")  # what the connection waits for is told below
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            client = await connect(url, "stack")
    except ConfigurationError as error:
        raise _one_line(str(error)) from error
    except TimeoutError as error:
        raise Misconfigured(f"NATS_URL: no server answered in {_TIMEOUT_SECONDS:g} s; is it up?") from error
    except (ValueError, NatsError) as error:
        raise _one_line(f"NATS_URL: the server cannot be used ({error}); is this its URL?") from error
    await client.close()


def _one_line(message: str) -> Misconfigured:
    return Misconfigured(" ".join(message.split()))
