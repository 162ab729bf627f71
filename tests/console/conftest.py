"""One Chromium for all tests of this folder; each test has a shop and a console of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import structlog
from playwright.async_api import Browser

from tests.console import browser
from tests.console.browser import Window
from tests.console.patience import patient
from tests.console.shop import ServedShop, hanging, served
from twinlog.console.process import serving


@pytest.fixture(autouse=True)
def plain_logging(logging_as_installed: None) -> None:
    """A pretty traceback shows all that its frames hold, and takes seconds."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
    )


@pytest.fixture(scope="package", autouse=True)
def patience() -> Iterator[None]:
    """A service is silent where a test lets it hang, and where it is gone."""
    with patient(hanging.__contains__):
        yield


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def chromium() -> AsyncIterator[Browser]:
    """The machine's Chromium."""
    async with browser.browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="package")
async def shop() -> AsyncIterator[ServedShop]:
    """A shop in memory, served."""
    async with served() as shop:
        yield shop


@pytest_asyncio.fixture(loop_scope="package")
async def console(shop: ServedShop) -> AsyncIterator[str]:
    """The URL of a console of the shop."""
    async with serving(shop.addresses) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="package")
async def window(chromium: Browser, console: str) -> AsyncIterator[Window]:
    """A window on the console; whatever goes wrong in it fails the test."""
    async with browser.window(chromium, console) as opened:
        yield opened
