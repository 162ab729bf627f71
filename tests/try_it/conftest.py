"""The running shop, its console with the page to try it, and one Chromium, for all tests of a console over a shop in
processes of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser

from stack.topology import CONSOLE_PAGES
from tests.console import browser
from tests.console.browser import Window
from tests.console.patience import patient
from tests.e2e.client import Client, connect, paused
from tests.servers import folder
from tests.shops import running_shop
from twinlog.console.process import pages_of, serving


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def client() -> AsyncIterator[Client]:
    """A client of the shop: four services in processes of their own."""
    with folder() as path:
        async with running_shop(path) as shop, connect(shop) as connected:
            yield connected


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def console(client: Client) -> AsyncIterator[str]:
    """The URL of its console."""
    with patient(paused.__contains__):
        async with serving(client.shop.addresses, added=pages_of(",".join(CONSOLE_PAGES))) as url:
            yield url


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def chromium() -> AsyncIterator[Browser]:
    """The machine's Chromium."""
    async with browser.browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="package")
async def window(chromium: Browser, console: str) -> AsyncIterator[Window]:
    """A window on the console; whatever goes wrong in it fails the test."""
    async with browser.window(chromium, console) as opened:
        yield opened
