"""Screenshots of the console's pages for the documentation: `make screenshots`.

Most are of a shop in memory; those of what one can try are of one in processes of its own.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import structlog
from playwright.async_api import Page, expect

from stack.shop import running
from stack.topology import CONSOLE_PAGES, ROOT
from tests.console.browser import PHONE, Window, browser, window
from tests.console.shop import ServedShop, served
from tests.console.test_dead_letters import poisoned
from tests.servers import folder
from twinlog.console.process import pages_of, serving

FOLDER = ROOT / "docs" / "console"
_CALM_SECONDS = 60.0


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
            await _shoot(page, "map-silent", wrong=True)
            shop.services["customer_svc"].resume()
        async with window(chromium, url, scheme="dark") as opened:
            await _shoot(await opened.open("/"), "map-dark")
        async with window(chromium, url, size=PHONE) as opened:
            await _shoot(await opened.open("/"), "map-phone")
    async with served(now) as shop, browser() as chromium, serving(shop.addresses) as url:
        await poisoned(shop)
        async with window(chromium, url) as opened:
            await _shoot(await opened.open("/dead-letters"), "dead-letters", wrong=True)
    await _tried()


async def _tried() -> None:
    """The page to try the shop, and one order in both modes, side by side."""
    with folder() as data:
        async with (
            running(lambda _line: None, data=data) as shop,
            serving(shop.addresses, added=pages_of(",".join(CONSOLE_PAGES))) as url,
            browser() as chromium,
            window(chromium, url) as opened,
        ):
            page = await opened.open("/try")
            for scenario in ("An order that fits", "Cancel in flight", "One that is refused"):
                await page.get_by_role("button", name=scenario).click()
                await expect(page.locator(".run-state")).not_to_contain_text("waits for")
                await page.get_by_role("link", name="Try it").first.click()
            await _shoot(page, "try")
            await page.get_by_role("button", name="An order that fits").click()
            await page.get_by_role("button", name="The same in orchestration").click()
            await expect(page.locator(".run-state", has_text="APPROVED")).to_have_count(2)
            await page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
            await _shoot(page, "try-order")


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
        "sagas": "/sagas?state=all",
        "log": "/log?log=orders",
        "event": "/log/orders/1",
        "stream": f"/log/orders/stream/order/{order}",
        "views": "/views",
        "past": f"/past?stream=order/{order}&at=2&since=1",
    }
    for name, path in pages.items():
        await _shoot(await opened.open(path), name)
    page = await opened.open(pages["sagas"])
    await page.locator("a[data-row]").first.click()
    await expect(page.locator(".wide a.l-box").last).to_be_visible()
    await _shoot(page, "saga")
    page = await opened.open("/views/projector/orders")
    await page.get_by_role("button", name="Rebuild …").click()
    await page.get_by_role("button", name="Begin to build").click()
    await expect(page.locator("#rebuild-2")).to_contain_text("It has caught up")
    await page.get_by_role("button", name="Switch to it …").click()
    await expect(page.locator("#outcome")).to_contain_text("rows compared")
    await _shoot(page, "rebuild")


async def _shoot(page: Page, name: str, *, wrong: bool = False) -> None:
    """``wrong``: something is, and the picture shows it. On a busy machine a service may be late in any other."""
    await page.wait_for_timeout(500)
    if not wrong:
        await expect(page.locator(".health").first).to_contain_text(
            "All is well", timeout=_CALM_SECONDS * 1e3
        )
    await page.screenshot(path=FOLDER / f"{name}.png")
    print(f"docs/console/{name}.png")


if __name__ == "__main__":
    asyncio.run(main())
