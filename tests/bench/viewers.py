"""What a console costs while it is watched: ``python -m tests.bench.viewers [SECONDS]``.

Over a running shop, twenty viewers hold a live stream each: of one page, of four, of twenty, and of twenty while orders
are made. Printed is the console's processor time as a share of one core, with how many pages it sent meanwhile. Then,
where there is a Chromium: when a page is painted first, in a browser that has seen nothing yet and in one that has its
files, and how much of that it waited for the console; beside it a bare page, of two letters, that the console does not
even think about.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from statistics import median
from urllib.parse import urlsplit

import psutil

from saga_orchestrator.credit_saga import saga_id
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from stack.shop import Shop, running
from stack.topology import CONSOLE_PAGES
from tests import chromium
from tests.console.browser import browser, window
from tests.e2e.client import Client, connect
from tests.servers import folder
from twinlog.dev import free_port
from twinlog.dev.process import stop

VIEWERS = 20
_SECONDS = 15.0
_ORDERS_PER_SECOND = 2
_SETTLE_SECONDS = 3.0
_PAINTS = 5


async def main(seconds: float) -> None:
    """Prints all figures."""
    with folder() as data:
        async with running(lambda _line: None, data=data, quiet=True) as shop, connect(shop) as client:
            pages = await _pages(client)
            async with _console(shop) as (url, process):
                await _paints(url)
                for name, watched, meanwhile in (
                    ("one page", ["/"] * VIEWERS, asyncio.sleep),
                    ("four pages", [*pages[:4]] * (VIEWERS // 4), asyncio.sleep),
                    ("twenty pages", pages, asyncio.sleep),
                    ("twenty pages, while orders are made", pages, lambda s: _orders(client, s)),
                ):
                    await _measured(name, url, process, watched, meanwhile, seconds)


async def _pages(client: Client) -> Sequence[str]:
    """Twenty URLs of all kinds."""
    customer = await client.customer("100000")
    orders = [
        await client.create(customer, "1", mode)
        for _ in range(4)
        for mode in (SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION)
    ]
    for order in orders:
        await client.happened(order.order_id, "OrderApproved", token=order.consistency_token)
    lists = ["/", "/sagas?state=all", "/log?log=orders", "/views", "/dead-letters", "/sagas"]
    logs = ["/log?log=customers", "/log?log=sagas"]
    services = [f"/services/{name}" for name in client.shop.addresses]
    sagas = [f"/sagas/credit/{saga_id(order.order_id)}" for order in orders[1::2]]
    stories = [f"/story/orders/{position}" for position in (1, 3)]
    streams = [f"/log/orders/stream/order/{order.order_id}" for order in orders[:2]]
    found = [*lists, *logs, *services, *sagas, *stories, *streams]
    assert len(found) == VIEWERS
    return found


async def _orders(client: Client, seconds: float) -> None:
    """Makes orders in both modes, so many a second."""
    customer, until = await client.customer("100000"), asyncio.get_running_loop().time() + seconds
    mode = SAGA_MODE_CHOREOGRAPHY
    while asyncio.get_running_loop().time() < until:
        mode = SAGA_MODE_CHOREOGRAPHY if mode == SAGA_MODE_ORCHESTRATION else SAGA_MODE_ORCHESTRATION
        await client.create(customer, "1", mode)
        await asyncio.sleep(1 / _ORDERS_PER_SECOND)


@asynccontextmanager
async def _console(shop: Shop) -> AsyncIterator[tuple[str, psutil.Process]]:
    address = f"127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        "CONSOLE_ADDRESS": address,
        "CONSOLE_PAGES": ",".join(CONSOLE_PAGES),
        "TWINLOG_SERVICES": ",".join(f"{name}={at}" for name, at in shop.addresses.items()),
        "LOG_LEVEL": "warning",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "twinlog.console", env=environment)
    try:
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(*address.split(":"))
                writer.close()
                break
            await asyncio.sleep(0.05)
        yield f"http://{address}", psutil.Process(process.pid)
    finally:
        await stop(process, seconds=5)


async def _measured(
    name: str,
    url: str,
    process: psutil.Process,
    pages: Sequence[str],
    meanwhile: Callable[[float], Awaitable[None]],
    seconds: float,
) -> None:
    sent = [0]
    viewers = [asyncio.create_task(_view(url, page, sent)) for page in pages]
    try:
        await asyncio.sleep(_SETTLE_SECONDS)
        began, before, sent[0] = asyncio.get_running_loop().time(), _spent(process), 0
        await meanwhile(seconds)
        took, spent = asyncio.get_running_loop().time() - began, _spent(process) - before
        print(
            f"{len(pages)} viewers, {name}: {spent / took:.1%} of a core, {sent[0] / took:.1f} pages/s sent"
        )
    finally:
        for viewer in viewers:
            viewer.cancel()
        await asyncio.gather(*viewers, return_exceptions=True)


async def _view(url: str, page: str, sent: list[int]) -> None:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    reader, writer = await asyncio.open_connection(host, port)
    request = f"GET {page} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n\r\n"
    writer.write(request.encode())
    try:
        while chunk := await reader.read(1 << 20):
            sent[0] += chunk.count(b"event: page")
    finally:
        writer.close()


_PAINT = """() => new Promise((done) => new PerformanceObserver((list) => {
  const [page] = performance.getEntriesByType("navigation");
  const [paint] = list.getEntriesByName("first-contentful-paint");
  if (paint) done([page.responseStart, page.responseEnd, page.domContentLoadedEventStart, paint.startTime]);
}).observe({ type: "paint", buffered: true }))"""


async def _paints(url: str) -> None:
    if chromium.path() is None:
        return
    async with browser() as started:
        told: dict[str, list[Sequence[float]]] = {"first": [], "later": [], "bare": []}
        for _ in range(_PAINTS):
            async with window(started, url) as bare:
                bare.expected.append("404")  # of its icon
                page = await bare.open("/healthz")
                told["bare"].append(await page.evaluate(_PAINT))
            async with window(started, url) as opened:
                for name, path in (("first", "/"), ("later", "/views"), ("later", "/")):
                    page = await opened.open(path)
                    told[name].append(await page.evaluate(_PAINT))
        for name, times in told.items():
            first, last, ready, painted = (median(each) for each in zip(*times, strict=True))
            print(
                f"a {name} page is painted after {painted:.0f} ms (median of {len(times)}): the console answers after "
                f"{first:.0f} ms, has sent it after {last:.0f} ms, and it is read after {ready:.0f} ms"
            )


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else _SECONDS))
