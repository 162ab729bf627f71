"""A service whose servers are not there: it waits, and says so once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT

from proof.chaos.proxy import Proxy
from tests.waiting import until
from twinlog.dev import EmbeddedNats, free_port
from twinlog.testing.internals import database_url

_ATTEMPTS = 4


async def test_a_start_with_servers_absent_waits_and_says_so_once(
    postgres_url: str, own_nats: EmbeddedNats, empty_database: str
) -> None:
    port = int(postgres_url.rsplit(":", 1)[1].split("/")[0])
    async with Proxy(port) as postgres, Proxy(own_nats.port) as nats:
        postgres.refusing = nats.refusing = True
        env = {
            **os.environ,
            "POSTGRES_URL": database_url(postgres_url, empty_database).replace(
                f":{port}", f":{postgres.port}"
            ),
            "NATS_URL": own_nats.url_at(nats.port),
            "QUERIES_ADDRESS": f"127.0.0.1:{free_port()}",
        }
        command = [sys.executable, "-m", "projector"]
        process = await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE, stderr=STDOUT)
        try:
            await until(lambda: nats.refused >= _ATTEMPTS)
            nats.refusing = False
            await until(lambda: postgres.refused >= _ATTEMPTS)
            postgres.refusing = False
            events = await _events_until(process, "rpc.serving")
        finally:
            process.kill()
            await process.wait()

    about_servers = [event for event in events if event.startswith(("nats.", "postgres."))]
    assert about_servers[:3] == ["nats.waiting", "nats.available", "postgres.waiting"]
    for server in ("nats", "postgres"):
        said = [event.partition(".")[2] for event in about_servers if event.startswith(server)]
        # Once each time that it is away: what stands between them may hold up more than the first connection.
        assert said == ["waiting", "available"] * (len(said) // 2), about_servers


async def _events_until(process: asyncio.subprocess.Process, last: str) -> list[str]:
    assert process.stdout is not None
    events: list[str] = []
    async with asyncio.timeout(200):
        while last not in events:
            events.append(json.loads(await process.stdout.readline())["event"])
    return events
