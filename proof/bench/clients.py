"""Our own load generator in processes of its own: whether one process of it is enough, where h2load is missing.

``python -m proof.bench.clients ADDRESS METHOD MESSAGE COUNT CLIENTS`` is one of them. It says that it is ready, waits
for a line, and prints when its first call was sent and its last one answered, by the clock that all processes share.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE

from proof.bench.apart import Failed
from proof.bench.load import Load
from stack.topology import ROOT
from twinlog.dev import stop

_PROCESSES = 2
NAME = f"{_PROCESSES} processes"


async def ask(address: str, method: str, message: bytes, count: int, clients: int) -> float:
    """Calls answered a second, of ``count`` times the same call, ``clients`` at a time (both even). Raises Failed."""
    share = [message.hex(), str(count // _PROCESSES), str(clients // _PROCESSES)]
    command = [sys.executable, "-m", "proof.bench.clients", address, method, *share]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
        for _ in range(_PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout
            await process.stdout.readline()
        answers = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    finally:
        await asyncio.gather(*(stop(process) for process in processes))
    if any(process.returncode for process in processes):
        raise Failed("a client process failed; it has said why on stderr")
    starts, ends = zip(*(map(float, answer.split()) for answer, _ in answers), strict=True)
    seconds: float = max(ends) - min(starts)
    return count / seconds


async def main(address: str, method: str, message: str, count: str, clients: str) -> None:
    """One of the processes."""
    load, messages = Load(address, method, refusals=True), [bytes.fromhex(message)] * int(count)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    calls = await load.closed(messages, int(clients))
    print(calls[0].due, max(call.answered for call in calls))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
