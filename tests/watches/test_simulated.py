"""The projector's watches in the simulator: crashes at any round trip, lost answers, two replicas, stores set back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import pytest

from projector.app import SPEC, VIEWS, WATCHED, feed
from projector.views.orders import ORDERS, OrderRow
from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED, ORDER_STATE_PENDING
from tests.simulation import tally
from tests.simulation.model import Model
from tests.simulation.shop import services
from tests.simulation.workload import FAULTY_SECONDS, script
from twinlog import Service, Unavailable, ViewStore
from twinlog.model import row_changes
from twinlog.rpc import Change, ReadModel, WatchExpired, WatchTooSlow, watches
from twinlog.testing import Hosted, Scenario, Simulation, check
from twinlog.testing.simulation.loop import LIFE, Life

SEEDS = 12
PLANTED_SEEDS = 40


class Watcher:
    """A client that watches orders of a state, or all, at one replica after the other."""

    def __init__(self, state: int, chance: Random) -> None:
        self.state = state
        self.held: dict[str, OrderRow] = {}
        self.token = ""
        self._chance = chance
        self._at: Life | None = None
        """The life of the process that it is connected to."""

    async def live(self, reads: ReadModel) -> None:
        """Its part in a process: takes a turn whenever it is connected nowhere else."""
        me = LIFE.get()
        while True:
            if self._at is None or not self._at.alive:
                self._at = me
                try:
                    async with asyncio.timeout(0.2 + 2 * self._chance.random()):
                        await self._watch(reads)
                except WatchExpired:
                    self.held, self.token = {}, ""
                except (TimeoutError, Unavailable, WatchTooSlow):
                    pass
                self._at = None
            await asyncio.sleep(0.1 + self._chance.random())

    async def _watch(self, reads: ReadModel) -> None:
        by = {"state": self.state} if self.state else {}

        async def first(moment: Any) -> Sequence[OrderRow]:
            return [row for row in moment.tables.get("orders", {}).values() if self._is_mine(row)]

        async for change in reads.watch_rows(ORDERS, by, self.token, first):
            self._take(change)

    def _take(self, change: Change) -> None:
        for key, row in change.rows.items():
            before = self.held.get(key)
            check(before is None or before.version < row.version, "watches", f"{key[-4:]} is told twice")
            self.held[key] = row
        for key in change.left:
            check(self.held.pop(key, None) is not None, "watches", f"{key[-4:]} leaves, and was not there")
        self.token = change.resume_token

    def _is_mine(self, row: OrderRow) -> bool:
        return self.state in (0, row.state)

    def lacks(self, rows: dict[str, OrderRow]) -> bool:
        return self.held != {key: row for key, row in rows.items() if self._is_mine(row)}


class Watched(float):
    """The options of a seed: the deadline of orders in seconds, and those who watch."""

    def __new__(cls, chance: Random) -> Watched:
        made = super().__new__(cls, chance.choice((0.5, 3.0)))
        states = (0, ORDER_STATE_PENDING, ORDER_STATE_APPROVED)
        made.crowd = [Watcher(state, Random(chance.random())) for state in states]
        return made

    crowd: Sequence[Watcher]


class WatchedModel(Model):
    """The shop's invariants, and that watchers hold what there is."""

    def unfinished(self) -> Iterator[str]:
        yield from super().unfinished()
        rows = dict(self.scene.rows(ORDERS))
        for watcher in self.scene.options.crowd:
            if watcher.lacks(rows):
                yield f"the watcher of state {watcher.state} does not hold what there is"


def hosted(options: Watched) -> Sequence[Hosted]:
    def wire(service: Service, views: ViewStore) -> None:
        reads = ReadModel(service, views, VIEWS, watched=WATCHED)
        feed(service, views, reads.committed)
        for number, watcher in enumerate(options.crowd):
            service.start(f"watcher {number}", watcher.live(reads))

    others = [each for each in services(float(options)) if each.name != SPEC.name]
    return [*others, Hosted(SPEC, wire), tally.HOSTED]


SHOP = Simulation(
    Scenario(services=hosted, script=script, options=Watched, faulty_seconds=FAULTY_SECONDS), WatchedModel
)


def test_watchers_hold_what_there_is_and_are_told_nothing_twice() -> None:
    for seed, failure in SHOP.sweep(range(SEEDS)).failures:
        pytest.fail(f"seed {seed}: {failure.promise}: {failure.facts}", pytrace=False)


def test_a_watch_that_misses_a_change_at_resume_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    since = row_changes.since
    monkeypatch.setattr(watches, "since", lambda noted, _marks: since(noted, noted.now))
    assert [failure.promise for _, failure in SHOP.sweep(range(PLANTED_SEEDS)).failures]
