"""The pages of sagas and stories in a real browser, over a shop in memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from saga_orchestrator.credit_saga import saga_id
from tests.console.browser import DESKTOP, Window, window
from tests.console.shop import Served, ServedShop
from tests.console.test_guard import ask
from tests.memory_shop import MemoryShop
from twinlog import Metadata, StreamId
from twinlog.console import Page as ConsolePage
from twinlog.console import Query, Services, live, looks, services
from twinlog.console.process import serving
from twinlog.console.saga_orders import ORDERS, Order
from twinlog.memory.saga_list import MemorySagaList
from twinlog.model.event import NewEvent
from twinlog.model.saga_list import SAGA_INSTANCES, SagaRow
from twinlog.testing import START, MemoryLog
from twinlog.testing.internals import Batch
from twinlog.v1 import saga_pb2
from twinlog.v1.saga_service_pb2 import SAGA_STATUS_RUNNING

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest_asyncio.fixture(loop_scope="package")
async def stuck(shop: ServedShop) -> AsyncIterator[list[str]]:
    """The ids of three sagas that wait for customer_svc, in the order in which they began."""
    await shop.mode()
    await shop.orders(2)
    shop.shop.customer_svc.works.clear()
    customer = await shop.customer()
    yield [saga_id(await shop.order(customer, 3)) for _ in range(3)]
    shop.shop.customer_svc.works.set()


async def test_the_map_and_a_saga_tell_at_once_what_one_look_found_out(
    chromium: Browser,
    console: str,
    shop: ServedShop,
    stuck: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert looks.EVERY_SECONDS + looks.DEADLINE_SECONDS <= 2.0
    async with window(chromium, console) as map, window(chromium, console) as saga:
        overview, page = await map.open("/"), await saga.open(page_of(stuck[0]))
        await expect(page.locator("#owed")).to_contain_text("customer_svc owes")
        # From now on nothing is loaded but for what a look has found out.
        monkeypatch.setattr(live, "EVERY_SECONDS", 3_600.0)
        monkeypatch.setattr(live, "_REST_SECONDS", 3_600.0)
        await asyncio.sleep(1.0)
        shop.services["customer_svc"].hang()
        await expect(overview.locator("#service-customer_svc")).to_contain_text("no answer")
        await expect(page.locator("#owed")).to_contain_text("customer_svc is paused, hangs or is gone")
        shop.services["customer_svc"].resume()
        await expect(overview.locator("#service-customer_svc")).not_to_contain_text("no answer")
        await expect(page.locator("#owed")).not_to_contain_text("paused")


def page_of(saga: str) -> str:
    return f"/sagas/credit/{saga}"


_LINES = """all => all.map(each => {
    const range = document.createRange()
    range.selectNodeContents(each)
    return range.getClientRects().length
})"""
"""On how many lines the text of each stands."""


async def story_chosen(page: Page, name: str) -> None:
    await page.locator(".wide a.l-box").filter(has_text=name).first.click()


async def test_a_stuck_saga_is_found_understood_and_retried_by_clicks(
    window: Window, shop: ServedShop, stuck: list[str]
) -> None:
    page = await window.open("/sagas")
    await expect(page.locator("[id^=saga-]")).to_have_count(len(stuck))
    assert await page.locator("[id^=saga-]").evaluate_all("all => all.map(each => each.id)") == [
        f"saga-{id}" for id in stuck
    ]
    await page.locator(f"#saga-{stuck[0]} a[data-row]").click()
    await expect(page.locator("#owed")).to_contain_text(
        "customer_svc owes CreditReserved or CreditReservationFailed since"
    )
    assert await page.locator("[id^=step-] > :first-child").evaluate_all(_LINES) == [1, 1]
    await page.get_by_label("Reason").fill("INC-7")
    await page.get_by_role("button", name="Retry …").click()
    outcome = page.locator("#outcome")
    await expect(outcome).to_contain_text("Nothing has been done yet")
    await expect(outcome.locator(".outcome.is-info")).to_be_visible()
    assert _retried(shop) == 0
    await outcome.get_by_role("button", name="Retry", exact=True).click()
    await expect(outcome).to_contain_text("Retried.")
    await expect(outcome.locator(".outcome.is-ok")).to_be_visible()
    assert _retried(shop) == 1
    await expect(page.locator(".wide .l-box").filter(has_text="SagaRetryRequested")).to_be_visible()
    shop.shop.customer_svc.works.set()
    await expect(page.locator(".head-end")).to_contain_text("completed")
    await expect(page.locator("#owed")).to_have_count(0)


def _retried(shop: ServedShop) -> int:
    name = saga_pb2.SagaRetryRequested.DESCRIPTOR.full_name
    return sum(event.type == name for event in shop.shop.logs["sagas"].events)


async def test_an_order_needs_a_reason_and_says_what_is_in_its_way(
    window: Window, shop: ServedShop, stuck: list[str]
) -> None:
    page = await window.open(page_of(stuck[0]))
    await page.emulate_media(media="print")
    await expect(page.get_by_role("heading", name="Step in")).to_be_hidden()
    await page.emulate_media(media="screen")
    await page.get_by_role("button", name="Abort …").click()
    await expect(page.locator("#outcome")).to_contain_text("Abort needs a reason")
    await page.get_by_label("Reason").fill("9" * 200)  # the longest, and nowhere to be broken
    await page.get_by_role("button", name="Abort …").press("Enter")
    confirm = page.locator("#outcome").get_by_role("button", name="Abort", exact=True)
    await expect(confirm).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(confirm).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#outcome")).to_contain_text("Aborted.")
    await expect(page.locator(".head-end")).to_contain_text("compensating")
    await expect(page.locator(".note strong")).to_have_text("9" * 200)
    assert await page.evaluate("document.documentElement.scrollWidth") <= DESKTOP[0]
    await page.get_by_role("button", name="Abort …").click()
    await expect(page.locator("#outcome")).to_contain_text("not possible")


async def test_many_are_aborted_by_a_filter_after_a_look_at_what_that_does(
    window: Window, shop: ServedShop, stuck: list[str]
) -> None:
    order = b"action=do&order=abort&reason=none&limit=50"
    said = (await ask(f"{window.url}/sagas?state=none", body=order, Origin=window.url)).body
    assert b"There is no state none" in said
    page = await window.open("/sagas?state=running")
    await expect(page.locator("[id^=saga-]")).to_have_count(len(stuck))
    await page.get_by_text("Do something with all").click()
    await page.get_by_label("Reason").fill("INC-8")
    await page.get_by_label("At most").fill("2")
    await page.get_by_role("button", name="Abort …").click()
    outcome = page.locator("#outcome")
    await expect(outcome).to_contain_text("Abort 2 of 3 sagas?")
    await expect(outcome).to_contain_text("the limit is 2")
    await outcome.get_by_role("button", name="Abort 2 sagas").click()
    await expect(outcome).to_contain_text("Aborted 2 of 3 sagas. 1 is left: the limit was 2.")
    await expect(page.locator("[id^=saga-]")).to_have_count(1)
    await page.get_by_role("link", name=re.compile("2 compensating")).click()
    await expect(page.locator("[id^=saga-]")).to_have_count(2)


async def test_the_filter_is_in_the_url_and_says_where_nothing_fits(
    window: Window, shop: ServedShop, stuck: list[str]
) -> None:
    page = await window.open("/sagas")
    await page.get_by_label("State", exact=True).select_option("completed")
    await page.wait_for_url("**/sagas?state=completed*")
    await expect(page.locator("[id^=saga-]")).to_have_count(2)
    await page.reload()
    await expect(page.locator("[id^=saga-]")).to_have_count(2)
    await page.get_by_label("Subject").fill("nobody")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**subject=nobody*")
    await expect(page.get_by_text("No saga is like that")).to_be_visible()


async def test_a_saga_is_drawn_without_what_has_just_fallen_silent_and_the_rest_comes_live(
    chromium: Browser, shop: ServedShop, stuck: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DEADLINE_SECONDS", "LATE_SECONDS"):
        monkeypatch.setattr(looks, name, 3_600.0)  # no look finds out that it is silent
    async with serving(shop.addresses) as url:
        assert (await ask(url)).status == 200
        shop.services["customer_svc"].hang()
        monkeypatch.setattr(services, "AT_ONCE_SECONDS", 0.0)
        first = await ask(url + page_of(stuck[0]))
        said = first.body.decode()
        assert first.status == 200
        assert "customer_svc owes" in said
        assert "no answer yet" in said
        shop.services["customer_svc"].resume()
        async with window(chromium, url) as opened:
            page = await opened.open(page_of(stuck[0]))
            await expect(page.locator("main")).not_to_contain_text("no answer yet")
            await expect(page.locator(".wide .l-box").filter(has_text="ReserveCredit")).to_be_visible()


_ORDERS = """{% extends "main.html" %}{% from "saga_macros.html" import order_form with context %}
{% block main %}{{ order_form(model.orders, model.steps) }}{% endblock %}"""


@dataclass(frozen=True)
class _Orders:
    steps: list[str]
    orders: Sequence[Order] = tuple(ORDERS.values())


async def test_the_steps_to_choose_from_follow_the_saga_and_what_is_chosen_and_typed_stays(
    chromium: Browser, shop: ServedShop, tmp_path: Path
) -> None:
    steps = ["hold room", "hold car", "hold seat"]

    async def load(_services: Services, _query: Query) -> _Orders:
        return _Orders([*steps])

    (tmp_path / "orders.html").write_text(_ORDERS)
    pages = [ConsolePage("/orders", "Orders", "orders.html", load, templates=tmp_path, moves=lambda _: True)]
    async with serving(shop.addresses, added=pages) as url, window(chromium, url) as opened:
        page = await opened.open("/orders")
        step, reason = page.get_by_label("Step"), page.get_by_label("Reason")
        await reason.fill("INC-9")
        await step.select_option("hold car")
        steps.remove("hold room")
        await expect(step.locator("option")).to_have_text(["each", "hold car", "hold seat"])
        assert await step.input_value() == "hold car"
        steps.insert(0, "hold boat")
        await expect(step.locator("option")).to_have_text(["each", "hold boat", "hold car", "hold seat"])
        assert await step.input_value() == "hold car"
        steps[:] = ["hold seat"]
        await expect(step).to_have_count(0)
        assert await reason.input_value() == "INC-9"


async def test_a_silent_owner_is_told_in_time_and_turns_green_again(
    window: Window, shop: ServedShop, stuck: list[str]
) -> None:
    page = await window.open(page_of(stuck[0]))
    owed = page.locator("#owed")
    await expect(owed).to_contain_text("customer_svc owes CreditReserved")
    await expect(owed).not_to_contain_text("does not answer")
    shop.services["customer_svc"].hang()
    await expect(owed).to_contain_text("does not answer")
    await expect(owed).to_contain_text("customer_svc owes CreditReserved")
    await expect(owed).to_contain_text(re.compile("stood at sagas/[0-9]+, so up to [0-9]+ events behind"))
    shop.services["customer_svc"].resume()
    shop.shop.customer_svc.works.set()
    await expect(page.locator(".head-end")).to_contain_text("completed")
    await expect(page.locator(".l-box.is-silent")).to_have_count(0)


async def test_a_page_whose_own_service_goes_says_so_and_recovers(
    window: Window, shop: ServedShop, stuck: list[str]
) -> None:
    page = await window.open(page_of(stuck[0]))
    await expect(page.locator("#owed")).to_be_visible()
    shop.services["saga_orchestrator"].hang()
    await expect(page.locator("main .note.is-bad")).to_contain_text("saga_orchestrator does not tell")
    await expect(page.locator("#owed")).to_be_visible()
    shop.services["saga_orchestrator"].resume()
    await expect(page.locator("main .note.is-bad")).to_have_count(0)


async def test_an_event_shows_its_payload_and_what_it_changed(window: Window, shop: ServedShop) -> None:
    [_, order] = await shop.orders(2)
    page = await window.open("/story/orders/4")
    boxes = page.locator(".wide a.l-box")
    await expect(boxes).to_have_count(3)
    assert await boxes.evaluate_all("all => all.map(each => each.ariaLabel.split(',')[0])") == [
        "OrderCreated",
        "CreditReserved",
        "OrderApproved",
    ]
    await expect(page.locator(".wide .l-arrow")).to_have_count(2)  # until then something is awaited
    await story_chosen(page, "OrderApproved")
    said = page.locator(".said:target")
    await expect(said).to_contain_text(f"order/{order}")
    await expect(said.locator(".changes")).to_contain_text("state")
    assert "#e-orders-" in page.url
    await said.get_by_role("link", name="customers/").click()
    await expect(page.locator(".said:target h3")).to_have_text("CreditReserved")


async def test_a_choreographed_order_shows_who_has_yet_to_act(window: Window, shop: ServedShop) -> None:
    customer = await shop.customer()
    await shop.shop.settle()
    shop.shop.customer_svc.works.clear()
    await shop.order(customer)
    page = await window.open("/story/orders/1")
    await expect(page.locator(".wide .l-box.is-awaited")).to_contain_text("customer_svc.orders")
    await expect(page.locator(".waiting")).to_contain_text("customer_svc has yet to handle OrderCreated")
    shop.shop.customer_svc.works.set()
    await expect(page.locator(".wide a.l-box")).to_have_count(3)
    await expect(page.locator(".wide .l-box.is-awaited")).to_have_count(0)


async def test_an_event_that_was_set_aside_is_told_with_its_error(window: Window, shop: ServedShop) -> None:
    log, stream = shop.shop.logs["orders"], StreamId("order", "broken")
    key = "SAGA_MODE_CHOREOGRAPHY"
    said = Metadata("c", "rpc/CreateOrder", "", "ann")
    broken = NewEvent(stream, 1, uuid4(), "shop.orders.v1.OrderCreated", b"\xff", said, "ada", key)
    await log.append(Batch(START, {stream: 0}, [broken]))
    await shop.orders(1)
    page = await window.open("/story/orders/1")
    aside = "customer_svc has set OrderCreated aside: UndecodableEvent"
    await expect(page.locator(".waiting")).to_contain_text(aside)
    await expect(page.locator(".wide .l-box.is-awaited.is-bad")).to_contain_text("customer_svc.orders")
    await story_chosen(page, "OrderCreated")
    await expect(page.locator(".said:target")).to_contain_text("Not decoded")


async def test_what_is_not_there_is_told_in_place(window: Window, shop: ServedShop) -> None:
    window.expected.append("404")
    for path in ("/story/nothing/1", "/story/orders/99", "/sagas/nothing/x", "/sagas/credit/x"):
        page = await window.open(path)
        await expect(page.locator("h1")).to_have_text("Not here")


async def test_all_is_accessible_and_fits(window: Window, stuck: list[str]) -> None:
    for path in ("/sagas", "/sagas?state=all", page_of(stuck[0]), "/story/orders/1#e-orders-1"):
        page = await window.open(path)
        await expect(page.locator("h1")).to_be_visible()
        await window.accessible_and_fits()


async def test_ten_thousand_sagas_are_listed_page_by_page(chromium: Browser) -> None:
    async with MemoryShop() as memory:
        sagas = memory.saga_orchestrator.saga_list = MemorySagaList(MemoryLog("sagas"))
        rows = [_running(number) for number in range(10_000)]
        sagas.tables[SAGA_INSTANCES.name] = {row.stream: row for row in rows}
        orchestrator = Served(memory.saga_orchestrator)
        await orchestrator.start()
        try:
            async with (
                serving({orchestrator.name: orchestrator.address}) as url,
                window(chromium, url) as opened,
            ):
                page = await opened.open("/sagas")
                await expect(page.locator(".figure").first).to_contain_text("10\u202f000")
                await expect(page.locator("[id^=saga-]")).to_have_count(50)
                await expect(page.locator("#saga-00000049")).to_be_visible()
                await page.get_by_role("link", name="Next 50").click()
                await expect(page.locator("#saga-00000050")).to_be_visible()
                await page.get_by_label("Order").select_option("newest")
                await expect(page.locator("#saga-00009999")).to_be_visible()
        finally:
            await orchestrator.stop()


def _running(number: int) -> SagaRow:
    id = f"{number:08}"
    at = START - timedelta(seconds=1)
    return SagaRow(f"credit_saga/{id}", "credit", id, "ada", 1, SAGA_STATUS_RUNNING, "", number + 1, at, at)
