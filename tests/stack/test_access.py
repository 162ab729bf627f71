"""Embedded servers answer only to who started them."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from tests import servers
from twinlog.dev import EmbeddedNats, EmbeddedPostgres, StartFailed, postgres
from twinlog.jetstream import connection as jetstream
from twinlog.testing.internals import JetStreamTwin, database_url

PASSWORDS = ["", "postgres", "twinlog"]


def private(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("password", PASSWORDS)
async def test_postgres_lets_nobody_in_without_its_password(
    own_postgres: EmbeddedPostgres, password: str
) -> None:
    url = urlsplit(own_postgres.url)
    assert url.password == (own_postgres.folder / "password").read_text().strip()
    assert private(own_postgres.folder / "password")
    for user in ("postgres", "nobody", "template1"):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
            await asyncpg.connect(
                host=url.hostname, port=url.port, user=user, password=password, database="postgres"
            )


@pytest.mark.parametrize("password", PASSWORDS)
async def test_nats_lets_nobody_in_without_its_password(own_nats: EmbeddedNats, password: str) -> None:
    url = urlsplit(own_nats.url)
    assert url.password == (own_nats.folder / "password").read_text().strip()
    assert private(own_nats.folder / "password")
    assert private(own_nats.folder / "nats.conf")
    reader, writer = await asyncio.open_connection("127.0.0.1", own_nats.port)
    try:
        login = {"user": "twinlog", "pass": password} if password else {}
        writer.write(f"CONNECT {json.dumps({'verbose': False, **login})}\r\nPING\r\n".encode())
        async with asyncio.timeout(60):
            said = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    assert b"-ERR 'Authorization Violation'" in said


async def test_no_process_shows_a_password(own_postgres: EmbeddedPostgres, own_nats: EmbeddedNats) -> None:
    passwords = [str(urlsplit(server.url).password) for server in (own_postgres, own_nats)]
    connection = await asyncpg.connect(database_url(own_postgres.url, "postgres"))
    try:
        for process in psutil.process_iter(["cmdline"]):
            shown = " ".join(process.info["cmdline"] or ())
            assert not any(password in shown for password in passwords)
    finally:
        await connection.close()


async def test_a_restart_keeps_the_password_and_a_removed_one_is_made_anew() -> None:
    with servers.folder() as folder:
        urls = []
        for removed in (False, False, True):
            server, bus = EmbeddedPostgres(folder / "pg", 0), EmbeddedNats(folder / "nats", 0)
            if removed:
                (folder / "pg" / "password").unlink()
            async with server, bus:
                await servers.execute(server.url, "SELECT 1")
                urls.append((urlsplit(server.url).password, urlsplit(bus.url).password))
        assert urls[0] == urls[1]
        assert urls[1][0] != urls[2][0]


async def test_data_of_a_release_without_passwords_goes_on_with_one() -> None:
    """Its Postgres trusted everybody and its NATS asked for nothing."""
    with servers.folder() as folder:
        async with EmbeddedPostgres(folder / "pg") as server:
            await servers.execute(server.url, "CREATE TABLE mine ()")
            await servers.execute(server.url, "ALTER ROLE postgres PASSWORD NULL")
        (server.folder / "password").unlink()
        trusting = "local all all trust\nhost all all 127.0.0.1/32 trust\n"
        (server.folder / "data" / "pg_hba.conf").write_text(trusting)
        async with EmbeddedNats(folder / "nats") as bus:
            client = await jetstream.connect(bus.url, "tests")
            await JetStreamTwin(client, "kept").create(5)
            await jetstream.close(client)
        (bus.folder / "password").unlink()
        (bus.folder / "nats.conf").chmod(0o644)

        async with EmbeddedPostgres(folder / "pg") as server, EmbeddedNats(folder / "nats") as bus:
            await servers.execute(server.url, "SELECT FROM mine")
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/postgres")
            assert private(bus.folder / "nats.conf")
            client = await jetstream.connect(bus.url, "tests")
            assert (await JetStreamTwin(client, "kept").state()).last == 4
            await jetstream.close(client)


async def test_a_start_that_was_cut_off_between_the_two_is_taken_up_again() -> None:
    """The password is kept last: whatever came before is done again."""
    with servers.folder() as folder:
        async with EmbeddedPostgres(folder / "pg") as server:
            pass
        (server.folder / "password").unlink()
        assert (server.folder / "data" / "pg_hba.conf").read_text() == postgres._ACCESS
        async with EmbeddedPostgres(folder / "pg") as server:
            await servers.execute(server.url, "SELECT 1")


async def test_a_password_that_is_not_the_datas_is_told() -> None:
    with servers.folder() as folder:
        async with EmbeddedPostgres(folder / "pg") as server:
            pass
        (server.folder / "password").write_text("another")
        with pytest.raises(StartFailed, match="remove it for a new one"):
            async with EmbeddedPostgres(folder / "pg"):
                pass
        (server.folder / "password").unlink()
        async with EmbeddedPostgres(folder / "pg") as server:
            await servers.execute(server.url, "SELECT 1")
