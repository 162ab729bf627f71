"""A real Chromium, and pages of it that let nothing pass: no error, no violated policy, no request off the machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from tests import chromium
from tests.console.patience import SHOWN_SECONDS

DESKTOP, PHONE = (1280, 800), (390, 844)
_ARGUMENTS = [
    "--no-sandbox",  # which not every machine lets every user have; the pages are our own
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
_PATIENCE_MILLISECONDS = SHOWN_SECONDS * 1_000
_VIOLATIONS = "options => axe.run(options).then(({ violations }) => violations)"


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """The machine's Chromium, headless."""
    executable = chromium.path()
    assert executable, "no Chromium on the PATH; .ci/run installs Debian's package chromium-headless-shell"
    expect.set_options(timeout=_PATIENCE_MILLISECONDS)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        try:
            yield started
        finally:
            await started.close()


class Window:
    """A page of the browser that notes what must not happen."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        self.expected: list[str] = []
        """Parts of console messages that the test provokes, such as those of a server that it stops."""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("request", self._asked)

    async def open(self, path: str = "/") -> Page:
        """Goes there, and gives the page."""
        await self.page.goto(f"{self.url}{path}")
        return self.page

    async def copied(self, pattern: str) -> None:
        """Returns when the clipboard has a text like that: what a click copies is there some time after it."""
        await self.page.wait_for_function(
            "pattern => navigator.clipboard.readText().then(text => new RegExp(`^(?:${pattern})$`).test(text))",
            arg=pattern,
        )

    async def accessible(self) -> None:
        """Fails where axe-core finds anything wrong."""
        await self.page.evaluate(AXE_SCRIPT)
        await self._passes()

    async def accessible_and_fits(self) -> None:
        """Fails where axe-core finds anything wrong, on a desk and on a phone, or the page is wider than its window.

        Each is looked at with dark colors, too: a scheme changes nothing but `light-dark()`. The page is loaded once;
        whether a finger is there changes nothing.
        """
        await self.page.evaluate(AXE_SCRIPT)
        for size in (DESKTOP, PHONE):
            await self.page.set_viewport_size({"width": size[0], "height": size[1]})
            await self._passes()
            await self.page.emulate_media(
                color_scheme="dark", reduced_motion="reduce"
            )  # no color is on its way
            await self._passes("color-contrast")
            await self.page.emulate_media(color_scheme="light")
            assert await self.page.evaluate("document.documentElement.scrollWidth") <= size[0], self.page.url
        await self.page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})

    async def _passes(self, *rules: str) -> None:
        """Of axe-core, all rules or these."""
        options = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
        found: Any = await self.page.evaluate(_VIOLATIONS, options)
        wrong = [
            f"{each['id']}: {each['help']}: {node['target']} {node.get('failureSummary', '')}"
            for each in found
            for node in each["nodes"]
        ]
        assert not wrong, "\n".join(wrong)

    def check(self) -> None:
        """Fails where anything happened that must not."""
        wrong = [each for each in self.wrong if not any(part in each for part in self.expected)]
        assert not wrong, "\n".join(wrong)

    def _said(self, message: ConsoleMessage) -> None:
        # Violations of the content security policy are errors of the console.
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.wrong.append(f"request off the console: {request.url}")


@asynccontextmanager
async def window(
    chromium: Browser,
    url: str,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: str = "light",
    javascript: bool = True,
) -> AsyncIterator[Window]:
    """A window on a console, whose end checks that nothing went wrong."""
    context = await chromium.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        java_script_enabled=javascript,
        has_touch=size == PHONE,
    )
    context.set_default_timeout(_PATIENCE_MILLISECONDS)
    await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    try:
        opened = Window(await context.new_page(), url)
        yield opened
        opened.check()
    finally:
        await context.close()
