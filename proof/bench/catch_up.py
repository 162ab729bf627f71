"""A new projector catches up with the logs of the shop: ``python -m proof.bench.catch_up``.

Settings as a service's; its views are in its own database. Prints its row as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, replace
from time import perf_counter

from projector.app import PACKAGE, SPEC, VIEWS, WATCHED, QuerySettings, feed
from projector.reads import ROWS
from proof.bench.report import Row
from twinlog import PostgresViews, Service, Shutdown, load, open_service, run
from twinlog.testing.internals import Changes, configure_logging

TARGET = 15_000
"""Events a second."""


class Progress:
    """Which logs are not in the views yet."""

    def __init__(self, heads: dict[str, int]) -> None:
        """``heads``: the last position that each consumer is to reach."""
        self._heads = heads
        self.done = asyncio.Event()

    def committed(self, consumer: str, position: int, _changes: Changes) -> None:
        if position >= self._heads.get(consumer, 0):
            self._heads.pop(consumer, None)
        if not self._heads:
            self.done.set()


async def _heads(service: Service) -> dict[str, int]:
    states = {log: await service.twin(log).state() for log in VIEWS}
    return {f"projector.{log}": state.last for log, state in states.items() if state.last}


async def main(shutdown: Shutdown) -> None:
    """Measures it, and prints it."""
    name = "bench_views"
    spec = replace(SPEC, name=name, log=name, database=name)
    async with open_service(spec, load(QuerySettings), shutdown) as service:
        configure_logging("warning")
        heads = await _heads(service)
        events, progress = sum(heads.values()), Progress(heads)
        start = perf_counter()
        views = PostgresViews(service.log, PACKAGE, ROWS)
        views.note(WATCHED)  # as the projector does
        feed(service, views, progress.committed)
        async with asyncio.timeout(300):
            await progress.done.wait()
        rate = events / (perf_counter() - start)
    row = Row(f"projector: catches up with {events:,} events", "events/s", values=[rate])
    print(json.dumps([asdict(row.aim(value=TARGET))]))


if __name__ == "__main__":
    sys.exit(run(main))
