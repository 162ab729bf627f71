"""The builds of views as operators are shown them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twinlog.consume.projection import Projection
from twinlog.consume.view_builds import Declared, ViewBuilds
from twinlog.log.twin import Counting, Twin, TwinDamaged, TwinMissing
from twinlog.log.view_store import Build
from twinlog.model.errors import Unavailable
from twinlog.model.times import timestamp
from twinlog.rpc.view_refusals import ViewBuildUnknown, ViewUnknown, ViewVersionUnknown
from twinlog.v1 import view_service_pb2 as pb

NEAR = 1_000
"""A build with fewer events ahead is ready."""


class Standing(NamedTuple):
    """How far a build is in one log."""

    told: pb.ViewBuildProgress
    ahead: int
    """Events in between that are wanted."""


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

    async def shown(self, declared: Declared, build: Build) -> pb.ViewBuild:
        """How far one is now."""
        stands = await declared.store.checkpoints()
        standings = [
            await self._standing(projection, consumer, stands.get(consumer, 0))
            for projection, _ in declared.feeding(build.version)
            for consumer in [declared.consumers(build)[projection.source]]
        ]
        rate = sum(self._builds.rate(each.told.consumer) for each in standings)
        shown = shown_build(build, standings, rate, orphaned=build.version not in declared.versions)
        shown.table = f"{build.place}.{build.table}" if build.place else build.table
        if not build.dropped and (rows := await declared.store.count_rows(build, build.table)) is not None:
            shown.rows = rows
        return shown

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
        told = pb.ViewBuildProgress(
            log=log,
            consumer=consumer,
            position=position,
            head=head,
            dead_letters=handler.count if handler else 0,
            problem=problem,
        )
        return Standing(told, ahead)


def shown_build(
    build: Build, standings: Sequence[Standing] = (), rate: float = 0.0, *, orphaned: bool = False
) -> pb.ViewBuild:
    """A build, as far as it is known without its table. ``rate``: events a second, of late."""
    ahead = sum(each.ahead for each in standings)
    handled, all_of_them = (sum(getattr(each.told, of) for each in standings) for of in ("position", "head"))
    shown = pb.ViewBuild(
        view=build.view,
        build=build.number,
        version=build.version,
        state=_state(build, standings, orphaned),
        begun_at=timestamp(build.begun_at),
        progress=[each.told for each in standings],
        percent=100.0 if not ahead else min(99.9, 100 * handled / max(1, all_of_them)),
        events_per_second=rate,
        seconds_left=0.0 if not ahead else ahead / rate if rate > 0 else -1.0,
        share=build.share,
    )
    if build.live_since:
        shown.live_since.CopyFrom(timestamp(build.live_since))
    if build.live_until:
        shown.live_until.CopyFrom(timestamp(build.live_until))
    return shown


def _state(build: Build, standings: Sequence[Standing], orphaned: bool) -> pb.ViewBuildState.ValueType:
    if build.dropped:
        return pb.VIEW_BUILD_STATE_DROPPED
    if build.live:
        return pb.VIEW_BUILD_STATE_LIVE
    if orphaned:
        return pb.VIEW_BUILD_STATE_ORPHANED
    ready = bool(standings) and all(each.ahead <= NEAR for each in standings)
    return pb.VIEW_BUILD_STATE_READY if ready else pb.VIEW_BUILD_STATE_FILLING
