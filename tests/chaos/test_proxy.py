"""The proxy that stands between services and servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from proof.chaos.proxy import Proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that echoes lines."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, asyncio.timeout(60), Proxy(server.sockets[0].getsockname()[1]) as between:
        yield between


async def test_it_passes_on_what_it_gets(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"one\ntwo\n")
    writer.write_eof()

    assert await reader.read() == b"one\ntwo\n"
    writer.close()


async def test_a_cut_breaks_open_connections_and_takes_new_ones(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"one\n")
    await reader.readline()
    proxy.cut()

    with pytest.raises(ConnectionError):
        await reader.readexactly(1)
    writer.close()
    await test_it_passes_on_what_it_gets(proxy)


async def test_what_is_lost_passes_nothing_and_is_not_told(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"one\n")
    await reader.readline()
    proxy.lose()
    writer.write(b"two\n")
    await test_it_passes_on_what_it_gets(proxy)

    answer = asyncio.ensure_future(reader.readline())
    await asyncio.wait([answer], timeout=0.05)
    assert not answer.done()
    answer.cancel()
    writer.close()


async def test_it_refuses_and_counts(proxy: Proxy) -> None:
    proxy.refusing = True
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)

    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    assert proxy.refused == 1
    writer.close()


async def test_what_is_held_comes_when_it_is_released(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.hold()
    writer.write(b"one\n")
    answer = asyncio.ensure_future(reader.readline())
    done, _ = await asyncio.wait([answer], timeout=0.05)
    assert not done
    proxy.release()

    assert await answer == b"one\n"
    writer.close()


async def test_a_delay_counts_in_each_direction(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.delay = 0.05
    started = asyncio.get_running_loop().time()
    writer.write(b"one\n")

    assert await reader.readline() == b"one\n"
    assert asyncio.get_running_loop().time() - started >= 0.1
    writer.close()


async def test_it_is_mended_at_once(proxy: Proxy) -> None:
    proxy.refusing, proxy.delay = True, 60.0
    proxy.hold()
    proxy.mend()

    await test_it_passes_on_what_it_gets(proxy)
