"""Requests that the console refuses, and what its responses say to browsers."""

from __future__ import annotations

import asyncio
import gzip
import re
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import suppress
from email.message import Message
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
import pytest_asyncio

from tests.console.patience import SHOWN_SECONDS
from tests.console.shop import ServedShop, served
from twinlog.console import Answer, connections, refused, rendering
from twinlog.console.answers import Why
from twinlog.console.process import AddressTaken, PagesUnusable, pages_of, serving

pytestmark = pytest.mark.asyncio(loop_scope="package")

_INLINE = re.compile(r"<style|<script(?! src)|\sstyle=|\son[a-z]+=|javascript:|https?://")


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def shop() -> AsyncIterator[ServedShop]:
    """One for all of these tests, which change nothing of it that another looks at."""
    async with served() as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def console(shop: ServedShop) -> AsyncIterator[str]:
    """The URL of a console of the shop."""
    async with serving(shop.addresses) as url:
        yield url


class Response(NamedTuple):
    status: int
    headers: Message
    body: bytes


async def ask(url: str, *, body: bytes | None = None, **headers: str) -> Response:
    """A request's response; headers have _ for -."""
    request = urllib.request.Request(url, body, {name.replace("_", "-"): v for name, v in headers.items()})

    def call() -> Response:
        try:
            with urllib.request.urlopen(request, timeout=SHOWN_SECONDS) as response:
                return Response(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, error.headers, error.read())

    return await asyncio.to_thread(call)


async def test_those_who_connect_and_say_nothing_are_closed_for_those_who_come(
    console: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_MOST", 4)
    address = urlsplit(console)
    opened = [await asyncio.open_connection(address.hostname, address.port) for _ in range(20)]
    async with asyncio.timeout(SHOWN_SECONDS):
        for reader, _ in opened[:16]:
            with suppress(ConnectionError):
                assert await reader.read() == b""
    assert (await ask(f"{console}/healthz")).status == 200
    for _, writer in opened:
        writer.close()


async def test_who_is_answered_stays_while_others_say_nothing(
    console: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_MOST", 4)
    address = urlsplit(console)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    asked = f"POST / HTTP/1.1\r\nHost: {address.netloc}\r\nOrigin: {console}\r\nContent-Length: 1\r\n"
    writer.write(f"{asked}Expect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(SHOWN_SECONDS):
        begun = await reader.readuntil(b"\r\n\r\n")
        silent = [await asyncio.open_connection(address.hostname, address.port) for _ in range(20)]
        for other, _ in silent[:16]:
            with suppress(ConnectionError):
                assert await other.read() == b""
        writer.write(b"x")
        assert begun.startswith(b"HTTP/1.1 100 ")
        assert (await reader.readline()).startswith(b"HTTP/1.1 ")
    for _, each in [(reader, writer), *silent]:
        each.close()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:50050", "127.0.0.1.evil.example", "[::1", ""])
async def test_another_name_for_this_machine_is_refused(console: str, host: str) -> None:
    assert (await ask(console, Host=host)).status == 403


async def test_its_own_names_are_taken(console: str) -> None:
    port = console.rpartition(":")[2]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert (await ask(console, Host=host)).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "http://127.0.0.1:1", "file://"])
async def test_a_form_of_another_page_is_refused(console: str, origin: str) -> None:
    response = await ask(f"{console}/sagas", body=b"action=retry", Origin=origin)
    assert response.status == 403


async def test_an_action_that_a_page_has_not_is_refused(console: str) -> None:
    response = await ask(console, body=b"action=nothing", Origin=console)
    assert response.status == 400


async def test_a_form_may_not_be_endless(console: str) -> None:
    response = await ask(console, body=b"a" * 300_000, Origin=console)
    assert response.status == 413


async def test_every_response_forbids_what_pages_do_not_need(console: str) -> None:
    for path in ("/", "/nowhere", "/healthz", "/static/0/console.css"):
        headers = (await ask(console + path)).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"


async def test_no_page_has_script_or_style_of_its_own(console: str, shop: ServedShop) -> None:
    await shop.orders(1)
    for path in (
        "/",
        "/sagas",
        "/dead-letters",
        "/log",
        "/log/orders/1",
        "/views",
        "/views/projector/orders",
        "/services/order_svc",
    ):
        page = (await ask(console + path)).body.decode()
        assert not re.search(
            r"<style|<script(?! src)|\sstyle=|\son[a-z]+=|javascript:|https?://(?!www\.w3)", page
        ), path


async def test_files_may_be_kept_for_ever_since_their_address_names_their_content(console: str) -> None:
    page = (await ask(console)).body.decode()
    found = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(found) == 3
    for path in found:
        response = await ask(console + path)
        assert response.status == 200
        assert "immutable" in response.headers["Cache-Control"]
    assert (await ask(console)).headers["Cache-Control"] == "no-store"
    assert (await ask(f"{console}/static/000000000000/console.css")).status == 404
    assert (await ask(f"{console}/static/x/..%2Fapp.py")).status == 404


@pytest.mark.parametrize("name", ["a" * 300, "%00", "%ff", "nowhere.css", "."])
async def test_no_name_of_a_file_is_looked_for_and_none_is_kept(console: str, name: str) -> None:
    """Anybody may ask for any: each would take memory, and a long one was taken for a defect."""
    kept = rendering._contents()
    assert (await ask(f"{console}/static/x/{name}")).status == 404
    assert rendering._contents() is kept and unquote(name) not in kept


async def test_pages_are_sent_compressed(console: str) -> None:
    response = await ask(console, Accept_Encoding="gzip")
    assert response.headers["Content-Encoding"] == "gzip"
    assert b"<main" in gzip.decompress(response.body)


async def test_what_is_shown_is_text_whatever_is_in_it(shop: ServedShop, console: str) -> None:
    bad = "%3Cscript%3Ealert(1)%3C/script%3E"
    for path in (f"/log?stream={bad}&type={bad}", f"/log/orders/stream/{bad}", f"/services/{bad}", f"/{bad}"):
        assert b"<script>alert" not in (await ask(console + path)).body


async def test_what_is_not_there_leads_on(shop: ServedShop, console: str) -> None:
    for path, ways in (
        ("/nowhere", ["/"]),
        ("/log/orders/999", ["/log", "/"]),
        ("/views/a/b", ["/views", "/"]),
    ):
        response = await ask(console + path)
        found = re.findall(r'class="button" href="([^"]*)"', response.body.decode())
        assert (response.status, found) == (404, ways), path


async def test_nothing_is_said_to_be_missing_by_a_version_that_does_not_serve_it() -> None:
    for reason, said in (("NOT_FOUND", "It has no such thing."), ("UNIMPLEMENTED", "old: it cannot.")):
        answer = Answer[None]("old", None, Why.REFUSED, "it cannot", reason)
        assert str(refused("It has no such thing.", answer)) == said


async def test_an_address_that_is_taken_is_told_with_its_setting(shop: ServedShop, console: str) -> None:
    taken = console.removeprefix("http://")
    with pytest.raises(
        AddressTaken, match=rf"CONSOLE_ADDRESS: {taken} cannot be had \(Address already in use\)"
    ):
        async with serving(shop.addresses, taken):
            pass


async def test_pages_that_cannot_be_imported_are_told_with_their_setting() -> None:
    with pytest.raises(PagesUnusable, match=r"CONSOLE_PAGES: no\.such cannot be used: ModuleNotFoundError"):
        pages_of("no.such")
