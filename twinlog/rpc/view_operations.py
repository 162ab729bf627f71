"""What operators do with the builds of views: begin, look at, compare, switch, switch back, drop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import structlog

from twinlog.consume.view_builds import SUBJECT, Declared, ViewBuilds
from twinlog.log.twin import Twin
from twinlog.log.view_builds import Comparison, RebuildUnderWay, SetAsideMeanwhile
from twinlog.log.view_store import Build, NotingViewStore, ViewMoment, consumer_of
from twinlog.model.errors import Unavailable
from twinlog.model.row_changes import Crossing
from twinlog.rpc.freshness import Messages
from twinlog.rpc.shown_builds import NEAR, ShownBuilds, shown_build
from twinlog.rpc.view_comparison import EXAMPLES, at_the_same, comparison_of, in_words
from twinlog.rpc.view_refusals import (
    ViewBuildBehind,
    ViewBuildDiffers,
    ViewBuildDropped,
    ViewBuildHasDeadLetters,
    ViewBuildLive,
    ViewNeverSwitched,
    ViewVersionUnknown,
)
from twinlog.rpc.watched_build import MOST_KEYS, Behind, Consumers, Crossings
from twinlog.v1 import view_service_pb2 as pb

T = TypeVar("T")

_CATCH_UP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_ROUNDS = 50
_CROSSING_SECONDS = 60.0
"""How long a build that is to be dropped is compared with the live one, so that watches of it can go on."""
_MOST_DIFFERING = 10_000
"""Rows that are looked at again, since they may only lag."""


class ViewOperations:
    """The operations."""

    def __init__(self, builds: ViewBuilds, twin: Callable[[str], Twin], messages: Messages) -> None:
        self._builds = builds
        self._shows = ShownBuilds(builds, twin)
        self._messages = messages

    async def views(self) -> Sequence[tuple[Declared, Sequence[pb.ViewBuild]]]:
        """All views, by name, with their builds."""
        found = []
        for _, declared in sorted(self._builds.declared.items()):
            kept = [each for each in await self._shows.of(declared) if not each.dropped]
            found.append((declared, [await self._shows.shown(declared, each) for each in kept]))
        return found

    async def rebuild(self, view: str, version: int, share: int, *, dry_run: bool) -> pb.ViewBuild:
        """Begins a build. Raises ViewUnknown, ViewVersionUnknown, RebuildUnderWay."""
        declared = self._shows.declared(view)
        version = version or max(declared.versions)
        if version not in declared.versions:
            raise ViewVersionUnknown(view=view, version=version)
        known = await self._shows.of(declared)
        for each in known:
            if not each.live and not each.live_until and not each.dropped:
                raise RebuildUnderWay(view=view, build=each.number)
        home = next(each for each in known if each.home)
        if dry_run:
            begun = home._replace(number=0, version=version, home=False, live=False, share=share)
            return shown_build(begun)
        build = await declared.store.begin_build(declared.versions[version], home.version, share)
        structlog.get_logger().info("view_build.begun", view=view, build=build.number, version=version)
        await self._tell()
        return await self._shows.shown(declared, build)

    async def build(self, view: str, number: int) -> pb.ViewBuild:
        """One build; 0: the newest. Raises ViewUnknown, ViewBuildUnknown."""
        declared = self._shows.declared(view)
        return await self._shows.shown(declared, await self._shows.build(declared, number))

    async def compare(self, view: str, number: int) -> tuple[pb.ViewBuild, Comparison]:
        """Compares a build with the live one. Raises as :meth:`build`, ViewBuildDropped, ViewBuildBehind."""
        declared = self._shows.declared(view)
        build, live = await self._shows.build(declared, number), await self._shows.live(declared)
        await self._catch_up(declared, build, live)
        return await self._shows.shown(declared, build), await self._compared(declared, live, build)

    async def switch(
        self, view: str, number: int, *, differences: bool, dead_letters: bool, dry_run: bool
    ) -> tuple[pb.ViewBuild, Comparison]:
        """Makes a build the live one. ``differences`` and ``dead_letters``: whether they are confirmed.

        Raises as :meth:`compare`, ViewBuildDiffers and ViewBuildHasDeadLetters.
        """
        declared = self._shows.declared(view)
        build, live = await self._shows.build(declared, number), await self._shows.live(declared)
        if build.live:
            raise ViewBuildLive(view=view, build=build.number)

        async def compared() -> Comparison:
            comparison = await self._compared(declared, live, build)
            if comparison.differs and not differences:
                raise ViewBuildDiffers(view=view, build=build.number, differences=in_words(comparison))
            return comparison

        comparison = await self._switch(
            declared, build, live, compared, dead_letters=dead_letters, dry_run=dry_run
        )
        return await self.build(view, build.number), comparison

    async def switch_back(self, view: str, *, dead_letters: bool, dry_run: bool) -> pb.ViewBuild:
        """Makes the build the live one that was so before; ``dead_letters``: whether they are confirmed.

        Raises ViewNeverSwitched, ViewBuildDropped, ViewBuildBehind and ViewBuildHasDeadLetters.
        """
        declared = self._shows.declared(view)
        left = [
            each
            for each in await self._shows.of(declared)
            if each.live_until and not each.live and not each.dropped
        ]
        if not left:
            raise ViewNeverSwitched(view=view)
        build = max(left, key=lambda each: (each.live_until, each.number))
        live = await self._shows.live(declared)

        async def as_it_is() -> None:
            """An operator who switches back knows that it differs."""

        await self._switch(declared, build, live, as_it_is, dead_letters=dead_letters, dry_run=dry_run)
        return await self.build(view, build.number)

    async def drop(
        self,
        view: str,
        number: int,
        *,
        dry_run: bool,
        seconds_left: Callable[[], float] = lambda: 2 * _CROSSING_SECONDS,
    ) -> pb.ViewBuild:
        """Drops a build, no sooner than 5 s after queries have left it. Raises ViewBuildLive and ViewBuildDropped.

        ``seconds_left``: how long the caller still waits; half of it is the most that it takes to compare the build.
        """
        declared = self._shows.declared(view)
        build = await self._shows.build(declared, number)
        if build.live:
            raise ViewBuildLive(view=view, build=build.number)
        if build.dropped:
            raise ViewBuildDropped(view=view, build=build.number)
        shown = await self._shows.shown(declared, build)
        if not dry_run:
            # Of all that may have kept it: its version may no longer be declared.
            consumers = [consumer_of(build, each.name, each.source) for each in declared.projections]
            await self._drop(declared, build, consumers, seconds_left)
            structlog.get_logger().info("view_build.dropped", view=view, build=build.number)
            await self._tell()
        return shown

    async def _drop(
        self,
        declared: Declared,
        build: Build,
        consumers: Sequence[str],
        seconds_left: Callable[[], float],
    ) -> None:
        """Once nobody reads it any more."""
        store = declared.store
        while True:
            while seconds := await store.kept_for(build):
                await asyncio.sleep(seconds)
            seconds = min(_CROSSING_SECONDS, seconds_left() / 2)
            crossing = await self._crossing(declared, build, seconds) if build.live_until else None
            if not await store.drop_build(build, consumers, build.table, crossing):
                return  # or else it was read meanwhile, and was left again

    async def _crossing(self, declared: Declared, build: Build, seconds: float) -> Crossing | None:
        """Where watches of a build go on once it is dropped; None: they begin anew."""
        store = declared.store
        live = next((each for each in await self._shows.of(declared) if each.live), None)
        if not isinstance(store, NotingViewStore) or live is None or live.version not in declared.versions:
            return None
        view, left = declared.versions[live.version], declared.versions.get(build.version)
        fields = store.fields_noted(view)
        if fields is None:
            return None
        before = None if left is None else store.fields_noted(left)
        common = [each for each in fields if before is None or each in before]
        feeding = {each.name: each.source for each, _ in declared.feeding(live.version)}

        async def read(moment: ViewMoment) -> Crossing | None:
            return await Crossings(moment, Consumers(view, feeding), common, MOST_KEYS).left(build)

        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    with suppress(Behind):
                        return await store.at_once(read)
                    await asyncio.sleep(_POLL_SECONDS)
        return None

    async def _switch(
        self,
        declared: Declared,
        build: Build,
        live: Build,
        compared: Callable[[], Awaitable[T]],
        *,
        dead_letters: bool,
        dry_run: bool,
    ) -> T:
        """Switches, unless something speaks against it; that is looked at again where it has changed meanwhile."""
        pairs = _pairs(declared, live, build)
        for _ in range(_ROUNDS):
            await self._catch_up(declared, build, live)
            letters = None if dead_letters else await self._letters(build, pairs)
            found = await compared()
            if dry_run:
                return found
            with suppress(SetAsideMeanwhile):
                await self._switch_once_as_far(declared, build, live, letters)
                return found
        raise Unavailable(f"build {build.number} sets events aside all the time; try again")

    async def _switch_once_as_far(
        self, declared: Declared, build: Build, live: Build, letters: Mapping[str, int] | None
    ) -> None:
        pairs = _pairs(declared, live, build)
        deadline = asyncio.get_running_loop().time() + _CATCH_UP_SECONDS
        while behind := await declared.store.switch(build, live, pairs, letters):
            if asyncio.get_running_loop().time() > deadline:
                raise _behind(build, behind)
            await asyncio.sleep(_POLL_SECONDS)
        structlog.get_logger().info(
            "view_build.switched", view=build.view, build=build.number, before=live.number
        )
        await self._tell()

    async def _catch_up(self, declared: Declared, build: Build, live: Build) -> None:
        """Waits a little where the build is not as far as the live one. Raises ViewBuildDropped, ViewBuildBehind."""
        if build.dropped:
            raise ViewBuildDropped(view=build.view, build=build.number)
        if build.version not in declared.versions:
            raise ViewVersionUnknown(view=build.view, version=build.version)
        pairs = _pairs(declared, live, build)
        deadline = asyncio.get_running_loop().time() + _CATCH_UP_SECONDS
        floor = await declared.store.checkpoints()
        while True:
            stands = await declared.store.checkpoints()
            lacks = {new: floor.get(old, 0) - stands.get(new, 0) for old, new in pairs.items()}
            behind = {name: lack for name, lack in lacks.items() if lack > 0}
            if not behind:
                return
            late = asyncio.get_running_loop().time() > deadline
            if late or max(behind.values()) > 100 * NEAR or not pairs:
                raise _behind(build, behind)
            await asyncio.sleep(_POLL_SECONDS)

    async def _letters(self, build: Build, pairs: Mapping[str, str]) -> Mapping[str, int]:
        """The versions of the dead letters that were looked at. Raises ViewBuildHasDeadLetters."""
        lacking = await self._builds.lacking(pairs.items())
        if lacking.events:
            events = ", ".join(f"{log}/{position}" for log, position in sorted(lacking.events)[:EXAMPLES])
            raise ViewBuildHasDeadLetters(view=build.view, build=build.number, events=events)
        return lacking.versions

    async def _compared(self, declared: Declared, live: Build, build: Build) -> Comparison:
        """Rows that differ may only lag: they are looked at until both builds stood at the same positions."""
        views = declared.versions[live.version], declared.versions[build.version]
        pairs = _pairs(declared, live, build)
        first = rows = await declared.store.compare_builds(live, build, views, None, _MOST_DIFFERING)
        differing = dict(rows.differing)
        settled = at_the_same(rows, pairs) or sum(rows.counts) > len(differing)
        for _ in range(_ROUNDS):
            if settled or not differing:
                break
            await asyncio.sleep(_POLL_SECONDS)
            rows = await declared.store.compare_builds(live, build, views, [*differing], _MOST_DIFFERING)
            differing = {key: why for key, why in rows.differing.items() if key in differing}
            settled = at_the_same(rows, pairs)
        return comparison_of(first, differing, settled=settled)

    async def _tell(self) -> None:
        await self._builds.look()
        await self._messages.publish(SUBJECT, b"")


def _pairs(declared: Declared, old: Build, new: Build) -> Mapping[str, str]:
    """By each consumer of one build, that of the other which reads the same log."""
    consumers = declared.consumers(new)
    return {consumer: consumers[log] for log, consumer in declared.consumers(old).items() if log in consumers}


def _behind(build: Build, behind: Mapping[str, int]) -> ViewBuildBehind:
    lacks = ", ".join(f"{consumer} lacks {lack} events" for consumer, lack in sorted(behind.items()))
    return ViewBuildBehind(view=build.view, build=build.number, behind=lacks)
