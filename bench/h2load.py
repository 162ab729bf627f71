"""A second opinion on the load generator: h2load (Debian's nghttp2-client), where it is installed."""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
import tempfile

from bench.load import Load
from bench.report import Row
from bench.systems import EVENTS_OF_ORDER, METHOD, System

_CONNECTIONS, _AT_ONCE = 4, 64
_RATE = re.compile(rb"finished in [^,]+, ([\d.]+) req/s")


class Failed(Exception):
    """h2load did not do what it was asked for."""


async def rows(systems: list[System], count: int) -> list[Row]:
    """What h2load gets answered, and how much of that our own generator does; none where it is not installed.

    h2load repeats one call, so here none carries a request id.
    """
    if not shutil.which("h2load"):
        return []
    found = []
    for system in systems:
        message = system.request(system.customers[0])
        theirs = await _h2load(system, message, count)
        before = await system.position()
        calls = await system.load.closed([message] * count, _CONNECTIONS * _AT_ONCE)
        ours = count / (max(call.answered for call in calls) - calls[0].due)
        await system.view.reached(before + EVENTS_OF_ORDER * count)
        found.append(Row(f"{system.name}: CreateOrder accepted, asked by h2load", "calls/s", [theirs]))
        found.append(Row(f"{system.name}: asked by the bench's own generator", "× h2load's", [ours / theirs]))
    return found


async def _h2load(system: System, message: bytes, count: int) -> float:
    assert isinstance(system.load, Load)
    before = await system.position()
    with tempfile.NamedTemporaryFile() as body:
        body.write(struct.pack(">BI", 0, len(message)) + message)
        body.flush()
        numbers = ["-n", str(count), "-c", str(_CONNECTIONS), "-m", str(_AT_ONCE), "-d", body.name]
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        process = await asyncio.create_subprocess_exec(
            "h2load",
            *numbers,
            *headers,
            f"http://{system.load.address}/{METHOD}",
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
    rate = _RATE.search(said)
    if rate is None:
        raise Failed(said.decode(errors="replace"))
    await system.view.reached(before + EVENTS_OF_ORDER * count)  # every call made an order that was approved
    return float(rate[1])
