"""Servers of one's own: whether they will do, before anything is started."""

from __future__ import annotations

import asyncio

import asyncpg
from nats.errors import Error as NatsError

from twinlog import ConfigurationError
from twinlog.dev import Misconfigured
from twinlog.testing.internals import configure_logging, connect, ensure_database

_SECONDS = 10.0
_DATABASES = ("shop_orders", "shop_customers", "shop_sagas", "shop_views")


async def check_postgres(url: str) -> None:
    """Makes the databases where they are missing. Raises Misconfigured where the server will not do."""
    try:
        async with asyncio.timeout(_SECONDS):
            for database in _DATABASES:
                await ensure_database(url, database)
    except ConfigurationError as error:
        raise _one_line(str(error)) from error
    except TimeoutError as error:
        raise Misconfigured(
            f"POSTGRES_URL: the server did not answer in {_SECONDS:g} s; is it up?"
        ) from error
    except (OSError, ValueError, asyncpg.PostgresError) as error:
        raise _one_line(
            f"POSTGRES_URL: the server cannot be used ({error}); is it up, and is this its URL?"
        ) from error


async def check_nats(url: str) -> None:
    """Raises Misconfigured where the server will not do."""
    configure_logging("error")  # waiting for a server is told below
    try:
        async with asyncio.timeout(_SECONDS):
            client = await connect(url, "stack")
    except ConfigurationError as error:
        raise _one_line(str(error)) from error
    except TimeoutError as error:
        raise Misconfigured(f"NATS_URL: no server answered in {_SECONDS:g} s; is it up?") from error
    except (ValueError, NatsError) as error:
        raise _one_line(f"NATS_URL: the server cannot be used ({error}); is this its URL?") from error
    await client.close()


def _one_line(message: str) -> Misconfigured:
    return Misconfigured(" ".join(message.split()))
