"""What metrics or traces cost: ``python -m proof.bench.metered [--sampled | --control] [--quick]``.

Shops on servers differ by more than metrics or traces cost, so there is one shop, which takes turns with itself. What
is compared is the processor time of a saga in all its processes, Postgres and NATS included, of one round; whatever
else the machine does bears on all its turns.

Metrics: in one turn nothing is counted; in another, all is counted ten times over (:mod:`proof.bench.switch`), of which
a tenth of the difference is what counting costs; in the third nothing is counted, and it is scraped again and again, of
which the difference is what so many scrapes cost. Prometheus scrapes each 5 s by the rules that are shipped. With
``--control`` nothing is ever counted or scraped: what is printed then is noise.

With ``--sampled`` the shop traces: its turns differ in nothing but that of one of them one call in a hundred is traced
by its caller, and its spans sent.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import math
import os
import re
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from itertools import chain, permutations
from secrets import token_hex
from statistics import median
from typing import NamedTuple
from unittest.mock import patch

from proof.bench import budget, measure
from proof.bench.load import Call, Load, Spread
from proof.bench.receiving import receiver
from proof.bench.switch import LAYERS, Switch, switched
from proof.bench.systems import METHOD, System, started
from stack.console import console
from stack.topology import ROOT
from twinlog.dev import free_port
from twinlog.observe.metrics.commands import CALLS

SCRAPE_SECONDS = 5.0
SHARE = 0.01
"""Of the calls, those that are traced."""
_PAUSE_SECONDS = 0.1
"""Between scrapes in a turn that has them."""
_AS_PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
_ANSWERED = re.compile(rf'^{CALLS.name}{{method="{METHOD}",reason="OK"}} (.+)$', re.MULTILINE)
_TIMEOUT_SECONDS = 5.0
_WARM_UPS = 3
_DATA = ROOT / ".data" / "bench-metered"

Systems = Sequence[System]


class Size(NamedTuple):
    """How long it takes."""

    rounds: int
    orders: int
    """In each turn, of each mode."""
    paired: int
    """Rounds of metrics, whose turns are shorter."""
    paired_orders: int


FULL = Size(rounds=15, orders=4_000, paired=40, paired_orders=1_000)
QUICK = Size(rounds=9, orders=1_000, paired=12, paired_orders=500)


class Turn(NamedTuple):
    """Sagas that ran together."""

    orders: int
    seconds: float
    spent: float
    """Microseconds of processor time, in all processes."""
    scrapes: int = 0

    @property
    def micros(self) -> float:
        """Of processor time, a saga."""
        return self.spent / self.orders

    @property
    def rate(self) -> float:
        """Sagas a second."""
        return self.orders / self.seconds

    @property
    def times(self) -> float:
        """How many times over it was scraped."""
        return self.scrapes * SCRAPE_SECONDS / self.seconds


class Round(NamedTuple):
    """Three turns, one after the other. What it tells are shares of the first."""

    off: Turn
    counted: Turn
    """Ten times over."""
    scraped: Turn

    @property
    def counting(self) -> float:
        """What counting adds to a saga's processor time."""
        return (self.counted.micros / self.off.micros - 1) / LAYERS

    @property
    def scraping(self) -> float:
        """What a scrape each 5 s adds to it."""
        return (self.scraped.micros / self.off.micros - 1) / self.scraped.times

    @property
    def rate(self) -> float:
        """What both add to the rate of sagas or, below 0, take from it."""
        counting = (self.counted.rate / self.off.rate - 1) / LAYERS
        return counting + (self.scraped.rate / self.off.rate - 1) / self.scraped.times

    @property
    def scrape(self) -> float:
        """Microseconds of one scrape of all services."""
        return (self.scraped.spent - self.off.spent) / self.scraped.scrapes


_ORDERS = [*permutations(Round._fields)]


class Middle(NamedTuple):
    """The median of what rounds give, its middle half, and between what the median lies with 95 %."""

    median: float
    half: tuple[float, float]
    sure: tuple[float, float]

    def __str__(self) -> str:
        told = (f"{low:+.2%} to {high:+.2%}" for low, high in (self.half, self.sure))
        return "{:+.2%} (middle half {}; 95 % sure: {})".format(self.median, *told)


def middle(values: Sequence[float]) -> Middle:
    """The middle of values of which nothing is assumed: the limits are those of the sign test."""
    ordered = sorted(values)
    count = len(ordered)
    away = math.ceil(0.98 * math.sqrt(count))
    low = max(0, count // 2 - away)
    return Middle(
        median(ordered),
        (ordered[count // 4], ordered[-1 - count // 4]),
        (ordered[low], ordered[-1 - low]),
    )


async def metrics(size: Size, *, control: bool) -> None:
    """Prints what it costs that a shop counts, and that it is scraped."""
    with switched(_DATA.with_suffix(".switch")) as switch:
        async with started(_DATA, metrics=f"127.0.0.1:{free_port()}") as (shop, systems):
            urls = [f"http://{at}/metrics" for at in shop.metrics.values()]
            for system in systems[1:]:
                measured = _Measured(system, size.paired_orders, switch, urls)
                await measured.check()
                rounds = [
                    await measured.round(number, control=control) for number in range(-_WARM_UPS, size.paired)
                ]
                _told(system.name, rounds[_WARM_UPS:])


def _told(name: str, rounds: Sequence[Round]) -> None:
    micros, rate = (
        median(of) for of in zip(*((each.off.micros, each.off.rate) for each in rounds), strict=True)
    )
    scrape = median(each.scrape for each in rounds) / 1e3
    console.print(
        f"{name}: {micros:.0f} µs of processor time a saga, {rate:.0f} sagas/s; a scrape: {scrape:.1f} ms"
    )
    for what, values in {
        "counting": [each.counting for each in rounds],
        "scrapes each 5 s": [each.scraping for each in rounds],
        "both": [each.counting + each.scraping for each in rounds],
        "sagas/s with both": [each.rate for each in rounds],
    }.items():
        console.print(f"  {what:17} {middle(values)}")


class _Measured(NamedTuple):
    system: System
    orders: int
    switch: Switch
    urls: Sequence[str]

    async def check(self) -> None:
        """Fails where the services do not obey the switch: then nothing would seem to cost anything."""
        for on in (False, True):
            self.switch.on = on
            before = await self._calls()
            await measure.rates(self.system, self.orders)
            counted = await self._calls() - before
            assert counted == (LAYERS * self.orders if on else 0), f"{counted} calls are counted, {on=}"

    async def _calls(self) -> int:
        pages = await _scrape(self.urls)
        return sum(int(float(found)) for page in pages for found in _ANSWERED.findall(page))

    async def round(self, number: int, *, control: bool) -> Round:
        """Three turns, in an order that changes from round to round."""
        turns: dict[str, Turn] = {}
        for kind in _ORDERS[number % len(_ORDERS)]:
            self.switch.on = kind == "counted" and not control
            turns[kind] = await self._turn([] if control else self.urls, scrapes=kind == "scraped")
        return Round(**turns)

    async def _turn(self, urls: Sequence[str], *, scrapes: bool) -> Turn:
        before = budget.spent_by(self.system)
        async with _scraped(urls, _PAUSE_SECONDS if scrapes else math.inf) as done:
            rates = await measure.rates(self.system, self.orders)
        spent = budget.spent_by(self.system) - before
        return Turn(self.orders, self.orders / rates.sagas, spent, len(done))


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
                shop, systems = await stack.enter_async_context(started(_DATA))
            for system in systems[1:]:
                unsampled, in_a_trace = (
                    replace(system, load=OneInAHundred(shop.orders, traceparent))
                    for traceparent in ("", f"00-{token_hex(16)}-{token_hex(8)}-01")
                )
                await _compared([unsampled, in_a_trace], "sampled calls", size)
        console.print(f"{received.spans:,} spans were received")


async def _compared(pair: Systems, shown: str, size: Size) -> None:
    """The first of the pair has none."""
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
async def _scraped(urls: Sequence[str], pause_seconds: float) -> AsyncIterator[Sequence[object]]:
    """Has every process scraped again and again while the block runs, and not at all where the pause is infinite.

    Gives one entry for each time.
    """
    done: list[object] = []
    ended = asyncio.Event()

    async def scrape() -> None:
        while pause_seconds < math.inf and not ended.is_set():
            done.append(await _scrape(urls))
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), pause_seconds)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(scrape())
        try:
            yield done
        finally:
            ended.set()


async def _scrape(urls: Sequence[str]) -> Sequence[str]:
    return await asyncio.gather(*(asyncio.to_thread(_ask, url) for url in urls))


def _ask(url: str) -> str:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=_AS_PROMETHEUS), timeout=_TIMEOUT_SECONDS
    ) as answer:
        page = gzip.decompress(answer.read()).decode()
    assert page, url
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m proof.bench.metered", description=__doc__)
    parser.add_argument("--sampled", action="store_true", help="what it costs that some calls are traced")
    parser.add_argument("--control", action="store_true", help="nothing is ever on: what is printed is noise")
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    asyncio.run(sampled(size) if given.sampled else metrics(size, control=given.control))
