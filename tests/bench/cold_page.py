"""How long the page of a cold stream holds up its service: ``python -m tests.bench.cold_page [EVENTS]``.

A customer with so many events (100,000 by default), of which no snapshot is kept, is shown as the console does: at
once, without its state, and again once that is folded; then with all of its states. Printed is what the event loop's
longest turns took of this thread's processor time: for so long the service did nothing else. The client decodes the
answers in the same thread. Memory is collected as in a service.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import nlargest
from unittest import mock

import grpc.aio

from customer_svc.domain import CUSTOMER
from tests.bench.time_travel import _STREAM, EVENTS, fill
from twinlog import Schema
from twinlog.log.system import SystemClock
from twinlog.memory.twin import MemoryTwin
from twinlog.rpc import serve
from twinlog.rpc.inspection import Inspected
from twinlog.rpc.inspection_service import InspectionService
from twinlog.rpc.registrations import registrations
from twinlog.testing.internals import open_log
from twinlog.testing.servers import postgres_server
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

_SHOWN = 5


@contextmanager
def turns() -> Iterator[list[float]]:
    """What each turn of the event loop takes inside the block, in milliseconds of this thread's processor time."""
    took: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        took.append((time.thread_time() - began) * 1e3)

    with mock.patch.object(asyncio.Handle, "_run", timed):
        yield took


async def bench(url: str, count: int) -> None:
    """Prints what looks at the stream hold up."""
    async with open_log(url, "cold", "customers") as log:
        await fill(log, count)
        aggregates = [CUSTOMER]
        inspected = Inspected(
            "customer_svc", log, MemoryTwin("customers"), Schema(), SystemClock().now(), aggregates
        )
        [registration] = registrations(InspectionService(inspected))
        async with (
            serve([registration], domain="shop") as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            stub = InspectionServiceStub(channel)
            first = pb.GetStreamRequest(stream=str(_STREAM), newest=20)
            first.state_within.FromMilliseconds(50)
            later = pb.GetStreamRequest(stream=str(_STREAM), newest=20)
            states = pb.GetStreamRequest(stream=str(_STREAM), newest=100, with_states=True)
            for name, request in (("at once", first), ("the state", later), ("100 states", states)):
                began = time.perf_counter()
                with turns() as took:
                    answer = await stub.GetStream(request)
                seconds = time.perf_counter() - began
                longest = ", ".join(f"{each:.1f}" for each in nlargest(_SHOWN, took))
                folded = f", {answer.folded:,} events folded so far" if answer.folded else ""
                print(f"{name}: {seconds:.2f} s{folded}; the longest turns: {longest} ms")


async def main(count: int) -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    async with postgres_server() as postgres:
        await bench(postgres.url, count)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
