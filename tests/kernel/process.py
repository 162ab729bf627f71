"""A process to be run and stopped by tests: ``python -m tests.kernel.process <scenario>``."""

from __future__ import annotations

import asyncio
import sys

from twinlog import ConfigurationError, Shutdown, run
from twinlog._aio.tasks import Tasks
from twinlog.service import runtime
from twinlog.testing.internals import configure_logging


async def forever() -> None:
    await asyncio.Event().wait()


async def serves(shutdown: Shutdown) -> None:
    try:
        print("ready", flush=True)
        await shutdown.wait()
    finally:
        print("closed", flush=True)


async def starts_for_ever(shutdown: Shutdown) -> None:
    try:
        print("ready", flush=True)
        await forever()
    finally:
        print("closed", flush=True)


async def ends_slowly(shutdown: Shutdown) -> None:
    try:
        print("ready", flush=True)
        await shutdown.wait()
        print("stopping", flush=True)
        await forever()
    finally:
        print("closed", flush=True)


async def loses_a_task(shutdown: Shutdown) -> None:
    async def broken() -> None:
        raise RuntimeError("the relay broke")

    async with Tasks(shutdown.crash) as tasks:
        tasks.start("relay", broken())
        await serves(shutdown)


async def loses_a_task_at_start(shutdown: Shutdown) -> None:
    async def broken() -> None:
        raise RuntimeError("the relay broke")

    async with Tasks(shutdown.crash) as tasks:
        tasks.start("relay", broken())
        await starts_for_ever(shutdown)


async def has_a_misconfigured_task(shutdown: Shutdown) -> None:
    async def refused() -> None:
        raise ConfigurationError("NATS_URL: the server is too old")

    async with Tasks(shutdown.crash) as tasks:
        tasks.start("relay", refused())
        await shutdown.wait()


async def is_misconfigured(shutdown: Shutdown) -> None:
    async with asyncio.TaskGroup():
        raise ConfigurationError("NATS_URL is not set:\nset it")


async def crashes(shutdown: Shutdown) -> None:
    raise RuntimeError("out of order")


async def cannot_close(shutdown: Shutdown) -> None:
    runtime.STOP_SECONDS = 0.2
    await ends_slowly(shutdown)


if __name__ == "__main__":
    configure_logging()
    sys.exit(run(globals()[sys.argv[1]]))
