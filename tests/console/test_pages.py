"""What holds for every page."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.async_api import Browser, expect

from stack.topology import CONSOLE_PAGES, ROOT
from tests.console.browser import PHONE, Window, window
from tests.console.shop import ServedShop
from twinlog.console.pages import PAGES
from twinlog.console.process import pages_of, serving
from twinlog.console.rendering import HERE
from twinlog.consume.cursor import Cursor

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATHS = [
    *(page.path for page in PAGES if page.navigation),
    "/services/customer_svc",
    "/views/projector/orders",
]


async def test_every_page_is_accessible_and_as_wide_as_its_window(window: Window, shop: ServedShop) -> None:
    order, *_ = await shop.orders(3)
    of_one = (
        "/log/orders/1",
        f"/log/orders/stream/order/{order}",
        f"/past?stream=order/{order}&at=2&since=1",
    )
    for path in (*PATHS, *of_one):
        page = await window.open(path)
        await expect(page.locator("h1")).to_be_visible()
        await window.accessible_and_fits()


async def test_what_held_up_a_consumer_stands_below_its_row(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "connection to the store was lost while the batch was read " * 8
    monkeypatch.setattr(Cursor, "last_error", said)
    page = await window.open("/services/customer_svc")
    await expect(page.locator("[id='error-customer_svc.orders']")).to_contain_text(said.strip())
    await expect(page.locator("[id='consumer-customer_svc.orders']")).not_to_contain_text("held up")
    await window.accessible_and_fits()


async def test_every_table_has_a_name() -> None:
    templates = [*(HERE / "templates").glob("*.html"), *(ROOT / "stack").rglob("*.html")]
    nameless = [
        f"{path.name}: {each}"
        for path in templates
        for each in re.findall(r"<table[^>]*>", path.read_text())
        if "aria-label" not in each
    ]
    assert not nameless, "\n".join(nameless)


async def test_where_nothing_has_happened_each_page_says_what_to_do(
    chromium: Browser, shop: ServedShop
) -> None:
    async with (
        serving(shop.addresses, added=pages_of(",".join(CONSOLE_PAGES))) as url,
        window(chromium, url) as opened,
    ):
        for path in ("/", "/sagas", "/log", "/past"):
            page = await opened.open(path)
            await page.locator("main").get_by_role("link", name="Try it").click()
            await expect(page).to_have_url(f"{url}/try")
        [order] = await shop.orders(1)
        page = await opened.open("/past")
        await page.locator("main").get_by_role("link", name=f"order/{order}").click()
        await expect(page.get_by_label("Which moment")).to_contain_text("version 2 of 2")
        # There is something by now.
        for path in ("/", "/log"):
            page = await opened.open(path)
            await expect(page.locator("main").get_by_role("link", name="Try it")).to_have_count(0)


_LITTLE = """() => [...document.querySelectorAll(".button, .tool, .segment, input, select, .stacked .wrap.muted")]
    .filter(each => each.getClientRects().length)
    .map(each => [each.className, each.textContent, each.getBoundingClientRect()])
    .filter(([name, _, box]) => name === "wrap muted" ? box.width < 200 : box.height < 44)
    .map(([name, text]) => `${name}: ${text}`)"""
"""What is less high than a finger needs, and texts of tables in narrow columns."""


async def test_on_a_phone_all_is_read_and_hit_while_a_service_has_never_answered(
    chromium: Browser, shop: ServedShop
) -> None:
    await shop.orders(1)
    shop.services["customer_svc"].hang()
    async with serving(shop.addresses) as url, window(chromium, url, size=PHONE) as opened:
        opened.expected.append("503")
        for path in (*PATHS, "/log?log=customers"):
            page = await opened.open(path)
            await expect(page.locator("h1")).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], path
            assert await page.evaluate("document.querySelector('.side').clientHeight") < 120, path
            assert await page.evaluate(_LITTLE) == [], path


async def test_times_say_their_zone_and_are_taken_in_it(window: Window, shop: ServedShop) -> None:
    await shop.orders(1)
    shop.shop.clock.advance(timedelta(hours=1))
    await shop.orders(1)
    # A context of each zone would have a process for its pages, too.
    browser = await window.page.context.new_cdp_session(window.page)
    for zone, said in (("Asia/Kolkata", "UTC+5:30"), ("America/Caracas", "UTC−4"), ("Etc/UTC", "UTC")):
        await browser.send("Emulation.setTimezoneOverride", {"timezoneId": zone})
        page = await window.open("/log?log=orders")
        await expect(page.locator("#zone")).to_have_text(said)
        await expect(page.locator("label", has_text="Since")).to_contain_text(f"({said})")
        recorded = await page.locator("#e-3 time").inner_text()
        since = page.get_by_label("Since")
        await since.fill(recorded)
        await page.get_by_role("button", name="Filter").click()
        await page.wait_for_url("**since=20*Z")
        await expect(page.locator("#tail tr")).to_have_count(2)
        assert recorded.startswith(await since.input_value())
    await browser.detach()


async def test_the_navigation_goes_everywhere_by_keys(window: Window) -> None:
    page = await window.open()
    for each in PAGES:
        if each.navigation:
            await page.keyboard.press("g")
            await page.keyboard.press(each.key)
            await page.wait_for_url(f"{window.url}{each.path}")
            current = page.locator(".side nav a[aria-current]")
            await expect(current).to_contain_text(each.navigation)


async def test_pages_work_without_javascript_and_on_paper(
    chromium: Browser, shop: ServedShop, console: str
) -> None:
    async with window(chromium, console, javascript=False) as opened:
        for path in PATHS:
            page = await opened.open(path)
            await expect(page.locator("h1")).to_be_visible()
        await page.emulate_media(media="print")
        await expect(page.locator("h1")).to_be_visible()
        await expect(page.locator(".side, form, .button, .copy").filter(visible=True)).to_have_count(0)


async def test_a_page_shows_that_a_service_hangs_and_that_it_is_back(
    window: Window, shop: ServedShop
) -> None:
    page = await window.open()
    service = page.locator("#service-customer_svc")
    await expect(service).not_to_contain_text("no answer")
    shop.services["customer_svc"].hang()
    await expect(service).to_contain_text("no answer")
    await expect(page.locator("#health")).to_contain_text("1 problem")
    await service.focus()
    await expect(service.locator("> rect")).to_have_css("stroke-width", "3px")
    await expect(service.locator("> rect")).to_have_css("stroke-dasharray", "none")
    shop.services["customer_svc"].resume()
    await expect(service).not_to_contain_text("no answer")
    await expect(page.locator("#health")).to_contain_text("All is well")
