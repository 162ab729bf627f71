"""The connection to NATS."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from twinlog._aio.retrying import Retrying
from twinlog.jetstream import api
from twinlog.jetstream.client import NatsClient
from twinlog.model.errors import ConfigurationError, Unavailable

_OLDEST_NATS = (2, 12)
_CLOSE_SECONDS = 0.5
_NO_LEADER = (10008, 10010)
"""A cluster that elects, or has too few servers."""


async def connect(url: str, name: str) -> NatsClient:
    """A connection that reconnects for ever; waits, and says so once, while no server is there or a cluster elects.

    ``url``: one server, or several of a cluster with commas between them. Raises ConfigurationError where the server
    is too old or has no JetStream.
    """
    log, connected = structlog.get_logger(), False
    retrying = Retrying(
        say_failing=lambda error: log.warning("nats.waiting", why=str(error)),
        say_working=lambda: log.info("nats.available", name=name),
        on=(Unavailable,),
    )

    async def changed(what: str) -> None:
        log.warning(f"nats.{what}", name=name)

    async def on_error(error: Exception) -> None:
        # The first connection is retried endlessly too, and this is the only sign of it.
        if not connected:
            retrying.failed(Unavailable(str(error) or type(error).__name__))
        log.debug("nats.error", error=str(error) or type(error).__name__)

    async def on_disconnect() -> None:
        await changed("disconnected")

    async def on_reconnect() -> None:
        await changed("reconnected")

    client = NatsClient()
    await client.connect(
        url.split(","),
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.25,  # type: ignore[arg-type]  # it is only slept
        ping_interval=5,
        max_outstanding_pings=2,
        connect_timeout=2,
        allow_reconnect=True,
        error_cb=on_error,
        disconnected_cb=on_disconnect,
        reconnected_cb=on_reconnect,
        pending_size=64 * 1024 * 1024,
        skip_subject_validation=True,  # they are the kernel's own
    )
    connected = True
    try:
        _check_version(client)
        await retrying(lambda: _check_jetstream(client))
    except BaseException:
        await close(client)
        raise
    return client


async def close(client: Client) -> None:
    """Closes a connection, also where the server is away or does not answer."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()


def _check_version(client: Client) -> None:
    version = client.connected_server_version
    if (version.major, version.minor) < _OLDEST_NATS:
        raise ConfigurationError(
            f"NATS_URL: nats-server 2.12 or newer is needed (this one is {version.major}.{version.minor})"
        )


async def _check_jetstream(client: Client) -> None:
    """Raises Unavailable while a cluster elects."""
    try:
        await client.jetstream(timeout=api.REQUEST_TIMEOUT_SECONDS).account_info()
    except (NatsError, APIError) as error:
        if isinstance(error, APIError) and error.err_code not in _NO_LEADER:
            raise ConfigurationError(
                "NATS_URL: this nats-server runs without JetStream; start it with JetStream enabled (-js)"
            ) from error
        raise api.unavailable(error) from error
