"""A newcomer and the running shop, in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Browser, Page, expect

from shop.customers.v1 import events_pb2 as customers
from shop.orders.v1 import events_pb2 as orders
from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED
from shop.sagas.v1 import commands_pb2 as commands
from stack.try_it.calls import amount, money, share, written
from stack.try_it.picture import MEANINGS
from tests.console.browser import Window, window
from tests.e2e.client import Client
from tests.waiting import until
from twinlog.v1 import saga_pb2 as sagas

pytestmark = pytest.mark.asyncio(loop_scope="package")

ORDER = re.compile(r"/try/orders/([0-9a-f-]{36})")


async def choose(page: Page, mode: str) -> None:
    """Switches the shop's mode."""
    await page.get_by_role("button", name=mode, exact=True).click()
    await expect(page.locator("#outcome")).to_contain_text(f"New orders are run in {mode}")
    await expect(page.get_by_role("button", name=mode, exact=True)).to_have_attribute("aria-pressed", "true")


async def try_one(page: Page, title: str) -> str:
    """Clicks on a scenario; gives the id of its order, whose page is shown then."""
    await page.get_by_role("button", name=title).click()
    await page.wait_for_url(ORDER)
    found = ORDER.search(page.url)
    assert found
    return found[1]


@pytest.mark.parametrize(
    ("mode", "last"), [("choreography", "OrderApproved"), ("orchestration", "SagaCompleted")]
)
async def test_a_newcomer_sees_an_order_approved(
    window: Window, client: Client, mode: str, last: str
) -> None:
    page = await window.open()
    await page.get_by_role("link", name="Try it").first.click()
    await choose(page, mode)
    order_id = await try_one(page, "An order that fits")
    state = page.locator(".run-state")
    await expect(state).to_contain_text("PENDING")
    await expect(state).to_contain_text("APPROVED")
    await expect(state).to_contain_text("s after it was created")
    await expect(page.locator(".lanes-type").last).to_have_text(last)
    await expect(page.locator("h1")).to_contain_text(mode)
    assert (await client.get(order_id)).state == ORDER_STATE_APPROVED

    async def all_are_shown() -> bool:  # the view reads each log at a pace of its own
        there = [f"{entry.log}/{entry.position}" for entry in await client.timeline(order_id)]
        return await page.locator(".lanes-at").all_inner_texts() == there

    await until(all_are_shown)
    await page.get_by_role("link", name="Its saga" if mode == "orchestration" else "Its story").click()
    await expect(page.locator(".wide a.l-box", has_text="OrderApproved")).to_be_visible()


async def test_the_same_order_in_the_other_mode_is_shown_beside(window: Window) -> None:
    page = await window.open("/try")
    await choose(page, "choreography")
    first = await try_one(page, "An order that fits")
    await page.get_by_role("button", name="The same in orchestration").click()
    await page.wait_for_url(re.compile(f"beside={first}"))
    await expect(page.locator(".run-state", has_text="APPROVED")).to_have_count(2)
    headings = page.locator("h1")
    await expect(headings.first).to_contain_text("orchestration")
    await expect(headings.last).to_contain_text("choreography")


async def test_one_is_refused_and_one_is_cancelled_in_flight(window: Window) -> None:
    page = await window.open("/try")
    await try_one(page, "One that is refused")
    await expect(page.locator(".run-state")).to_contain_text("REJECTED")
    await expect(page.locator(".run-state")).to_contain_text("INSUFFICIENT_CREDIT")
    await page.get_by_role("link", name="Try it").first.click()
    for mode in ("choreography", "orchestration"):
        await choose(page, mode)
        await try_one(page, "Cancel in flight")
        await expect(page.locator(".run-state")).to_contain_text("CANCELLED")
        await expect(page.locator(".run-state")).to_contain_text("15.00 EUR of 15.00 EUR free")
        await expect(page.locator(".lanes-type", has_text="OrderCancelled")).to_be_visible()
        await page.get_by_role("link", name="Try it").first.click()


async def test_an_order_waits_for_a_service_and_is_seen_to_go_on(window: Window, client: Client) -> None:
    page = await window.open("/try")
    await choose(page, "choreography")
    customer = await client.customer("50")
    await expect(page.locator(f"#customer-{customer}")).to_have_count(1)
    async with client.without("customer_svc"):  # which makes no customer then: an earlier one orders
        await try_one(page, "An order that fits")
        state = page.locator(".run-state")
        await expect(state).to_contain_text("waits for customer_svc")
        await expect(page.locator(".lanes-type")).to_have_count(1)
    await expect(state).to_contain_text("APPROVED")  # by itself: nobody loads the page again
    await expect(page.locator(".lanes-type")).to_have_text(
        ["OrderCreated", "CreditReserved", "OrderApproved"]
    )


async def test_an_order_that_waits_is_cancelled_by_a_click(window: Window, client: Client) -> None:
    page = await window.open("/try")
    await choose(page, "orchestration")
    customer = await client.customer("50")
    async with client.without("customer_svc"):
        order = await client.create(customer, "12.34")
        await window.open(f"/try/orders/{order.order_id}?token={order.consistency_token}")
        await page.get_by_role("button", name="Cancel it").click()
        await expect(page.locator("#outcome")).to_contain_text("Cancelled")
        await expect(page.locator(".run-state")).to_contain_text("CANCELLED")
    await expect(page.locator(".lanes-type").last).to_have_text("SagaCompensated")


async def test_an_order_and_a_customer_of_ones_own(window: Window) -> None:
    page = await window.open("/try")
    await page.get_by_label("Name").fill("Grace <b>Hopper</b>")
    await page.get_by_label("Credit limit, EUR").fill("1,000.00")
    await page.get_by_role("button", name="Create").click()
    await expect(page.locator("#outcome")).to_contain_text("Which credit limit?")
    await page.get_by_label("Credit limit, EUR").fill("1000")
    await page.get_by_role("button", name="Create").click()
    await expect(page.locator("#outcome")).to_contain_text("Grace <b>Hopper</b> may owe 1\u202f000.00 EUR")
    choice = page.locator("option", has_text="Grace <b>Hopper</b>")
    await expect(choice).to_have_count(1)
    await page.locator("select[name=customer_id]").select_option(await choice.get_attribute("value"))
    await page.get_by_label("Total, EUR").fill("-1")
    await page.get_by_role("button", name="Order", exact=True).click()
    await expect(page.locator("#outcome")).to_contain_text("order_svc:")
    await page.get_by_label("Total, EUR").fill("999,99")
    await page.locator("select[name=mode]").select_option("orchestration")
    await page.get_by_role("button", name="Order", exact=True).click()
    await page.wait_for_url(ORDER)
    await expect(page.locator(".run-state")).to_contain_text("0.01 EUR of 1\u202f000.00 EUR free")


async def test_it_works_without_javascript(chromium: Browser, console: str) -> None:
    async with window(chromium, console, javascript=False) as opened:
        page = await opened.open("/try")
        await page.get_by_role("button", name="choreography", exact=True).click()
        await expect(page.locator("#outcome")).to_contain_text("New orders are run in choreography")
        await try_one(page, "One that is refused")
        await expect(page.locator("h1")).to_contain_text("99.00 EUR")
        await expect(page.locator(".lanes-type").first).to_have_text("OrderCreated")


async def test_the_pages_are_accessible_and_as_wide_as_their_window(window: Window) -> None:
    page = await window.open("/try")
    await _looks_well(window)
    await try_one(page, "Cancel in flight")
    await _looks_well(window)


async def _looks_well(window: Window) -> None:
    """The page that is shown, once all of it is there."""
    await expect(window.page.locator("h1")).to_be_visible()
    await window.page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
    await window.accessible_and_fits()


async def test_an_order_that_is_not_there_says_so_in_place(window: Window) -> None:
    window.expected.append("404")
    page = await window.open("/try/orders/00000000-0000-7000-8000-000000000000")
    await expect(page.locator("main")).to_contain_text("is not in the view")


async def test_amounts_are_read_and_written() -> None:
    for text, units, nanos in (
        ("12.34", 12, 340_000_000),
        ("0,05", 0, 50_000_000),
        ("-1.5", -2, 500_000_000),
    ):
        found = money(text)
        assert found is not None
        assert (found.units, found.nanos) == (units, nanos)
    assert money("a lot") is money("") is money("1e999999") is money("NaN") is money("9" * 40) is None
    limit, held = money("10"), money("2.50")
    assert limit and held
    assert (amount(held), share(held, limit)) == ("2.50 EUR", 0.25)
    long = money("9000.3456")
    assert long
    assert (amount(long), written(long)) == ("9\u202f000.3456 EUR", "9000.3456")


async def test_every_event_that_a_saga_may_have_says_what_it_means() -> None:
    files = (orders.DESCRIPTOR, customers.DESCRIPTOR, commands.DESCRIPTOR, sagas.DESCRIPTOR)
    types = {name for file in files for name in file.message_types_by_name}
    of_no_saga = {"SagaModeChanged", "CustomerCreated", "CreditLimitChanged", "CustomerErased", "SagaAwaited"}
    of_no_step = {"SagaAnswerKept"}  # none waits for a person
    assert set(MEANINGS) == types - of_no_saga - of_no_step
