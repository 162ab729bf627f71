"""Logs, events and streams in the browser; keys, copying, light and dark."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.console.browser import Window
from tests.console.shop import ServedShop
from twinlog.console.chains import STUCK_SECONDS, Chains
from twinlog.console.looks import Look, Said
from twinlog.console.reading import _nodes
from twinlog.v1 import inspection_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_filter_stands_in_the_url(window: Window, shop: ServedShop) -> None:
    orders = await shop.orders(3)
    page = await window.open("/log?log=orders")
    await page.get_by_label("Type").fill("OrderApproved")
    await page.get_by_role("button", name="Filter").click()
    await page.wait_for_url("**/log?log=orders&type=OrderApproved")
    await expect(page.locator("#tail tr")).to_have_count(3)
    await page.goto(f"{window.url}/log?log=orders&stream=order/{orders[0]}")
    await expect(page.locator("#tail tr")).to_have_count(2)
    await shop.orders(1)
    await page.get_by_role("link", name="Clear").click()
    await expect(page.locator("#tail tr")).to_have_count(8)


async def test_the_head_of_its_chain_can_be_noted_elsewhere(window: Window, shop: ServedShop) -> None:
    await shop.orders(1)
    page = await window.open("/log?log=orders")
    chain = page.locator("#chain")
    await expect(chain).to_contain_text("it proves events 1 to 2")
    await expect(chain).to_contain_text("not signed")
    await chain.get_by_role("button", name="Copy the command").click()
    await window.copied(
        rf"(/.*/|/.* -m )?twinlog audit --chain --at {shop.addresses['order_svc']} --head orders:2:[0-9a-f]{{64}}"
    )
    await shop.orders(1)
    await expect(chain).to_contain_text("it proves events 1 to 4")


async def test_a_head_that_stands_while_its_log_goes_on_is_a_problem() -> None:
    chains, log = Chains(), pb.LogDescription(log="orders", own=True, head=7)
    assert not chains.problem_of(None, 0)
    assert not chains.problem_of(log, 0)  # of an earlier release
    log.chain.position = 7
    assert not chains.problem_of(log, 1)
    log.head = 9
    assert not chains.problem_of(log, 100)
    assert "stands at event 7" in chains.problem_of(log, 100 + STUCK_SECONDS)
    log.chain.position = 8  # behind, but it goes on
    assert not chains.problem_of(log, 101 + STUCK_SECONDS)
    said = Said("order_svc", "", pb.DescribeResponse(logs=[log]), chain_problem="stands")
    assert Look({"order_svc": said}).problems() == [("order_svc", "chain of orders", "stands")]


async def test_a_filter_that_nothing_passes_and_one_that_is_wrong_say_so(
    window: Window, shop: ServedShop
) -> None:
    await shop.orders(1)
    page = await window.open("/log?log=orders&type=Nothing")
    await expect(page.get_by_role("heading", name="No event fits")).to_be_visible()
    page = await window.open("/log?log=orders&since=yesterday")
    await expect(page.locator(".note.is-warn")).to_contain_text("'yesterday' is no time")
    page = await window.open("/log?log=orders&since=0001-01-01T00:00%2B05:00")
    await expect(page.locator(".note.is-warn")).to_contain_text("is no time")


async def test_older_events_are_a_page_away(window: Window, shop: ServedShop) -> None:
    await shop.orders(60)
    page = await window.open("/log?log=orders")
    await expect(page.locator("#tail tr")).to_have_count(100)
    await page.get_by_role("link", name="Older events").click()
    await expect(page.locator("#tail tr")).to_have_count(20)
    await expect(page.locator("#e-1")).to_be_visible()


async def test_an_event_shows_its_causes_and_effects_in_all_logs(window: Window, shop: ServedShop) -> None:
    await shop.orders(1)
    page = await window.open("/log/orders/1")
    tree = page.locator(".tree-node")
    await expect(tree).to_have_count(3)
    for number, name in enumerate(("OrderCreated", "CreditReserved", "OrderApproved")):
        await expect(tree.nth(number)).to_contain_text(name)
    await expect(page.locator(".tree-root")).to_contain_text("rpc/CreateOrder")
    await page.get_by_role("link", name="CreditReserved").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("CreditReserved")
    await expect(page.get_by_text('"reserved"', exact=False).first).to_be_visible()


async def test_events_that_were_appended_together_stand_in_the_order_of_their_log() -> None:
    made = [pb.LoggedEvent(address=f"a/{at}", position=at, cause="rpc/Fill") for at in (10, 9, 100, 11)]
    effects = [pb.LoggedEvent(address=f"b/{at}", position=at, cause="a/9") for at in (10, 9)]
    shown = _nodes({each.address: each for each in (*made, *effects)}, "a/9")
    assert [each.event.address for each in shown] == ["a/9", "b/9", "b/10", "a/10", "a/11", "a/100"]


async def test_what_a_silent_service_knows_of_an_event_is_told_to_be_missing(
    window: Window, shop: ServedShop
) -> None:
    await shop.orders(1)
    await window.open("/log/orders/1")
    shop.services["customer_svc"].hang()
    page = await window.open("/log/orders/1")
    await expect(page.get_by_text("What customer_svc recorded of it is not shown")).to_be_visible()
    shop.services["customer_svc"].resume()
    await expect(page.get_by_text("What customer_svc recorded of it is not shown")).to_have_count(0)


async def test_what_is_not_there_is_told_in_place(window: Window, shop: ServedShop) -> None:
    window.expected.append("404")
    await shop.orders(1)
    for path, said in (
        ("/log/orders/99", "has no event 99"),
        ("/log/orders/99999999999999999999", "position must be a whole number from 0 to"),
        ("/log/orders/stream/order/x?upto=2147483648", "upto must be a whole number from 0 to 2,147,483,647"),
        ("/log/nowhere/1", "owns log nowhere"),
        ("/log/orders/stream/order/x", "has no stream order/x"),
        ("/services/x", "No service is called x"),
        ("/x", "no such page"),
    ):
        page = await window.open(path)
        await expect(page.locator("main")).to_contain_text(said)


async def test_rows_are_walked_by_keys_and_opened(window: Window, shop: ServedShop) -> None:
    await shop.orders(2)
    page = await window.open("/log?log=orders")
    for key in "jjk":
        await page.keyboard.press(key)
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/log/orders/4")


async def test_keys_are_told_and_texts_are_copied(window: Window, shop: ServedShop) -> None:
    await shop.orders(1)
    page = await window.open("/services/order_svc")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await window.accessible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await page.get_by_role("button", name="Copy the command").click()
    await window.copied("(/.*/)?grpcurl -plaintext 127.0.0.1:.*")


async def test_light_and_dark_are_remembered(window: Window) -> None:
    page = await window.open()
    await page.keyboard.press("t")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page = await window.open("/views")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(13, 15, 19)"


async def test_views_say_how_far_they_are(window: Window, shop: ServedShop) -> None:
    await shop.orders(2)
    page = await window.open("/views")
    await expect(page.locator("#view-projector-timeline")).to_contain_text("projector.customers")
    await expect(page.locator("#view-projector-orders")).to_contain_text("up to date")
    shop.services["projector"].hang()
    await expect(page.locator("#view-projector-orders")).to_contain_text("no answer")
    shop.services["projector"].resume()
    await expect(page.locator("#view-projector-orders")).to_contain_text("up to date")
