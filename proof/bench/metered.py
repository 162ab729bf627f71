"""What metrics or traces cost: ``python -m proof.bench.metered [--traces | --sampled | --control] [--quick]``.

It goes turn by turn. Two shops on servers of their own: one of them tells its metrics to a scrape each 5 s, as
Prometheus does by the rules that are shipped; or it traces one call in a hundred and sends the spans to a receiver.
What is compared is the processor time of a saga in all its processes, Postgres and NATS included, of one round;
whatever else the machine does bears on both. With ``--control`` nothing is on in either: by how much shops differ that
are alike.

Two shops differ by more than traces cost. So with ``--sampled`` there is one shop, which traces: its turns differ in
nothing but that of one of them one call in a hundred is traced by its caller, and its spans sent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from itertools import chain
from secrets import token_hex
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

from proof.bench import budget
from proof.bench.load import Call, Load, Spread
from proof.bench.receiving import receiver
from proof.bench.systems import METHOD, System, started
from stack.console import console
from stack.topology import ROOT
from twinlog.dev import free_port

SCRAPE_SECONDS = 5.0
SHARE = 0.01
"""Of the calls, those that are traced."""
_SCRAPES = 20
"""How many are measured by themselves."""
_AS_PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
_TIMEOUT_SECONDS = 5.0
_OFF, _ON = ROOT / ".data" / "bench-unmetered", ROOT / ".data" / "bench-metered"

Systems = Sequence[System]
"""Those of one shop; the first is the baseline, which shows nothing."""


class Size(NamedTuple):
    """How long it takes."""

    rounds: int
    orders: int
    """In each round, of each mode."""


FULL = Size(rounds=15, orders=4_000)
QUICK = Size(rounds=9, orders=1_000)


@asynccontextmanager
async def with_metrics() -> AsyncIterator[Systems]:
    """A shop that is scraped while the block runs; says at its end what a scrape costs by itself."""
    async with started(_ON, metrics=f"127.0.0.1:{free_port()}") as (shop, systems):
        urls = [f"http://{at}/metrics" for at in shop.metrics.values()]
        async with _scraped(urls):
            yield systems
        before = budget.spent_by(systems[-1])
        for _ in range(_SCRAPES):
            await _scrape(urls)
        spent = (budget.spent_by(systems[-1]) - before) / _SCRAPES
        console.print(f"a scrape of all {len(urls)} services: {spent / 1e3:.1f} ms of processor time")


@asynccontextmanager
async def with_traces() -> AsyncIterator[Systems]:
    """A shop that traces some calls; says at its end how many spans came."""
    with receiver() as received:
        traced = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(SHARE),
        }
        async with AsyncExitStack() as stack:
            with patch.dict(os.environ, traced):
                _, systems = await stack.enter_async_context(started(_ON))
            yield systems
        console.print(f"{received.spans:,} spans were received")


class OneInAHundred(Spread):
    """Calls by two connections, one in a hundred of them by the second, whose calls may be traced."""

    def __init__(self, address: str, traceparent: str) -> None:
        self._many = Load(address, METHOD, refusals=True)
        self._few = Load(address, METHOD, refusals=True, traceparent=traceparent)
        super().__init__(self._many, self._few)

    async def closed(self, messages: Sequence[bytes], clients: int) -> list[Call]:
        every = round(1 / SHARE)
        few = messages[::every]
        many = [each for place, each in enumerate(messages) if place % every]
        calls = await asyncio.gather(
            self._many.closed(many, clients), self._few.closed(few, max(1, clients // every))
        )
        return sorted(chain.from_iterable(calls), key=lambda call: call.due)


async def sampled(size: Size) -> None:
    """Prints what it costs that one call in a hundred is traced, in a shop that traces."""
    with receiver() as received:
        traced = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        }
        async with AsyncExitStack() as stack:
            with patch.dict(os.environ, traced):
                shop, systems = await stack.enter_async_context(started(_ON))
            for system in systems[1:]:
                unsampled, in_a_trace = (
                    replace(system, load=OneInAHundred(shop.orders, traceparent))
                    for traceparent in ("", f"00-{token_hex(16)}-{token_hex(8)}-01")
                )
                await _compared([unsampled, in_a_trace], "sampled calls", size)
        console.print(f"{received.spans:,} spans were received")


@asynccontextmanager
async def with_nothing() -> AsyncIterator[Systems]:
    """A shop as the other is."""
    async with started(_ON) as (_, systems):
        yield systems


_SHOWN: Mapping[str, Callable[[], AbstractAsyncContextManager[Systems]]] = {
    "metrics": with_metrics,
    "traces": with_traces,
    "nothing": with_nothing,
}


async def main(shown: str, size: Size) -> None:
    """Prints the medians of each mode."""
    if shown == "sampled":
        await sampled(size)
        return
    async with started(_OFF) as (_, off), _SHOWN[shown]() as on:
        for pair in list(zip(off, on, strict=True))[1:]:
            await _compared(pair, shown, size)


async def _compared(pair: Systems, shown: str, size: Size) -> None:
    """The first of the pair shows nothing."""
    spent: tuple[list[float], list[float]] = ([], [])
    for system in pair:
        await budget.of_sagas(system, size.orders)  # caches fill, statements get prepared
    for number in range(size.rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            _, parts = await budget.of_sagas(pair[which], size.orders)
            spent[which].append(sum(parts.values()))
    off, on = spent
    ratios = sorted(each / beside for beside, each in zip(off, on, strict=True))
    console.print(
        f"{pair[0].name}: {median(off):.0f} µs of processor time a saga with {shown} off, {median(on):.0f} on: "
        f"× {median(ratios):.3f} in the same round (middle half {ratios[len(ratios) // 4]:.3f} to "
        f"{ratios[-1 - len(ratios) // 4]:.3f}), × {sum(on) / sum(off):.3f} of all rounds together"
    )


@asynccontextmanager
async def _scraped(urls: Sequence[str]) -> AsyncIterator[None]:
    """Has every process scraped while the block runs."""

    async def scrape() -> None:
        while True:
            await _scrape(urls)
            await asyncio.sleep(SCRAPE_SECONDS)

    task = asyncio.ensure_future(scrape())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _scrape(urls: Sequence[str]) -> None:
    await asyncio.gather(*(asyncio.to_thread(_ask, url) for url in urls))


def _ask(url: str) -> None:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=_AS_PROMETHEUS), timeout=_TIMEOUT_SECONDS
    ) as answer:
        assert answer.read(), url


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m proof.bench.metered", description=__doc__)
    parser.add_argument("--traces", action="store_const", const="traces", default="metrics", dest="shown")
    parser.add_argument("--sampled", action="store_const", const="sampled", dest="shown")
    parser.add_argument("--control", action="store_const", const="nothing", dest="shown")
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    given = parser.parse_args()
    asyncio.run(main(given.shown, QUICK if given.quick else FULL))
