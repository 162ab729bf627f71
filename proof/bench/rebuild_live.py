"""What orders a second become of it while the orders view is built anew at the default pace.

``python -m proof.bench.rebuild_live [ORDERS]``: rounds of so many orders, by turns without a build and with one that is
begun again as often as it is through. The medians' ratio holds on a busy machine, too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import grpc.aio

from proof.bench import budget
from proof.bench.systems import EVENTS_OF_ORDER, System, started
from twinlog.v1 import view_service_pb2 as pb
from twinlog.v1.view_service_pb2_grpc import ViewServiceStub

_ORDERS = 4_000
_ROUNDS = 5
_CLIENTS = 100
_VIEW = "orders"


class _Round(NamedTuple):
    rate: float
    """Orders a second, until the last is in the view."""
    milliseconds: float
    """Processor time an order, of the services and of the servers."""


async def _round(system: System, orders: int) -> _Round:
    spent, after, began = budget.spent_by(system), await system.position(), perf_counter()
    await system.load.closed(system.requests(orders), _CLIENTS)
    seconds = await system.view.reached(after + orders * EVENTS_OF_ORDER) - began
    return _Round(orders / seconds, (budget.spent_by(system) - spent) / 1_000 / orders)


@asynccontextmanager
async def _rebuilding(stub: ViewServiceStub) -> AsyncIterator[list[int]]:
    """Builds the view over and over again inside the block; gives the numbers of the builds."""
    builds: list[int] = []

    async def rebuild() -> None:
        while True:
            begun = await stub.RebuildView(pb.RebuildViewRequest(view=_VIEW))
            builds.append(begun.build.build)
            while (await _build(stub, builds[-1])).state == pb.VIEW_BUILD_STATE_FILLING:
                await asyncio.sleep(0.1)
            await stub.DropViewBuild(pb.DropViewBuildRequest(view=_VIEW, build=builds[-1]))

    task = asyncio.create_task(rebuild())
    try:
        while not builds and not task.done():
            await asyncio.sleep(0.01)
        yield builds
    finally:
        task.cancel()
        await asyncio.wait([task])
        for each in (await stub.ListViews(pb.ListViewsRequest())).views:
            for build in each.builds:
                if each.view == _VIEW and build.state != pb.VIEW_BUILD_STATE_LIVE:
                    await stub.DropViewBuild(pb.DropViewBuildRequest(view=_VIEW, build=build.build))


async def _build(stub: ViewServiceStub, number: int) -> pb.ViewBuild:
    answer: pb.GetRebuildResponse = await stub.GetRebuild(pb.GetRebuildRequest(view=_VIEW, build=number))
    return answer.build


async def main(orders: int, rounds: int = _ROUNDS) -> None:
    """Prints a line for each round, and the medians."""
    with TemporaryDirectory() as folder:
        async with started(Path(folder)) as (shop, systems):
            system = next(each for each in systems if each.name == "choreography")
            async with grpc.aio.insecure_channel(shop.queries) as channel:
                stub = ViewServiceStub(channel)
                await _round(system, orders)
                alone, beside = [], []
                for _ in range(rounds):
                    alone.append(await _round(system, orders))
                    async with _rebuilding(stub) as builds:
                        beside.append(await _round(system, orders))
                    print(
                        f"alone {alone[-1].rate:>7,.0f} orders/s, {alone[-1].milliseconds:5.2f} ms of processor each   "
                        f"beside a build {beside[-1].rate:>7,.0f} orders/s, {beside[-1].milliseconds:5.2f} ms   "
                        f"({len(builds)} begun)",
                        flush=True,
                    )
    rate = median(each.rate for each in beside) / median(each.rate for each in alone)
    spent = median(each.milliseconds for each in alone) / median(each.milliseconds for each in beside)
    print(f"medians: {rate:.2f} of the rate alone by the clock; {spent:.2f} by processor time")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else _ORDERS))
