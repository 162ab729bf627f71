"""What is not there is 404; what is not known, since services do not answer, is 503 and comes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import pytest
from playwright.async_api import Browser, expect

from saga_orchestrator.credit_saga import saga_id
from stack.topology import CONSOLE_PAGES
from tests.console.browser import window
from tests.console.shop import ServedShop
from tests.console.test_guard import ask
from tests.waiting import until
from twinlog.console.pages import PAGES
from twinlog.console.process import pages_of, serving

pytestmark = pytest.mark.asyncio(loop_scope="package")

_NOBODY = str(uuid4())
_ALWAYS = ("/", "/services/customer_svc")
"""What says of services that they do not answer."""
_NOT_THERE = (
    "/nowhere",
    "/services/none",
    "/views/none/orders",
    "/views/projector/none",
    "/sagas?state=none",
    "/sagas?service=none",
    "/sagas?service=customer_svc",
    "/sagas/none/1",
    f"/sagas/credit/{_NOBODY}",
    "/log?log=none",
    "/log/none/1",
    "/log/orders/0",
    "/log/orders/999",
    f"/log/orders/stream/order/{_NOBODY}",
    "/story/none/1",
    "/story/orders/999",
    f"/past?stream=order/{_NOBODY}",
    f"/try/orders/{_NOBODY}",
)


def _pages(order: str) -> Sequence[str]:
    """A URL of each page."""
    return (
        "/sagas",
        f"/sagas/credit/{saga_id(order)}",
        "/story/orders/1",
        "/dead-letters",
        "/dead-letters/projector.orders/orders/1",
        "/log",
        "/log?log=orders",
        "/log/orders/1",
        f"/log/orders/stream/order/{order}",
        f"/past?stream=order/{order}",
        "/views",
        "/views/projector/orders",
        "/try",
        f"/try/orders/{order}",
    )


async def _statuses(url: str, paths: Sequence[str]) -> dict[str, int]:
    return {path: (await ask(url + path)).status for path in paths}


async def _become(url: str, paths: Sequence[str], status: int) -> None:
    """Returns once all have that status: a service that is slow to answer is silent for a while."""

    async def so() -> bool:
        return set((await _statuses(url, paths)).values()) == {status}

    await until(so)


async def test_whatever_is_not_known_is_503_until_it_is_and_whatever_is_not_there_404(
    chromium: Browser, shop: ServedShop
) -> None:
    await shop.mode()
    [order] = await shop.orders(1)
    pages = _pages(order)
    paths = {page.path.partition("{")[0].rstrip("/") or "/" for page in PAGES}
    assert all(any(each.startswith(path) for each in (*pages, *_ALWAYS)) for path in paths)
    for service in shop.services.values():
        await service.stop()
    async with serving(shop.addresses, added=pages_of(",".join(CONSOLE_PAGES))) as url:
        assert await _statuses(url, _ALWAYS) == dict.fromkeys(_ALWAYS, 200)
        assert await _statuses(url, pages) == dict.fromkeys(pages, 503)
        silent = await ask(f"{url}/log/orders/1")
        assert silent.headers["Retry-After"]
        assert b"order_svc does not answer: nothing answers at its address." in silent.body
        assert b"start them, or set TWINLOG_SERVICES" in silent.body
        unknown = '<span class="figure-value">–</span><span class="figure-name">dead letters'
        assert unknown in (await ask(url)).body.decode()
        async with window(chromium, url) as opened, window(chromium, url, javascript=False) as plain:
            for each in (opened, plain):
                each.expected.append("503")
            past = await plain.open(f"/past?stream=order/{order}")
            page = await opened.open(f"/past?stream=order/{order}")
            await expect(page.locator("h1")).to_have_text("No answer yet")
            await opened.accessible()
            for service in shop.services.values():
                await service.start()
            for shown in (page, past):
                await expect(shown.get_by_label("Which moment")).to_contain_text("version")
        # The view in memory has no queries of the shop's, and so no pages of it.
        there = [path for path in (*_ALWAYS, *pages) if not path.startswith("/try")]
        await _become(url, there, 200)
        gone = [path for path in _NOT_THERE if not path.startswith("/try")]
        await _become(url, gone, 404)


async def test_what_one_silent_service_has_is_not_known_and_all_else_is(shop: ServedShop) -> None:
    await shop.orders(1)
    async with serving(shop.addresses) as url:
        await _become(url, ["/log/customers/1"], 200)
        await shop.services["customer_svc"].stop()
        silent = ("/log/customers/1", "/story/customers/1")
        assert await _statuses(url, silent) == dict.fromkeys(silent, 503)
        await _become(url, ("/log/orders/1", "/sagas", "/views", "/dead-letters"), 200)

        async def no_part_is_told_to_be_well() -> bool:
            page = (await ask(f"{url}/services/customer_svc")).body
            return (page.count(b">as it was<"), page.count(b">ok<")) == (5, 0)  # three logs, two consumers

        await until(no_part_is_told_to_be_well)
