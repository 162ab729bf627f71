"""A real Chromium, and pages of it that let nothing pass: no error, no violated policy, no request off the machine."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    JSHandle,
    Page,
    Request,
    Route,
    async_playwright,
    expect,
)

from tests import chromium
from tests.console.patience import SHOWN_SECONDS

DESKTOP, PHONE = (1280, 800), (390, 844)
_ARGUMENTS = [
    "--no-sandbox",  # which not every machine lets every user have; the pages are our own
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--process-per-site",  # pages of one context share a process, which takes as long to start as a page to load
]
_PATIENCE_MILLISECONDS = SHOWN_SECONDS * 1_000
_EMPTYING_SECONDS = 20.0
_CONTRAST = "color-contrast"
_VIOLATIONS = """([within, options]) =>
    axe.run(within ? { include: within } : document, options).then(({ violations }) => violations)"""
_LOOKS = """() => new Map([...document.querySelectorAll("body *")].map(each => {
    const style = getComputedStyle(each);
    return [each, [
        each.checkVisibility(), style.color, style.opacity, style.fontSize, style.fontWeight, style.textShadow,
        style.backgroundColor, style.backgroundImage, style.position,
    ].join()];
}))"""
"""What the contrast of each element comes from."""
_OTHERWISE = f"""before => [...({_LOOKS})()]
    .filter(([each, looks]) => each.checkVisibility() && looks !== before.get(each))
    .map(([each]) => each)"""
"""The visible elements that look otherwise than before, or were not there."""


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

        Contrast, which takes most of the time, is looked at with dark colors, too, and on a phone only of what looks
        otherwise there: a scheme changes nothing but `light-dark()`. The page is loaded once; whether a finger is
        there changes nothing.
        """
        await self.page.evaluate(AXE_SCRIPT)
        await self._passes()
        await self._passes_in_the_dark()
        await self._fits(DESKTOP)
        looks = await self.page.evaluate_handle(f"({_LOOKS})()")
        await self._resize(PHONE)
        await self._passes(rules={_CONTRAST: {"enabled": False}})
        otherwise = await self.page.evaluate_handle(_OTHERWISE, looks)
        if await otherwise.evaluate("found => found.length"):
            await self._passes(otherwise, runOnly=[_CONTRAST])
            await self._passes_in_the_dark(otherwise)
        await self._fits(PHONE)
        await self._resize(DESKTOP)

    async def _passes_in_the_dark(self, within: JSHandle | None = None) -> None:
        # Without motion no color is on its way.
        await self.page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        await self._passes(within, runOnly=[_CONTRAST])
        await self.page.emulate_media(color_scheme="light")

    async def _resize(self, size: tuple[int, int]) -> None:
        await self.page.set_viewport_size({"width": size[0], "height": size[1]})

    async def _fits(self, size: tuple[int, int]) -> None:
        assert await self.page.evaluate("document.documentElement.scrollWidth") <= size[0], self.page.url

    async def _passes(self, within: JSHandle | None = None, **options: Any) -> None:
        """Of axe-core, all rules or what the options say, of the whole page or within these elements."""
        # What it would load beforehand, all style sheets once more, is for rules that are off.
        options = {"resultTypes": ["violations"], "preload": False, **options}
        found: Any = await self.page.evaluate(_VIOLATIONS, [within, options])
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


class _Kind(NamedTuple):
    """What contexts differ in."""

    size: tuple[int, int]
    scheme: str
    javascript: bool


_idle: WeakKeyDictionary[Browser, defaultdict[_Kind, list[BrowserContext]]] = WeakKeyDictionary()
"""Contexts that no window has: to make one, and a process for its pages, takes longer than a page."""


@asynccontextmanager
async def window(
    chromium: Browser,
    url: str,
    *,
    size: tuple[int, int] = DESKTOP,
    scheme: str = "light",
    javascript: bool = True,
) -> AsyncIterator[Window]:
    """A window on a console, whose end checks that nothing went wrong.

    Of its context, which it has alone, nothing is left but what was loaded: cookies go, and another console is another
    origin.
    """
    kind = _Kind(size, scheme, javascript)
    idle = _idle.setdefault(chromium, defaultdict(list))[kind]
    context = idle.pop() if idle else await _context(chromium, kind)
    try:
        await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        opened = Window(await context.new_page(), url)
        yield opened
        opened.check()
    except BaseException:
        await context.close()
        raise
    # Now and then a page does not close. The browser's end does it; nobody else gets this context.
    with suppress(TimeoutError):
        async with asyncio.timeout(_EMPTYING_SECONDS):
            await _emptied(context)
            idle.append(context)


async def _context(chromium: Browser, kind: _Kind) -> BrowserContext:
    """A new one, with a page that keeps the process of the others."""
    context = await chromium.new_context(
        viewport={"width": kind.size[0], "height": kind.size[1]},
        color_scheme="dark" if kind.scheme == "dark" else "light",
        java_script_enabled=kind.javascript,
        has_touch=kind.size == PHONE,
    )
    context.set_default_timeout(_PATIENCE_MILLISECONDS)
    first = await context.new_page()

    async def nothing(route: Route) -> None:
        await route.fulfill(body="")

    await first.route("**/*", nothing)
    await first.goto("http://127.0.0.1/")  # of the consoles' site, and asked of nobody
    return context


async def _emptied(context: BrowserContext) -> None:
    """Closes all pages but the first, and takes back what was allowed and set."""
    for page in context.pages[1:]:
        await page.close()
    await context.clear_cookies()
    await context.clear_permissions()
