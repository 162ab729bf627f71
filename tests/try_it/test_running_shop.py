"""A saga's page over the running shop, in processes of their own: one is paused, said so, and comes back."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from saga_orchestrator.credit_saga import saga_id
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from stack.shop import Shop
from tests.console.browser import window
from tests.e2e.client import Client, connect

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.fixture
def shop(client: Client) -> Shop:
    """The four services, supervised."""
    return client.shop


async def test_a_paused_owner_is_told_and_all_is_green_once_it_continues(
    chromium: Browser, shop: Shop, console: str
) -> None:
    async with connect(shop) as client, window(chromium, console) as opened:
        customer = await client.customer("1000")
        await _settled(client, customer)
        page = await opened.open("/sagas")
        owed = page.locator("#owed")
        async with client.without("customer_svc"):
            created = await client.create(customer, "1", SAGA_MODE_ORCHESTRATION)
            row = page.locator(f"#saga-{saga_id(created.order_id)} a[data-row]")
            await row.click()
            await expect(owed).to_contain_text("customer_svc owes CreditReserved")
            await expect(owed).to_contain_text("customer_svc is paused, hangs or is gone")
            await expect(page.locator(".wide .l-box.is-awaited.is-silent")).to_contain_text(
                "customer_svc.sagas"
            )
        await expect(page.locator(".head-end")).to_contain_text("completed")
        await expect(owed).to_have_count(0)
        await expect(page.locator(".wide a.l-box")).to_have_count(8)
        await expect(page.locator("#health")).to_contain_text("All is well")


async def test_the_story_of_a_choreographed_order_spans_its_logs(
    chromium: Browser, shop: Shop, console: str
) -> None:
    async with connect(shop) as client, window(chromium, console) as opened:
        customer = await client.customer("1000")
        created = await client.create(customer, "1", SAGA_MODE_CHOREOGRAPHY)
        log, _, position = created.consistency_token.partition(":")
        page = await opened.open(f"/story/{log}/{position}")
        boxes = page.locator(".wide a.l-box")
        await expect(boxes).to_have_count(3)
        await expect(page.locator(".wide .l-arrow")).to_have_count(2)
        await boxes.last.click()
        await expect(page.locator(".said:target .changes")).to_contain_text("state")


async def test_a_view_is_rebuilt_compared_and_switched_by_clicks_while_it_is_read(
    chromium: Browser, shop: Shop, console: str
) -> None:
    async with connect(shop) as client, window(chromium, console) as opened:
        customer = await client.customer("1000")
        await _settled(client, customer)
        page = await opened.open("/views")
        await page.locator("#view-projector-orders .view-name a").first.click()
        await expect(page.locator("#build-1")).to_contain_text("live")
        await page.get_by_label("Percent of the time").fill("200")
        await page.get_by_role("button", name="Rebuild …").click()
        outcome = page.locator("#outcome")
        await expect(outcome).to_contain_text("must be 1 to 100 percent")
        await page.get_by_label("Percent of the time").fill("100")
        await page.get_by_role("button", name="Rebuild …").click()
        await expect(outcome).to_contain_text("Build version 1 anew?")
        await page.get_by_role("button", name="Begin to build").click()
        await expect(outcome).to_contain_text("Build 2 is being filled")
        build = page.locator("#rebuild-2")
        await expect(build).to_contain_text("It has caught up")
        await expect(build.locator("[data-name=percent]")).to_have_text("100.0 %")
        await opened.accessible()
        await build.get_by_role("button", name="Compare").click()
        await expect(outcome).to_contain_text("the same")
        await build.get_by_role("button", name="Switch to it …").click()
        await expect(outcome).to_contain_text("Have queries read build 2 in place of build 1?")
        await expect(page.locator("#build-1")).to_contain_text("live")
        await outcome.get_by_role("button", name="Switch to build 2").click()
        await expect(outcome).to_contain_text("Queries read build 2 now")
        await expect(page.locator("#build-2")).to_contain_text("live")
        created = await client.create(customer, "1", SAGA_MODE_CHOREOGRAPHY)
        await client.happened(created.order_id, "OrderApproved", token=created.consistency_token)
        await page.get_by_role("button", name="Switch back …").click()
        await outcome.get_by_role("button", name="Switch back to build 1").click()
        await expect(page.locator("#build-1")).to_contain_text("live")
        await page.locator("#back").get_by_role("button", name="Drop it …").click()
        await expect(outcome).to_contain_text("Nobody can switch back to it then")
        await outcome.get_by_role("button", name="Drop build 2").click()
        await expect(page.locator("#build-2")).to_have_count(0)
        await expect(page.get_by_role("button", name="Rebuild …")).to_be_visible()


async def _settled(client: Client, customer: str) -> None:
    """Waits until an order has gone all the way, so that every service has begun."""
    created = await client.create(customer, "1", SAGA_MODE_ORCHESTRATION)
    await client.happened(created.order_id, "OrderApproved", token=created.consistency_token)
