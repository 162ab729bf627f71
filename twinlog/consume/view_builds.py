"""The builds of a service's views: keeps those that there are, and has queries read those that are live."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.filling import Filling
from twinlog.consume.projection import Projection
from twinlog.log.system import seconds_passed
from twinlog.log.twin import Twin
from twinlog.log.view_builds import RebuildableStore
from twinlog.log.view_store import NEVER, Build, consumer_of
from twinlog.model.errors import StreamUnreadable, Unavailable
from twinlog.model.view import AnyView

LOOK_EVERY_SECONDS = 1.0
_ADOPT_SECONDS = 2.0
_POLL_SECONDS = 0.005
_RATE_OVER_LOOKS = 10
SUBJECT = "views.switched"
"""Of the message that has other replicas look at once."""


_Pair = tuple[str, str, bool]
"""A consumer of a build, that of another one which reads the same log, and whether the other one may lack events."""


class Kept(NamedTuple):
    """A build that this process keeps up to date with one log."""

    consumer: str
    handler: DeadLettering
    filling: Filling
    twin: Twin
    stop: Callable[[], None]


Keeps = Callable[[Projection, int], Kept]
"""Runs the consumer of a build, by its projection and the percent of the time that filling may take."""


@dataclass
class Declared:
    """A view as the program declares it."""

    name: str
    store: RebuildableStore
    versions: dict[int, AnyView] = field(default_factory=dict)
    projections: list[Projection] = field(default_factory=list)
    """Those that keep its home, one for each log."""

    def home(self, version: int) -> Build:
        """The only build of a view that was never built anew."""
        return Build(self.name, 1, version, True, True, False, NEVER)

    def feeding(self, version: int) -> Sequence[tuple[Projection, AnyView]]:
        """What feeds a version: by log, the declared projection."""
        view = self.versions.get(version)
        return [(each, view) for each in self.projections if view in each.tables] if view else []

    def consumers(self, build: Build) -> Mapping[str, str]:
        """The consumers that keep a build, by log."""
        return {
            each.source: consumer_of(build, each.name, each.source) for each, _ in self.feeding(build.version)
        }


class Lacking(NamedTuple):
    """What one build has set aside that another one has not."""

    events: frozenset[tuple[str, int]]
    """Log and position of each."""
    versions: Mapping[str, int]
    """By consumer of either, the version of the dead letters that were looked at."""


class ViewBuilds:
    """Runs the consumers of all builds, and chooses what is read."""

    def __init__(self, keep: Keeps, dead_letters: Callable[[str], DeadLettering | None]) -> None:
        """``dead_letters``: those of a consumer, by its name; None: this process does not run it."""
        self._keep = keep
        self.dead_letters = dead_letters
        self.declared: dict[str, Declared] = {}
        self.kept: dict[tuple[str, int], list[Kept]] = {}
        """By view and number; homes are kept by the declared projections."""
        self.builds: dict[str, list[Build]] = defaultdict(list)
        """By view, as of the last look."""
        self._samples: dict[str, deque[tuple[float, int]]] = {}
        self._looking = asyncio.Lock()
        self._wanted = asyncio.Event()

    @property
    def problem(self) -> str | None:
        """What keeps live builds from being up to date, or None."""
        found = [
            kept.filling.problem
            for view, builds in self.builds.items()
            for build in builds
            if build.live
            for kept in self.kept.get((view, build.number), ())
        ]
        return "; ".join(filter(None, found)) or None

    def problem_of(self, consumer: str) -> str:
        """What is wrong with the consumer of a build, as far as this process knows; empty: nothing."""
        for kept in (each for builds in self.kept.values() for each in builds):
            if kept.consumer == consumer:
                return kept.filling.problem or ""
        return ""

    async def lacking(self, pairs: Iterable[tuple[str, str]]) -> Lacking:
        """What is set aside by the second consumer of each pair, and not by the first.

        Raises Unavailable and StreamUnreadable.
        """
        events, versions = set[tuple[str, int]](), dict[str, int]()
        for pair in pairs:
            known = set[tuple[str, int]]()
            for consumer in pair:
                handler = self.dead_letters(consumer)
                if handler is None:
                    raise Unavailable(f"this process has yet to begin with consumer {consumer}; try again")
                dead = await handler.dead_letters()
                versions[consumer] = dead.version
                found = {(handler.source, letter.position) for _, letter in dead.letters()}
                known, extra = known | found, found - known
            events |= extra
        return Lacking(frozenset(events), versions)

    def add(self, projection: Projection) -> None:
        """Its views can be built anew, if its store knows of builds."""
        if not isinstance(projection.store, RebuildableStore):
            return
        for view in projection.tables:
            declared = self.declared.setdefault(view.name, Declared(view.name, projection.store))
            declared.versions[view.version] = view
            if projection not in declared.projections:
                declared.projections.append(projection)

    async def run(self) -> None:
        """Looks now and then, and when asked to."""
        while True:
            with suppress(Unavailable):
                await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()

    def look_soon(self) -> None:
        """Has the builds looked at."""
        self._wanted.set()

    async def look(self) -> None:
        """Runs what is to run, stops what is gone, and reads what is live. Raises Unavailable."""
        if not self.declared:
            return
        async with self._looking:
            for stores in self._stores():
                store = stores[0].store
                names, began = {each.name for each in stores}, seconds_passed()
                found = [build for build in await store.builds() if build.view in names]
                self._tell_homes(found)
                for name in names:
                    self.builds[name] = [build for build in found if build.view == name]
                self._run_builds(found, names)
                self._look_for_undeclared(store, found)
                looked_before = store.live.seen_at > -math.inf
                if not store.live.gone(found):
                    store.live.saw(began)
                await self._adopt(store, found, began, looked_before=looked_before)
                await self._sample(store)

    def _stores(self) -> Sequence[Sequence[Declared]]:
        """The views, those of one store together."""
        stores: dict[int, list[Declared]] = defaultdict(list)
        for each in self.declared.values():
            stores[id(each.store.live)].append(each)
        return [*stores.values()]

    def _tell_homes(self, builds: Sequence[Build]) -> None:
        """What each declared projection keeps: of its views, the versions that are at home, unless dropped."""
        homes = {build.view: 0 if build.dropped else build.version for build in builds if build.home}
        for declared in {id(p): p for d in self.declared.values() for p in d.projections}.values():
            if any(view.name in homes for view in declared.tables):
                declared.keep([v for v in declared.tables if homes.get(v.name, v.version) == v.version])

    def _run_builds(self, builds: Sequence[Build], names: set[str]) -> None:
        there = {
            (build.view, build.number): build for build in builds if not build.home and not build.dropped
        }
        for key in [key for key in self.kept if key[0] in names and key not in there]:
            for kept in self.kept.pop(key):
                kept.stop()
        for key, build in there.items():
            if key not in self.kept and (feeding := self.declared[build.view].feeding(build.version)):
                self.kept[key] = [
                    self._keep(projection.of_build(view, build), build.share) for projection, view in feeding
                ]

    def _look_for_undeclared(self, store: RebuildableStore, builds: Sequence[Build]) -> None:
        """Notes whether the live build of a view is one that this program cannot read."""
        undeclared = [build for build in builds if build.live and not self._declares(build)]
        if undeclared and not store.live.left:
            for build in undeclared:
                structlog.get_logger().warning(
                    "view_build.undeclared", view=build.view, build=build.number, version=build.version
                )
        store.live.left = bool(undeclared)
        store.live.saw(store.live.seen_at)

    async def _adopt(
        self, store: RebuildableStore, builds: Sequence[Build], began: float, *, looked_before: bool
    ) -> None:
        """Reads what is live, once that shows all that was read before: where there were no builds, the homes.

        ``began``: when the builds were asked for. ``looked_before``: else nothing can have been read.
        """
        live, before = store.live, store.live.current
        wanted = {build.view: self._readable(build, builds, before) for build in builds if build.live}
        if {view: build.number for view, build in wanted.items()} == {
            view: build.number for view, build in before.items()
        }:
            return
        pairs = [*self._pairs(before, wanted)] if before or looked_before else []
        positions = await self._shown(store, pairs)  # so that reads need not wait for long
        if positions is not None:
            async with live.changing(_ADOPT_SECONDS):
                positions = await self._shown(store, pairs)
                if positions is not None:
                    live.read(wanted)
                    live.saw(began)
        for tell in live.on_change:
            tell(positions or {})
        if positions is None:
            structlog.get_logger().warning("view_build.waiting", views=sorted(wanted))
            return
        for build in wanted.values():
            if build.number != (known.number if (known := before.get(build.view)) else 1):
                structlog.get_logger().info("view_build.live", view=build.view, build=build.number)

    def _declares(self, build: Build) -> bool:
        return build.version in self.declared[build.view].versions

    def _readable(self, live: Build, builds: Sequence[Build], before: Mapping[str, Build]) -> Build:
        """The live build, or in place of one that this program does not declare the one that was live before it."""
        kept = [
            build
            for build in builds
            if build.view == live.view and not build.dropped and build.live_until and self._declares(build)
        ]
        if self._declares(live) or not kept:
            return live
        read = before.get(live.view)
        return next(
            (build for build in kept if read and build.number == read.number),
            max(kept, key=lambda build: build.live_until or NEVER),
        )

    async def _shown(self, store: RebuildableStore, pairs: Sequence[_Pair]) -> Mapping[str, int] | None:
        """The checkpoints, once each new consumer has all that the old one has shown; None: that takes too long."""
        floor = await store.checkpoints()
        if not pairs:  # nothing was shown: however slow the store is, there is nothing to wait for
            return floor
        positions = await self._caught_up(store, [pair[:2] for pair in pairs], floor)
        if positions is None:
            return None
        for old, new, may_lack in pairs:
            if not may_lack and await self._steps_back(old, new, floor.get(old, 0)):
                return None
        return positions

    async def _steps_back(self, old: str, new: str, shown: int) -> bool:
        """Whether something is set aside of what was shown. That was not so at the switch: it has come since."""
        try:
            lacking = await self.lacking([(old, new)])
        except StreamUnreadable:
            return True  # nobody knows
        return any(position <= shown for _, position in lacking.events)

    def _pairs(self, before: Mapping[str, Build], after: Mapping[str, Build]) -> Iterator[_Pair]:
        """The consumers of what was read and of what will be, of the same logs. What was dropped holds up nothing."""
        for view, build in after.items():
            declared = self.declared[view]
            old = before.get(view) or next((b for b in self.builds[view] if b.home), None)
            kept = {each.number for each in self.builds[view] if not each.dropped}
            if old is None or old.number == build.number or old.number not in kept:
                continue
            new = declared.consumers(build)
            for log, consumer in declared.consumers(old).items():
                if log in new:
                    yield consumer, new[log], build.may_lack

    async def _caught_up(
        self, store: RebuildableStore, pairs: Sequence[tuple[str, str]], floor: Mapping[str, int]
    ) -> Mapping[str, int] | None:
        """The checkpoints, once each new consumer is at least as far as the old one was; None: that takes too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ADOPT_SECONDS):
                while True:
                    positions = await store.checkpoints()
                    if all(positions.get(new, 0) >= floor.get(old, 0) for old, new in pairs):
                        return positions
                    await asyncio.sleep(_POLL_SECONDS)
        return None

    async def _sample(self, store: RebuildableStore) -> None:
        kept = [each for builds in self.kept.values() for each in builds]
        if not kept:
            return
        now, positions = asyncio.get_running_loop().time(), await store.checkpoints()
        for each in kept:
            samples = self._samples.setdefault(each.consumer, deque(maxlen=_RATE_OVER_LOOKS))
            samples.append((now, positions.get(each.consumer, 0)))

    def rate(self, consumer: str) -> float:
        """Events a second that came into a build of late; 0: not known."""
        samples = self._samples.get(consumer)
        if not samples or len(samples) < 2 or samples[-1][0] <= samples[0][0]:
            return 0.0
        return (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0])
