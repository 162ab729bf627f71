"""The builds of views as operators are shown them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twinlog.consume.projection import Projection
from twinlog.consume.view_builds import Declared, ViewBuilds
from twinlog.log.twin import Counting, Twin, TwinDamaged, TwinMissing
from twinlog.log.view_build import Build
from twinlog.model.errors import Unavailable
from twinlog.rpc.view_refusals import ViewBuildUnknown, ViewUnknown, ViewVersionUnknown

NEAR = 1_000
"""A build with fewer events ahead is ready."""


class Standing(NamedTuple):
    """How far a build is in one log."""

    log: str
    consumer: str
    position: int
    head: int
    ahead: int
    """Events in between that are wanted."""
    dead_letters: int
    problem: str


class Shown(NamedTuple):
    """A build, as it is now."""

    build: Build
    table: str
    orphaned: bool
    standings: Sequence[Standing]
    rate: float
    """Events a second, of late."""
    rows: int | None = None
    """About how many there are; None where that is not known."""

    @property
    def ready(self) -> bool:
        """Whether it is nearly as far as the streams."""
        return bool(self.standings) and all(each.ahead <= NEAR for each in self.standings)


class ShownBuilds:
    """Finds builds, and shows how far they are."""

    def __init__(self, builds: ViewBuilds, twin: Callable[[str], Twin]) -> None:
        self._builds = builds
        self._twin = twin

    def declared(self, view: str) -> Declared:
        """A view by its name. Raises ViewUnknown."""
        declared = self._builds.declared.get(view)
        if declared is None:
            raise ViewUnknown(view=view, views=", ".join(sorted(self._builds.declared)) or "none")
        return declared

    async def of(self, declared: Declared) -> Sequence[Build]:
        """Its builds, oldest first."""
        found = [build for build in await declared.store.builds() if build.view == declared.name]
        if found:
            return found
        began = next(iter(declared.versions))
        return [declared.home(began)]

    async def build(self, declared: Declared, number: int) -> Build:
        """One of them; 0: the newest. Raises ViewBuildUnknown."""
        known = await self.of(declared)
        if not number:
            return next((each for each in reversed(known) if not each.dropped), known[-1])
        for each in known:
            if each.number == number:
                return each
        raise ViewBuildUnknown(
            view=declared.name, build=number, builds=", ".join(str(each.number) for each in known)
        )

    async def live(self, declared: Declared) -> Build:
        """The one that queries read. Raises ViewVersionUnknown where this program does not declare its version."""
        live = next((each for each in await self.of(declared) if each.live), None)
        if live is None or live.version not in declared.versions:
            raise ViewVersionUnknown(view=declared.name, version=live.version if live else "?")
        return live

    async def shown(self, declared: Declared, build: Build) -> Shown:
        """How far one is now."""
        stands = await declared.store.checkpoints()
        standings = [
            await self._standing(projection, consumer, stands.get(consumer, 0))
            for projection, _ in declared.feeding(build.version)
            for consumer in [declared.consumers(build)[projection.source]]
        ]
        table = f"{build.place}.{build.table}" if build.place else build.table
        rate = sum(self._builds.rate(each.consumer) for each in standings)
        rows = None if build.dropped else await declared.store.count_rows(build, build.table)
        return Shown(build, table, build.version not in declared.versions, standings, rate, rows)

    async def _standing(self, projection: Projection, consumer: str, position: int) -> Standing:
        log = projection.source
        twin, problem = self._twin(log), self._builds.problem_of(consumer)
        head = ahead = position
        try:
            head = (await twin.state()).last
            ahead = max(0, head - position)
            if ahead and isinstance(twin, Counting):
                ahead = await twin.ahead(position, projection.types, projection.routing_key)
        except (TwinMissing, TwinDamaged, Unavailable) as error:
            problem = problem or str(error)
        handler = self._builds.dead_letters(consumer)
        return Standing(log, consumer, position, head, ahead, handler.count if handler else 0, problem)
