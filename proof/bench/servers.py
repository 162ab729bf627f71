"""The programs whose reads are compared."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from stack.shop import Shop
from stack.topology import PROJECTOR, ROOT
from twinlog.dev import free_port, spawn, stop

LEAST = "the least program"


@dataclass(frozen=True)
class Server:
    """A program that answers."""

    name: str
    address: str
    pid: int


def projector(shop: Shop) -> Server:
    """The shop's."""
    return Server(PROJECTOR.name, shop.queries, shop.supervisor.pid(PROJECTOR.name))


@asynccontextmanager
async def least(shop: Shop) -> AsyncIterator[Server]:
    """The least program, on the same views."""
    address = f"127.0.0.1:{free_port()}"
    of = [address, shop.postgres_url, PROJECTOR.database, shop.nats_url]
    command = [sys.executable, "-m", "proof.bench.least_reads", *of]
    process = await spawn(command, output=sys.stderr.fileno(), env=dict(os.environ), cwd=ROOT)
    try:
        await _listening(address)
        yield Server(LEAST, address, process.pid)
    finally:
        await stop(process)


async def _listening(address: str) -> None:
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.05)
