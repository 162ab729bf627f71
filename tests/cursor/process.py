"""A consumer that is killed now and then, right after a commit and before it learns so.

Usage: ``python -m tests.cursor.process <postgres url> <database> <log> <nats url> <source> <kind>``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from tests.cursor.consumers import VIEWS_PACKAGE, consumer_in
from tests.forks import forking
from twinlog import Recorded
from twinlog.consume.cursor import Handler
from twinlog.jetstream import connection as jetstream
from twinlog.log.ports import Handled
from twinlog.testing.internals import Cursor, JetStreamTwin, open_log


class Deadly:
    """Kills its process after the first commit."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.name, self.types, self.routing_key = handler.name, handler.types, handler.routing_key

    async def checkpoint(self) -> int:
        return await self._handler.checkpoint()

    async def stored(self) -> int:
        return await self._handler.stored()

    async def last_handled(self) -> Handled | None:
        return await self._handler.last_handled()

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        await self._handler.handle(events[:7], after)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


async def main(postgres_url: str, database: str, log: str, nats_url: str, source: str, kind: str) -> None:
    client = await jetstream.connect(nats_url, "tests")
    async with (
        open_log(postgres_url, database, log, VIEWS_PACKAGE) as own,
        consumer_in(own, source, kind).replica() as handler,
    ):
        await Cursor(JetStreamTwin(client, source), Deadly(handler)).run()


if __name__ == "__main__":
    forking(lambda: asyncio.run(main(*sys.argv[1:])))
