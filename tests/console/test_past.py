"""The time machine in the browser: a stream at any moment, what has changed, and what else was there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.async_api import Browser, expect

from tests.console.browser import Window, window
from tests.console.shop import ServedShop
from twinlog.console import reading
from twinlog.log import time_travel
from twinlog.rpc import state_parts

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_an_order_is_shown_as_it_was_with_what_else_was_there(window: Window, shop: ServedShop) -> None:
    [order] = await shop.orders(1)
    page = await window.open(f"/past?stream=order/{order}&at=1&since=2")
    state = page.locator("pre.json").first
    await expect(state).to_contain_text("pending")
    await expect(page.locator(".change").filter(has_text="approved")).to_contain_text("pending")
    await expect(page.get_by_text("orders/1", exact=True).first).to_be_visible()
    await page.get_by_role("link", name="2 →").click()
    await expect(state).to_contain_text("approved")
    for name, then in (("← 1", "pending"), ("Now", "approved"), ("First", "pending"), ("2 →", "approved")):
        await page.get_by_role("link", name=name, exact=True).click()
        await expect(state).to_contain_text(then)
        await page.reload()
        await expect(state).to_contain_text(then)
    beside = page.locator(".past-beside")
    await expect(beside).to_have_count(1)
    await expect(beside).to_contain_text("CreditReserved")
    await beside.locator("summary").click()
    await page.get_by_role("link", name="Go there").click()
    await expect(page.get_by_label("Which moment")).to_contain_text("CreditReserved")
    await window.accessible()


async def test_the_slider_and_the_form_work_without_javascript(
    chromium: Browser, shop: ServedShop, console: str
) -> None:
    [order] = await shop.orders(1)
    async with window(chromium, console, javascript=False) as opened:
        page = await opened.open("/past")
        await page.get_by_label("Stream").fill(f"order/{order}")
        await page.get_by_role("button", name="Go").click()
        await expect(page.get_by_label("Which moment")).to_contain_text("version 2 of 2")
        await page.get_by_role("slider", name="Version").fill("1")
        await page.get_by_role("button", name="Show").click()
        await expect(page.get_by_label("Which moment")).to_contain_text("version 1 of 2")
        await page.get_by_role("link", name="Now").click()
        await page.get_by_role("link", name="What did this event change?").click()
        await expect(page.get_by_role("heading", name="Changed since version 1")).to_be_visible()


async def test_what_changed_between_two_moments_is_asked_for_in_the_form(
    window: Window, shop: ServedShop
) -> None:
    [order] = await shop.orders(1)
    page = await window.open("/past")
    await page.get_by_label("Stream").fill(f"order/{order}")
    await page.get_by_label("At", exact=True).fill("2")
    await page.get_by_label("Changed since").fill("orders/1")
    await page.get_by_role("button", name="Go").click()
    await expect(page.get_by_role("heading", name="Changed since version 1")).to_be_visible()
    await expect(page.locator(".change").filter(has_text="pending")).to_contain_text("approved")


async def test_who_is_silent_is_named_where_a_moment_needs_all_logs(window: Window, shop: ServedShop) -> None:
    [order] = await shop.orders(1)
    map = await window.open("/")
    shop.services["customer_svc"].hang()
    await expect(map.locator("#service-customer_svc")).to_contain_text("no answer")
    page = await window.open(f"/past?stream=order/{order}")
    await expect(page.get_by_label("Which moment")).to_contain_text("version 2 of 2")
    await expect(page.locator(".note")).to_contain_text("customer_svc: no answer")


async def test_what_is_no_moment_and_no_stream_is_said(window: Window, shop: ServedShop) -> None:
    window.expected.append("404")
    [order] = await shop.orders(1)
    for asked, said in (
        (f"order/{order}&at=yesterday", "'yesterday' is no moment; write a version (12)"),
        (f"order/{order}&at=2000-01-01", "was not there by then"),
        (f"order/{order}&at=0", "'0' is no moment"),
        (f"order/{order}&at=-1", "'-1' is no moment"),
        (f"order/{order}&at=999999d", "'999999d' is no moment"),
        (f"order/{order}&at=2147483648", "a version (12) of up to 2,147,483,647"),
        (f"order/{order}&at=0001-01-01T00:00:00%2B05:00", "is no moment"),
        (
            f"order/{order}&at=customers/1",
            "is in log orders: name a position of that, or a time, not one of customers",
        ),
        (f"order/{order}&since=customers/1", "is in log orders"),
        (f"order/{order}&at=9000-01-01", "has not come yet, so this is how it is now"),
        (f"order/{order}&at=99", "has not come yet, so this is how it is now"),
        ("order", "is no stream: write type/id"),
        ("order/x", "No service that answers has a stream order/x"),
    ):
        page = await window.open(f"/past?stream={asked}")
        await expect(page.locator("main")).to_contain_text(said)


async def test_a_large_state_is_shown_in_part_with_a_way_to_the_rest(
    window: Window, shop: ServedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_parts, "MOST_ENTRIES", 2)
    await shop.orders(5)
    stream = shop.shop.logs["customers"].events[-1].stream
    for path in (f"/past?stream={stream}", f"/log/customers/stream/{stream}"):
        page = await window.open(path)
        state = page.locator("#state")
        await expect(state).to_contain_text("holds has 5 entries; shown are 1 to 2.")
        await expect(state).to_contain_text("and 3 more")
        await page.get_by_role("link", name="next 2 →").click()
        await expect(state).to_contain_text("shown are 3 to 4.")
        await page.get_by_role("link", name="next 1 →").click()
        await expect(state).to_contain_text("shown are 5 to 5.")
        await page.get_by_role("link", name="← before").click()
        await expect(state).to_contain_text("shown are 1 to 2.")
    await window.accessible_and_fits()


async def test_a_state_that_takes_long_to_fold_comes_by_itself(
    window: Window, shop: ServedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_AT_ONCE", timedelta())
    monkeypatch.setattr(time_travel, "_FOLDED_AT_ONCE", 1)
    [order] = await shop.orders(1)
    customer = shop.shop.logs["customers"].events[-1].stream
    for path, more in (
        (f"/past?stream={customer}&since=1", "Changed since version 1"),
        (f"/log/orders/stream/order/{order}", "pending"),
        ("/log/customers/2", "What it changed"),
    ):
        first = await window.page.goto(f"{window.url}{path}")
        assert first
        assert "events are folded so far" in await first.text(), path
        await expect(window.page.locator("#state pre")).to_be_visible()
        await expect(window.page.get_by_text("events are folded so far")).to_have_count(0)
        await expect(window.page.locator("main")).to_contain_text(more)
