"""A process to be run and stopped by tests: ``python -m tests.kernel.process <scenario>``."""

from __future__ import annotations

import asyncio
import ctypes
import select
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


async def hangs(shutdown: Shutdown) -> None:
    """Its loop goes on only when its standard input ends."""

    async def hanging() -> None:
        print("ready", flush=True)
        while select.select([sys.stdin], [], [], 0.001)[0] == []:
            pass

    async with Tasks(shutdown.crash) as tasks:
        tasks.start("waits", forever())
        await asyncio.sleep(0)
        await asyncio.create_task(hanging(), name="hanging")


async def hangs_outside_of_python(shutdown: Shutdown) -> None:
    """As :func:`hangs`, in code that gives no instruction of Python its turn."""
    print("ready", flush=True)
    ctypes.PyDLL(None).getchar()  # it keeps the lock of the interpreter


async def idles(shutdown: Shutdown) -> None:
    async with Tasks(shutdown.crash) as tasks:
        tasks.start("waits", forever())
        await asyncio.sleep(0)
        await serves(shutdown)


if __name__ == "__main__":
    configure_logging()
    sys.exit(run(globals()[sys.argv[1]]))
