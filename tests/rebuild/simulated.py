"""The shop while its orders view is built anew: processes crash, streams become unreadable, and somebody switches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from random import Random
from typing import Any, Self

from projector.app import SPEC, feed
from projector.views.orders import ORDERS
from tests.simulation.model import Model
from tests.simulation.shop import services, unreadable
from tests.simulation.workload import FAULTY_SECONDS, script
from twinlog import FailedPrecondition, NotFound, Service, Unavailable, ViewStore
from twinlog._aio.retrying import Retrying
from twinlog.log.view_builds import LiveBuilds, Rows, SetAsideMeanwhile
from twinlog.log.view_store import Build
from twinlog.memory.views import MemoryViews
from twinlog.model.row_changes import NO_ROWS, Crossing
from twinlog.model.view import AnyView, Changes
from twinlog.rpc.view_operations import ViewOperations
from twinlog.service.environment import NoMessages
from twinlog.testing import Hosted, Kinds, Scenario, Simulation, check
from twinlog.testing.internals import Appended, Batch, CheckpointAdvance, UnknownEventType
from twinlog.testing.simulation.network import at_once
from twinlog.testing.simulation.newer import UNKNOWN
from twinlog.testing.simulation.views import RemoteViews

_READ_EVERY_SECONDS = 0.1
_SOURCE = "orders"
"""The log that the view is of."""


class RemoteBuilds(RemoteViews):
    """Views with builds, as a process sees them."""

    def __init__(self, views: RemoteViews, world: Any) -> None:
        super().__init__(views._network, views._client, views._server)
        self._world = world
        self.live = LiveBuilds()
        self._place: str | None = None

    def at(self, place: str) -> Self:
        kept = copy(self)
        kept._place = place
        return kept

    def kept(self) -> Self:
        return self.at(self._place or "")

    def begin_noting(self) -> None:
        """Nobody watches."""

    @property
    def _store(self) -> MemoryViews:
        """The store at the place that is meant."""
        live = self.live.current.get(ORDERS.name)
        place = self._place if self._place is not None else live.place if live else ""
        return self._server.views.at(place)

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await self._read(lambda store: at_once(store.rows(view, keys)))
        return found

    async def all_rows(self) -> Mapping[str, Any]:
        """Every order."""
        found: Mapping[str, Any] = await self._read(lambda store: dict(_table(store, store._place or "")))
        return found

    async def _read(self, read: Callable[[MemoryViews], Any]) -> Any:
        while self._place is None and self.live.opened:
            await self.live.opened.wait()
        self.live.reads += self._place is None
        try:
            store = self._store
            return await self._ask("rows", lambda: read(store))
        finally:
            self.live.reads -= self._place is None

    async def commit(
        self,
        changes: Changes,
        advance: CheckpointAdvance,
        batch: Batch | None = None,
        *,
        before: Changes = NO_ROWS,
    ) -> Any:
        if not self._place:
            return await super().commit(changes, advance, batch, before=before)
        store, server = self._store, self._server
        self._refuse_unreadable(changes)

        def apply() -> Any:
            first = len(server.views.log.events) + 1
            conflict = at_once(store.commit(changes, advance, batch, before=before))
            if conflict is None and batch:
                server.log.committed(batch, Appended(first))
            return conflict

        return await self._ask("commit", apply)

    def _refuse_unreadable(self, changes: Changes) -> None:
        """A build knows nothing of the newer versions by which streams are unreadable for a while. Raises as a schema
        does."""
        unreadable = self._world.logs[_SOURCE].unreadable
        now = self._world.loop.time()
        newer = {stream.id for stream, (_, until) in unreadable.items() if now < until}
        if any(newer & rows.keys() for rows in changes.values()):
            raise UnknownEventType(type=UNKNOWN)

    async def builds(self) -> Sequence[Build]:
        return await self._ask("builds", lambda: at_once(self._server.views.builds()))

    async def settle_home(self, view: str, version: int) -> None:
        await self._ask("settle", lambda: at_once(self._server.views.settle_home(view, version)))

    async def begin_build(self, view: AnyView, home_version: int, share: int = 100) -> Build:
        return await self._ask(
            "begin", lambda: at_once(self._server.views.begin_build(view, home_version, share))
        )

    async def switch(
        self, to: Build, live: Build, consumers: Mapping[str, str], letters: Mapping[str, int] | None
    ) -> Mapping[str, int]:
        def switch() -> Mapping[str, int] | SetAsideMeanwhile:
            try:
                return at_once(self._server.views.switch(to, live, consumers, letters))
            except SetAsideMeanwhile as error:  # it is no error of a store
                return error

        behind = await self._ask("switch", switch)
        if isinstance(behind, SetAsideMeanwhile):
            raise behind
        return behind

    async def kept_for(self, build: Build) -> float:
        return await self._ask("kept for", lambda: at_once(self._server.views.kept_for(build)))

    async def drop_build(
        self, build: Build, consumers: Sequence[str], table: str, crossing: Crossing | None = None
    ) -> float:
        return await self._ask(
            "drop", lambda: at_once(self._server.views.drop_build(build, consumers, table, crossing))
        )

    async def compare_builds(
        self, old: Build, new: Build, views: tuple[AnyView, AnyView], keys: Sequence[str] | None, limit: int
    ) -> Rows:
        def compare() -> Rows:
            return at_once(self._server.views.compare_builds(old, new, views, keys, limit))

        return await self._ask("compare", compare)

    async def count_rows(self, build: Build, table: str) -> int | None:
        return await self._ask("count", lambda: at_once(self._server.views.count_rows(build, table)))


def _table(store: MemoryViews, place: str) -> Mapping[str, Any]:
    return store.tables.get(f"{place}/{ORDERS.table}" if place else ORDERS.table, {})


class Operator:
    """Builds the orders view anew, switches to and fro, and is not put off by anything."""

    def __init__(
        self, chance: Random, steps: Sequence[str] = ("rebuild", "switch", "back", "switch"), share: int = 100
    ) -> None:
        """``share``: percent of the time that a build may be filled in."""
        self._chance = chance
        self.steps = steps
        self._share = share
        self.done: list[str] = []

    async def live(self, service: Service, views: RemoteBuilds) -> None:
        """Its part in a process."""
        operations = ViewOperations(service.view_builds, service.twin, NoMessages())
        while len(self.done) < len(self.steps):
            await asyncio.sleep(2 * self._chance.random())
            with suppress(Unavailable, FailedPrecondition, NotFound):
                await self._step(operations, await views.builds())

    async def _step(self, operations: ViewOperations, builds: Sequence[Build]) -> None:
        """An answer may have been lost: what there is says what has happened."""
        at = len(self.done)
        if at == len(self.steps):
            return  # another process has done the last meanwhile
        live = next((build.number for build in builds if build.live), 0)
        match self.steps[at]:
            case "rebuild":
                done = len(builds) > 1
                act: Callable[[], Awaitable[object]] = partial(
                    operations.rebuild, ORDERS.name, 0, self._share, dry_run=False
                )
            case "back":
                done = live == 1
                act = partial(operations.switch_back, ORDERS.name, dead_letters=False, dry_run=False)
            case _:
                done = live == 2
                act = partial(
                    operations.switch, ORDERS.name, 2, differences=True, dead_letters=False, dry_run=False
                )
        if not done:
            await act()
        elif len(self.done) == at:
            self.done.append(self.steps[at])


async def read(service: Service, views: RemoteBuilds) -> None:
    """Reads over and over again, once the process would serve; no answer of it is older than the one before."""
    await Retrying(
        say_failing=lambda _: None,
        say_working=lambda: None,
        on=(Unavailable,),
        randomness=service.environment.randomness,
    )(service.view_builds.look)
    seen: dict[str, int] = {}
    while True:
        with suppress(Unavailable):
            rows = await views.all_rows()
            for key, row in rows.items():
                before = seen.get(key, 0)
                check(
                    row.version >= before,
                    "one way",
                    f"{key[-4:]} was read in version {before}, then {row.version}",
                )
            gone = seen.keys() - rows.keys()
            check(
                not gone, "one way", f"{sorted(key[-4:] for key in gone)} were read, and then were not there"
            )
            seen = {key: row.version for key, row in rows.items()}
        await asyncio.sleep(_READ_EVERY_SECONDS)


class Rebuilt(float):
    """The options of a seed: the deadline of orders in seconds, and the operator."""

    operator: Operator

    def __new__(cls, chance: Random) -> Self:
        made = super().__new__(cls, chance.choice((0.5, 3.0)))
        made.operator = Operator(Random(chance.random()))
        return made


class Filled(Rebuilt):
    """The same, while the build is filled slowly, and nobody switches to it."""

    def __new__(cls, chance: Random) -> Self:
        made = super().__new__(cls, chance)
        made.operator = Operator(Random(chance.random()), ("rebuild",), share=1)
        return made


def set_back(every: Kinds) -> Kinds:
    """The log that the build is filled from loses its end, and somebody writes others in their place."""
    back = every["set back"]._replace(targets=(_SOURCE,), smallest=0, largest=3, weight=8)
    return {"set back": back, **{name: every[name] for name in ("crash", "freeze", "lost replies", "wipe")}}


class RebuiltModel(Model):
    """The shop's invariants, and that every build is what the home is."""

    def unfinished(self) -> Iterator[str]:
        yield from super().unfinished()
        operator: Operator = self.scene.options.operator
        if len(operator.done) < len(operator.steps):
            yield f"the view was not switched, only {operator.done}"
        yield from self._lagging()

    def _lagging(self) -> Iterator[str]:
        store = self.scene.views[SPEC.name]
        for consumer, position in store.positions.items():
            if "@" in consumer and position < store.positions.get(f"{SPEC.name}.orders", 0):
                yield f"{consumer} is at {position}"

    def at_rest(self) -> None:
        super().at_rest()
        store = self.scene.views[SPEC.name]
        home = _table(store, "")
        for build in at_once(store.builds()):
            rows = _table(store, build.place)
            differ = sorted(key[-4:] for key in {**home, **rows} if home.get(key) != rows.get(key))
            check(not differ, "rebuilds", f"build {build.number} and the home differ in {differ}")


def hosted(options: Rebuilt) -> Sequence[Hosted]:
    """The shop, with the operator at its projector."""

    def wire(service: Service, views: ViewStore) -> None:
        assert isinstance(views, RemoteViews | MemoryViews)
        if isinstance(views, MemoryViews):  # the survey looks at the wiring only
            feed(service, views)
            return
        world: Any = getattr(service, "_world")  # noqa: B009 - a simulated service has one
        built = RemoteBuilds(views, world)
        feed(service, built)
        service.start("operator", options.operator.live(service, built))
        service.start("reader", read(service, built))

    return [*(each for each in services(float(options)) if each.name != SPEC.name), Hosted(SPEC, wire)]


REBUILDS = Simulation(
    Scenario(
        services=hosted, script=script, options=Rebuilt, kinds=unreadable, faulty_seconds=FAULTY_SECONDS
    ),
    RebuiltModel,
)

FILLS = Simulation(
    Scenario(services=hosted, script=script, options=Filled, kinds=set_back, faulty_seconds=FAULTY_SECONDS),
    RebuiltModel,
)
