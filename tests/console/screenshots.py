"""Screenshots of the console's pages for the documentation: `python -m tests.console.screenshots`, or make screenshots.

They are of a shop in memory, in which customer_svc has just stopped to answer while an order waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import structlog
from playwright.async_api import Page, expect

from stack.topology import ROOT
from tests.console.browser import PHONE, Window, browser, window
from tests.console.shop import ServedShop, served
from twinlog.console.process import serving

FOLDER = ROOT / "docs" / "console"


async def main() -> None:
    """Writes all pictures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    FOLDER.mkdir(exist_ok=True)
    now = datetime.now(UTC) - timedelta(minutes=3)
    async with served(now) as shop, browser() as chromium, serving(shop.addresses) as url:
        order = await _history(shop)
        async with window(chromium, url) as opened:
            await _all(opened, order)
            shop.services["customer_svc"].hang()
            page = await opened.open("/")
            await expect(page.locator("#service-customer_svc")).to_contain_text("no answer")
            await _shoot(page, "map-silent")
            shop.services["customer_svc"].resume()
        async with window(chromium, url, scheme="dark") as opened:
            await _shoot(await opened.open("/"), "map-dark")
        async with window(chromium, url, size=PHONE) as opened:
            await _shoot(await opened.open("/"), "map-phone")


async def _history(shop: ServedShop) -> str:
    """Some orders in both modes; gives one of the orchestrated."""
    for _ in range(6):
        await shop.orders(1)
        shop.shop.clock.advance(timedelta(milliseconds=2_345))
    await shop.mode()
    for _ in range(4):
        [order] = await shop.orders(1)
        shop.shop.clock.advance(timedelta(milliseconds=3_456))
    return order


async def _all(opened: Window, order: str) -> None:
    pages = {
        "map": "/",
        "service": "/services/customer_svc",
        "sagas": "/sagas?status=all",
        "dead-letters": "/dead-letters",
        "log": "/log?log=orders",
        "event": "/log/orders/1",
        "stream": f"/log/orders/stream/order/{order}",
        "views": "/views",
    }
    for name, path in pages.items():
        await _shoot(await opened.open(path), name)


async def _shoot(page: Page, name: str) -> None:
    await page.wait_for_timeout(500)
    await page.screenshot(path=FOLDER / f"{name}.png")
    print(f"docs/console/{name}.png")


if __name__ == "__main__":
    asyncio.run(main())
