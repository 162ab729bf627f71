"""A dead letter that poison made in the running shop: found, read and replayed by clicks."""

from __future__ import annotations

import asyncpg
import pytest
from playwright.async_api import expect

from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED
from tests.console.browser import Window
from tests.e2e.client import Client
from tests.waiting import until
from twinlog.testing.internals import database_url

pytestmark = pytest.mark.asyncio(loop_scope="package")

POISON = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'the ledger of % is closed', NEW.customer_id USING ERRCODE = '22023'; END$$;
    CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.customer_id = '{customer}')
    EXECUTE FUNCTION refuse()"""
CURE = "DROP TRIGGER refuse ON orders; DROP FUNCTION refuse()"


async def views(client: Client, sql: str) -> None:
    """Runs SQL in the database of the views."""
    connection = await asyncpg.connect(database_url(client.shop.postgres_url, "shop_views"))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def test_a_dead_letter_is_found_read_and_replayed_by_clicks(window: Window, client: Client) -> None:
    customer = await client.customer("100")
    await views(client, POISON.format(customer=customer))
    order = await client.create(customer, "12.34")
    page = await window.open("/dead-letters")
    error = page.get_by_role("link", name="InvalidParameterValueError")
    await expect(error).to_be_visible()  # it comes by itself
    await error.click()
    await expect(page.locator("#do-chosen")).to_contain_text("The consumer's own code failed on it")
    await page.locator("[id^=letter-] a").first.click()

    await expect(page.locator("h1")).to_have_text("OrderCreated")
    await expect(page.locator(".trouble")).to_contain_text(f"the ledger of {customer} is closed")
    await expect(page.locator(".traceback pre")).to_contain_text("Traceback (most recent call last)")
    await expect(page.locator(".traceback pre")).to_contain_text("projection.py")
    await expect(page.locator(".json").first).to_contain_text(order.order_id)
    await expect(page.locator("#behind")).to_contain_text("What waits behind it 1")  # OrderApproved
    await window.accessible()

    replay = page.locator("#replay-one")
    await replay.get_by_role("button", name="Dry run").click()
    await expect(page.locator("#outcome")).to_contain_text("1 event would be replayed")
    await replay.get_by_role("button", name="Replay").click()
    await expect(page.locator("#outcome")).to_contain_text("0 of 1 handled, 1 failed again")

    await views(client, CURE)
    await page.get_by_text("Replay or discard this event and those behind it").click()
    await page.locator("#replay-key").get_by_role("button", name="Replay").click()
    await expect(page.locator("#outcome")).to_contain_text("Handled: 2 of 2")
    await expect(page.locator("main")).to_contain_text("it was replayed or discarded")

    async def approved() -> bool:
        return (await client.get(order.order_id)).state == ORDER_STATE_APPROVED

    await until(approved)
    await window.open("/dead-letters")
    await expect(page.locator("main")).to_contain_text("No dead letters")
