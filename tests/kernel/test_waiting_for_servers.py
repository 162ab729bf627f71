"""A service whose servers are not there: it waits, and says so once."""

from __future__ import annotations

import json
import os
import sys

from proof.chaos.proxy import Proxy
from stack.topology import ROOT
from tests.programs import program
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
        async with program(sys.executable, "-m", "projector", env=env, cwd=ROOT) as projector:
            await projector.until(lambda: nats.refused >= _ATTEMPTS)
            nats.refusing = False
            await projector.until(lambda: postgres.refused >= _ATTEMPTS)
            postgres.refusing = False
            await projector.says('"rpc.serving"')
            events = [json.loads(line)["event"] for line in projector.lines]

    about_servers = [event for event in events if event.startswith(("nats.", "postgres."))]
    assert about_servers[:3] == ["nats.waiting", "nats.available", "postgres.waiting"]
    for server in ("nats", "postgres"):
        said = [event.partition(".")[2] for event in about_servers if event.startswith(server)]
        # Once each time that it is away: what stands between them may hold up more than the first connection.
        assert said == ["waiting", "available"] * (len(said) // 2), about_servers
