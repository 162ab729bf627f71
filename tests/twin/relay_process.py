"""A relay that is killed right after it has published a batch, before it learns so.

Usage: ``python -m tests.twin.relay_process <postgres url> <database> <log> <nats url>``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from tests.forks import forking
from twinlog import Recorded
from twinlog.jetstream import connection as jetstream
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.relay import Relay
from twinlog.postgres.log import open_log


class Deadly(JetStreamTwin):
    """Kills its process when a batch is stored."""

    async def publish(self, events: Sequence[Recorded]) -> None:
        await super().publish(events)
        os.kill(os.getpid(), signal.SIGKILL)


async def main(postgres_url: str, database: str, name: str, nats_url: str) -> None:
    client = await jetstream.connect(nats_url, "relay")
    async with open_log(postgres_url, database, name) as log:
        await Relay(log, Deadly(client, name)).run()


if __name__ == "__main__":
    forking(lambda: asyncio.run(main(*sys.argv[1:])))
