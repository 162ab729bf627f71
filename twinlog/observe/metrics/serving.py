"""Serves metrics over HTTP, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CollectorRegistry, start_http_server

from twinlog.model.errors import ConfigurationError
from twinlog.observe.metrics.event_loop import EventLoop
from twinlog.observe.metrics.metric import Concern
from twinlog.observe.metrics.scrape import registry

SETTING = "METRICS_ADDRESS"


@asynccontextmanager
async def telling(concerns: Sequence[Concern], address: str) -> AsyncIterator[str]:
    """Serves what concerns tell, and the event loop's lag, at host:port while the block runs; gives the URL.

    Raises ConfigurationError where the address cannot be had.
    """
    event_loop = EventLoop()
    ticking = asyncio.create_task(event_loop.run(), name="event loop lag")
    try:
        async with serving(address, registry([*concerns, event_loop], asyncio.get_running_loop())) as url:
            yield url
    finally:
        ticking.cancel()


@asynccontextmanager
async def serving(address: str, registry: CollectorRegistry) -> AsyncIterator[str]:
    """Serves a registry at host:port, port 0 for any that is free, while the block runs; gives the URL.

    Raises ConfigurationError where the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    try:
        # In a thread, as it asks for the name of the host, which may take a while.
        server, thread = await asyncio.to_thread(start_http_server, int(port), host.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            "{setting}: cannot listen on {address} ({why}); stop what uses it, set {setting} to another host:port, or "
            "leave it empty",
            setting=SETTING,
            address=address,
            why=os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error,
        ) from error
    url = f"http://{host}:{server.server_port}/metrics"
    structlog.get_logger().info("metrics.serving", url=url)
    try:
        yield url
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
