"""The page of dead letters, of a shop in memory whose view fails on some events."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from html import unescape

import grpc.aio
import pytest
from playwright.async_api import Browser, expect

from tests.console.browser import Window, window
from tests.console.shop import ServedShop
from tests.console.test_guard import ask
from tests.waiting import until
from twinlog import Recorded
from twinlog.console import dead_letters
from twinlog.consume import ConsumerWrapper, Progress
from twinlog.consume.dead_letters import TriedInVain
from twinlog.v1 import dead_letter_service_pb2 as pb
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="package")

CONSUMER = "projector.orders"


class Failing(ConsumerWrapper):
    """Fails on events for as long as something is wrong with them."""

    wrong: Callable[[Recorded], Exception | None]

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        for event in events:
            if error := self.wrong(event):
                raise TriedInVain(error, 6)
        return await super().apply(events, progress)


async def poisoned(shop: ServedShop, *, participant: bool = False) -> Failing:
    """Three orders of three customers, on all of which the view fails: two alike, and what becomes of them behind.

    ``participant``: customer_svc fails on them as well.
    """
    handler = shop.shop.projector.dead_letters.consumers[CONSUMER]
    failing = Failing(handler._consumer)
    customers = [await shop.customer() for _ in range(3)]
    errors: dict[str, Exception] = {
        customers[0]: ValueError("no such currency: <XXX>"),
        customers[1]: ValueError("no such currency: YYY"),
        customers[2]: KeyError("total"),
    }
    failing.wrong = lambda event: errors.get(event.partition_key)
    handler._consumer = failing
    if participant:
        other = shop.shop.customer_svc.dead_letters.consumers["customer_svc.orders"]
        other._consumer = also = Failing(other._consumer)
        also.wrong = failing.wrong
    for customer in customers:
        await shop.order(customer)
    await shop.shop.settle()
    return failing


async def test_they_are_grouped_and_one_group_is_replayed(window: Window, shop: ServedShop) -> None:
    failing = await poisoned(shop)
    page = await window.open("/dead-letters")
    group = page.locator(f"[id='group-{CONSUMER}-ValueError']")
    await expect(group.locator("[data-name=failed]")).to_contain_text("2")
    await expect(group.locator("[data-name=behind]")).to_contain_text("2")  # both are approved
    await expect(group).to_contain_text("no such currency: <XXX>")
    await expect(group.locator(".spark rect")).to_have_count(1)
    await expect(page.locator("[id^=letter-]")).to_have_count(6)
    await group.locator("a").click()
    await page.wait_for_url(re.compile("error_type=ValueError"))
    await expect(page.locator("[id^=letter-]")).to_have_count(2)
    acts = page.locator("#replay-chosen")
    await acts.get_by_role("button", name="Dry run").click()
    await expect(page.locator("#outcome .is-info")).to_contain_text("4 events would be replayed")
    await acts.get_by_label("At most, a second").fill("soon")
    await acts.get_by_role("button", name="Replay").click()
    await expect(page.locator("#outcome")).to_contain_text("How many a second?")
    await acts.get_by_label("At most, a second").fill("500")
    wrong, failing.wrong = failing.wrong, lambda event: None
    await acts.get_by_role("button", name="Replay").click()
    await expect(page.locator("#outcome")).to_contain_text("Handled: 4 of 4")
    failing.wrong = wrong
    await expect(group).to_have_count(0)  # by itself
    await window.open("/dead-letters")
    await expect(page.locator("[id^=letter-]")).to_have_count(2)


async def test_one_is_discarded_with_a_reason(window: Window, shop: ServedShop) -> None:
    await poisoned(shop)
    page = await window.open(f"/dead-letters?consumer={CONSUMER}&error_type=KeyError")
    acts = page.locator("#discard-chosen")
    await acts.get_by_role("button", name="Discard").click()
    await expect(page.locator("#outcome")).to_contain_text("Why?")
    await acts.get_by_role("button", name="Dry run").click()
    await expect(page.locator("#outcome")).to_contain_text("1 event would be given up")
    await acts.get_by_label("Reason").fill("a test <order>")
    await acts.get_by_role("button", name="Discard").click()
    await expect(page.locator("#outcome")).to_contain_text("1 event given up: “a test <order>”")
    await page.get_by_role("link", name="All", exact=True).click()
    behind = page.locator("[id^=letter-]", has_text="waits behind")
    await expect(behind).to_have_count(2)  # of the others; the one that waited for this is free


async def test_one_that_waits_names_what_it_waits_for(window: Window, shop: ServedShop) -> None:
    failing = await poisoned(shop)
    failing.wrong = lambda event: None
    page = await window.open("/dead-letters")
    await page.locator("[id^=letter-]", has_text="waits behind").first.locator("a").click()
    await expect(page.locator(".note")).to_contain_text("It waits behind")
    await expect(page.locator("#replay-one")).to_have_count(0)
    address = page.url
    await page.locator(".note a").click()
    await expect(page.locator(".traceback pre")).to_contain_text("Error")
    await page.goto(address)
    await page.locator("#replay-key").get_by_role("button", name="Replay").click()
    await expect(page.locator("#outcome")).to_contain_text("Handled: 2 of 2")
    await expect(page.locator("main")).to_contain_text("Nothing is left to do here")


async def test_a_replay_under_way_shows_how_far_it_is(window: Window, shop: ServedShop) -> None:
    failing = await poisoned(shop)
    failing.wrong = lambda event: None
    page = await window.open("/dead-letters")
    async with grpc.aio.insecure_channel(shop.addresses["projector"]) as channel:
        request = pb.ReplayDeadLettersRequest(selection=pb.DeadLetterSelection(all=True), per_second=0.01)
        replay = DeadLetterServiceStub(channel).ReplayDeadLetters(request, metadata=(("x-actor", "ada"),))
        await replay.read()
        shown = page.locator(".progress")
        await expect(shown).to_contain_text("1 of 6")
        await expect(shown).to_contain_text("for ada")
        replay.cancel()
        await expect(shown).to_have_count(0)


async def test_a_service_that_hangs_is_named_and_what_others_have_is_shown(
    window: Window, shop: ServedShop
) -> None:
    await poisoned(shop)
    shop.services["customer_svc"].hang()
    page = await window.open("/dead-letters")
    await expect(page.locator("#silent-customer_svc")).to_contain_text("cannot say what it has")
    await expect(page.locator("[id^=letter-]")).to_have_count(6)
    shop.services["customer_svc"].resume()
    await expect(page.locator("#silent-customer_svc")).to_have_count(0)


async def test_those_of_several_services_are_paged_through_to_the_last(
    shop: ServedShop, console: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE", 2)
    await poisoned(shop, participant=True)
    wanted = {
        f"{consumer}-orders/{position}"
        for consumer in (CONSUMER, "customer_svc.orders")
        for position in (1, 2, 3)
    }

    async def paged() -> bool:
        seen = await _pages(console)
        return [len(page) for page in seen] == [4, 2] and {each for page in seen for each in page} == wanted

    await until(paged)
    deep = urlsafe_b64encode(b"[" * 40_000).decode()
    for nonsense in ("x", "W10=", "eyJhIjogMX0=", deep):
        assert (await ask(f"{console}/dead-letters?page={nonsense}")).status == 200
    reason = "reason=%E2%80%AEabc"  # writes from right to left
    for what, done in (("discard", "given up"), ("discard&how=count", "given up"), ("replay", "replayed")):
        form = f"action={what}&consumer={CONSUMER}&address=orders/99&{reason}"
        answer = (await ask(f"{console}/dead-letters", body=form.encode(), Origin=console)).body.decode()
        [said] = re.findall(r'class="outcome-text">(.*?)</div>', answer, re.DOTALL)
        assert said.startswith(f"Nothing was {done}. projector: "), said
        assert ".." not in said


async def _pages(console: str) -> list[list[str]]:
    """The letters of each page, by the links from one to the next."""
    seen: list[list[str]] = []
    path = "/dead-letters"
    while path:
        text = (await ask(console + path)).body.decode()
        seen.append(re.findall(r'id="letter-([^"]+)"', text))
        following = re.search(r'href="([^"]+)">Next', text)
        path = unescape(following[1]) if following else ""
    return seen


async def test_where_there_are_none_it_says_so(window: Window) -> None:
    page = await window.open("/dead-letters")
    await expect(page.locator("main")).to_contain_text("Every event was handled")
    await window.open(f"/dead-letters/{CONSUMER}/orders/999")
    await expect(page.locator("main")).to_contain_text("Nothing is left to do here")


async def test_all_of_it_works_without_javascript(chromium: Browser, shop: ServedShop, console: str) -> None:
    failing = await poisoned(shop)
    failing.wrong = lambda event: None
    async with window(chromium, console, javascript=False) as opened:
        page = await opened.open("/dead-letters")
        await page.get_by_text("Replay or discard all of them").click()
        await page.locator("#replay-all").get_by_role("button", name="Replay").click()
        await expect(page.locator("#outcome")).to_contain_text("Handled: 6 of 6")


async def test_they_are_accessible_and_as_wide_as_the_window(window: Window, shop: ServedShop) -> None:
    failing = await poisoned(shop)
    long = type("An" + "EvenLonger" * 5 + "Error", (Exception,), {})
    failing.wrong = lambda _event: long("no such currency")
    await shop.order(await shop.customer())
    await shop.shop.settle()
    page = await window.open("/dead-letters")
    letter = page.locator("[id^=letter-]").filter(has_text=long.__name__)
    one = await letter.locator("a").first.get_attribute("href")
    for path in ("/dead-letters", f"/dead-letters?consumer={CONSUMER}&error_type=ValueError", str(one)):
        await window.open(path)
        await window.accessible_and_fits()
