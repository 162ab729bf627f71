"""Asks h2load, of Debian's nghttp2-client: somebody else's load generator."""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
import tempfile

from proof.bench.apart import Failed

_CONNECTIONS = 4
_RATE = re.compile(rb"finished in [^,]+, ([\d.]+) req/s")


def installed() -> bool:
    """Whether it is there to be asked."""
    return shutil.which("h2load") is not None


async def ask(address: str, method: str, message: bytes, count: int, clients: int) -> float:
    """Calls answered a second, of ``count`` times the same call, ``clients`` at a time. Raises Failed."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(struct.pack(">BI", 0, len(message)) + message)
        body.flush()
        numbers = ["-n", str(count), "-c", str(_CONNECTIONS), "-m", str(clients // _CONNECTIONS)]
        headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        process = await asyncio.create_subprocess_exec(
            "h2load",
            *numbers,
            *headers,
            "-d",
            body.name,
            f"http://{address}/{method}",
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
    rate = _RATE.search(said)
    if rate is None:
        raise Failed(said.decode(errors="replace"))
    return float(rate[1])
