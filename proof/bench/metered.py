"""What metrics cost: ``python -m proof.bench.metered [--quick]`` runs sagas with metrics off and on, turn by turn.

Two shops on servers of their own, one of which tells its metrics to a scrape each 5 s, as Prometheus does by the rules
that are shipped. What is compared is the processor time of a saga in all its processes, Postgres and NATS included, of
one round; whatever else the machine does bears on both.
"""

from __future__ import annotations

import argparse
import asyncio
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from statistics import median
from typing import NamedTuple

from proof.bench import budget
from proof.bench.systems import System, started
from stack.console import console
from stack.topology import ROOT
from twinlog.dev import free_port

SCRAPE_SECONDS = 5.0
_TIMEOUT_SECONDS = 5.0
_DATA = ROOT / ".data"


class Size(NamedTuple):
    """How long it takes."""

    rounds: int
    orders: int
    """In each round, of each mode."""


FULL = Size(rounds=15, orders=4_000)
QUICK = Size(rounds=9, orders=1_000)


async def main(size: Size) -> None:
    """Prints the medians of each mode."""
    async with AsyncExitStack() as stack:
        _, off = await stack.enter_async_context(started(_DATA / "bench-unmetered"))
        metered, on = await stack.enter_async_context(
            started(_DATA / "bench-metered", metrics=f"127.0.0.1:{free_port()}")
        )
        await stack.enter_async_context(_scraped(list(metered.metrics.values())))
        for pair in list(zip(off, on, strict=True))[1:]:  # the baseline, which has no metrics, is the first
            await _compared(pair, size)


async def _compared(pair: Sequence[System], size: Size) -> None:
    """The first of the pair has its metrics off."""
    spent: dict[int, list[float]] = {0: [], 1: []}
    for system in pair:
        await budget.of_sagas(system, size.orders)  # caches fill, statements get prepared
    for number in range(size.rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            _, parts = await budget.of_sagas(pair[which], size.orders)
            spent[which].append(sum(parts.values()))
    ratios = sorted(on / off for off, on in zip(spent[0], spent[1], strict=True))
    console.print(
        f"{pair[0].name}: {median(spent[0]):.0f} µs of processor time a saga with metrics off, "
        f"{median(spent[1]):.0f} with metrics on: × {median(ratios):.3f} in the same round "
        f"(middle half {ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f})"
    )


@asynccontextmanager
async def _scraped(addresses: Sequence[str]) -> AsyncIterator[None]:
    """Has every process scraped while the block runs."""

    async def scrape() -> None:
        while True:
            await asyncio.gather(*(asyncio.to_thread(_ask, f"http://{at}/metrics") for at in addresses))
            await asyncio.sleep(SCRAPE_SECONDS)

    task = asyncio.ensure_future(scrape())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _ask(url: str) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
        assert b"twinlog_up 1.0" in answer.read(), url


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m proof.bench.metered", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    asyncio.run(main(QUICK if parser.parse_args().quick else FULL))
