"""One of several processes that append to a log at once, and fail at it in every way there is.

Usage: ``python -m tests.log.position_worker <server url> <database> <seed> <tasks> <rounds>``. Prints what it knows
to be committed: ``{event id: position}``, and how often it did what.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import suppress
from random import Random

from tests.kernel.batches import batch, counter
from twinlog import StreamId, Unavailable
from twinlog.log.ports import LogSession, ReadRequest
from twinlog.testing.internals import Appended, Batch, PostgresLog, database_url, open_pool

SHARED = [counter(f"shared-{number}") for number in range(8)]
"""Streams that all processes write to, so that they conflict."""


class Aborted(Exception):
    """The transaction is to be rolled back."""


class Worker:
    """Appends to a stream of its own and to the shared ones."""

    def __init__(self, log: PostgresLog, random: Random, own: StreamId) -> None:
        self._log = log
        self._random = random
        self._own = own
        self.known: dict[str, int] = {}
        self.did: Counter[str] = Counter()

    async def run(self, rounds: int) -> None:
        ways = [self.append, self.append, self.roll_back, self.lose_connection, self.give_up, self.be_late]
        for _ in range(rounds):
            way = self._random.choice(ways)
            with suppress(Unavailable):  # its connection was cut
                await way()
            self.did[way.__name__] += 1

    async def append(self) -> None:
        """The plain way; meets others at the shared streams."""
        batch = await self._batch(self._log)
        self._note(batch, await self._log.append(batch))

    async def roll_back(self) -> None:
        """Takes positions, then aborts."""
        with suppress(Aborted):
            async with self._log.exclusive() as session:
                assert isinstance(await session.append(await self._batch(session)), Appended)
                raise Aborted

    async def lose_connection(self) -> None:
        """Takes positions, then is cut before it commits."""
        async with self._log.exclusive() as session:
            assert isinstance(await session.append(await self._batch(session)), Appended)
            await _cut(session)

    async def give_up(self) -> None:
        """Does not wait for the answer; it may be committed or not."""
        appending = asyncio.create_task(self._log.append(await self._batch(self._log)))
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        appending.cancel()
        with suppress(asyncio.CancelledError):
            await appending

    async def be_late(self) -> None:
        """Expects a version that is no longer there, unless nothing is there yet."""
        written = batch((self._random.choice(SHARED), 0, 2))
        self._note(written, await self._log.append(written))

    async def _batch(self, session: LogSession) -> Batch:
        streams = [self._own, *self._random.sample(SHARED, self._random.randrange(2))]
        histories = await session.load([ReadRequest(stream) for stream in streams])
        return batch(
            *(
                (stream, len(history.events), self._random.randint(1, 4))
                for stream, history in zip(streams, histories, strict=True)
            )
        )

    def _note(self, batch: Batch, result: object) -> None:
        if isinstance(result, Appended):
            self.did["committed"] += 1
            ids = (str(event.event_id) for event in batch.events)
            self.known |= {id: position for position, id in enumerate(ids, result.first)}
        else:
            self.did["conflicts"] += 1


async def _cut(session: LogSession) -> None:
    connection = session._connection  # type: ignore[attr-defined]
    await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def main(server: str, database: str, seed: int, tasks: int, rounds: int) -> None:
    async with open_pool(database_url(server, database), "twinlog.postgres.sql", size=tasks) as pool:
        log = PostgresLog(pool, "counters")
        workers = [
            Worker(log, Random(f"{seed}/{number}"), counter(f"{seed}-{number}")) for number in range(tasks)
        ]
        await asyncio.gather(*(worker.run(rounds) for worker in workers))
    known = {id: position for worker in workers for id, position in worker.known.items()}
    print(json.dumps({"known": known, "did": sum((worker.did for worker in workers), Counter())}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
