"""Pages that change while somebody reads them."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing

import pytest
from playwright.async_api import Browser, expect

from tests.console.browser import Window, window
from tests.console.shop import ServedShop
from tests.waiting import until
from twinlog.console import live
from twinlog.console.live import Live, tag_of
from twinlog.console.process import serving

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are loaded again without a pause to speak of."""
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.0)


async def test_many_viewers_of_a_page_have_one_loader_and_each_is_sent_each_state_once(at_once: None) -> None:
    streams, loads, state = Live(), 0, "first"

    async def render() -> str:
        nonlocal loads
        loads += 1
        return state

    async def viewer() -> list[str]:
        seen: list[str] = []
        async with aclosing(streams.stream("/page", "", render)) as events:
            async for event in events:
                if event.startswith(b"event: page"):
                    seen.append(event.decode().splitlines()[1])
                if len(seen) == 2:
                    break
        return seen

    watching = [asyncio.create_task(viewer()) for _ in range(20)]
    await until(lambda: loads > 3)
    assert streams.loaders == 1
    state = "second"
    assert await asyncio.gather(*watching) == [["data: first", "data: second"]] * 20
    assert streams.loaders == 0
    before = loads
    await asyncio.sleep(0.2)
    assert loads <= before + 1


async def test_who_has_the_newest_state_is_only_told_that_the_stream_lives(at_once: None) -> None:
    streams = Live()

    async def render() -> str:
        return "same"

    async with aclosing(streams.stream("/page", tag_of("same"), render)) as events:
        assert (await anext(events)).startswith(b"event: tick")
        assert (await anext(events)).startswith(b"event: tick")


async def test_how_long_ago_something_was_is_no_change() -> None:
    moment = '<time datetime="2026-01-01" data-time="ago">{}</time>'
    assert tag_of(moment.format("1 s ago")) == tag_of(moment.format("2 s ago"))
    assert tag_of(moment) != tag_of(moment.replace("2026", "2025"))


async def test_the_map_shows_what_is_appended(window: Window, shop: ServedShop) -> None:
    page = await window.open()
    events = page.locator("#service-order_svc .strong")
    await expect(events).to_have_text("0")
    await shop.orders(5)
    await expect(events).to_have_text("10")


async def test_what_is_selected_stays_and_the_page_goes_on_afterwards(
    window: Window, shop: ServedShop
) -> None:
    await shop.orders(1)
    page = await window.open("/log?log=orders")
    rows = page.locator("#tail tr")
    await expect(rows).to_have_count(2)
    await page.evaluate("getSelection().selectAllChildren(document.querySelector('#e-1 td:nth-child(3)'))")
    await shop.orders(1)
    await expect(page.locator("#held")).to_be_visible()
    assert await page.evaluate("getSelection().toString().trim()") == "OrderCreated"
    await expect(rows).to_have_count(2)
    await page.evaluate("getSelection().removeAllRanges()")
    await expect(rows).to_have_count(4)
    await expect(page.locator("#held")).to_be_hidden()


async def test_a_live_tail_does_not_move_what_is_read(window: Window, shop: ServedShop) -> None:
    await shop.orders(30)
    page = await window.open("/log?log=orders")
    await expect(page.locator("#tail tr")).to_have_count(60)
    await expect(page.locator("#chain")).to_contain_text(
        "1 to 60"
    )  # it stands above, and is linked by and by
    row = page.locator("#e-20")
    await row.scroll_into_view_if_needed()
    before = await row.bounding_box()
    await shop.orders(2)
    new = page.locator("[data-tail-new]")
    await expect(new).to_have_text("4 new")
    assert await row.bounding_box() == before
    await new.click()
    await expect(page.locator("#e-64")).to_be_visible()
    await expect(new).to_be_hidden()
    assert await page.evaluate("scrollY") == 0


async def test_focus_what_is_typed_and_what_is_open_stay_under_a_burst(
    window: Window, shop: ServedShop
) -> None:
    [order] = await shop.orders(1)
    page = await window.open("/log?log=orders")
    await page.keyboard.press("/")
    await page.keyboard.type("order/not yet sent")
    await shop.orders(20)
    await expect(page.locator("#tail tr")).to_have_count(42)
    stream = page.locator("[data-filter]")
    await expect(stream).to_be_focused()
    await expect(stream).to_have_value("order/not yet sent")
    await page.goto(f"{window.url}/log/orders/stream/order/{order}")
    first = page.locator("#v-1 details")
    await first.locator("summary").click()
    await shop.orders(2)
    await asyncio.sleep(1.5)
    await expect(first).to_have_attribute("open", "")


async def test_paused_it_stays_as_it_is(window: Window, shop: ServedShop) -> None:
    await shop.orders(1)
    page = await window.open("/log?log=orders")
    await page.keyboard.press("p")
    pause = page.locator("[data-pause]")
    await expect(pause).to_have_attribute("aria-pressed", "true")
    await shop.orders(1)
    await asyncio.sleep(1.5)
    await expect(page.locator("#tail tr")).to_have_count(2)
    await pause.click()
    await expect(page.locator("#tail tr")).to_have_count(4)


async def test_a_console_that_is_away_is_told_and_found_again(chromium: Browser, shop: ServedShop) -> None:
    async with serving(shop.addresses) as url:
        address = url.removeprefix("http://")
        opened = window(chromium, url)
        watched = await opened.__aenter__()
        page = await watched.open()
        await expect(page.locator("#service-order_svc")).to_be_visible()
    try:
        watched.expected += ["Failed to load resource", "net::ERR", "EventSource"]
        before = await page.locator("h1").bounding_box()
        await expect(page.locator("#cut")).to_be_visible()
        await expect(page.locator("#cut-at")).to_have_text(re.compile("ago$"))
        assert await page.locator("h1").bounding_box() == before
        async with serving(shop.addresses, address):
            await expect(page.locator("#cut")).to_be_hidden()
            await shop.orders(1)
            await expect(page.locator("#service-order_svc .strong")).to_have_text("2")
    finally:
        await opened.__aexit__(None, None, None)


async def test_more_windows_are_live_than_a_browser_has_connections(window: Window, shop: ServedShop) -> None:
    await shop.orders(1)
    pages = [await window.page.context.new_page() for _ in range(7)]
    for page in pages:
        await page.goto(f"{window.url}/log?log=orders")
    await shop.orders(1)
    for page in pages:
        await expect(page.locator("#e-4")).to_be_visible()
    await pages[0].close()  # and another has its seat
    await shop.orders(1)
    for page in pages[1:]:
        await expect(page.locator("#e-6")).to_be_visible()
