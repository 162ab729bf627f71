"""Builds of a view: tables with the same view, each filled from the logs by itself; one of them is read.

A view begins with one build, its *home*: the table that its migration made, kept by the projections that the program
declares. A rebuild adds another one beside it, with consumers and checkpoints of its own. Both are kept up to date
until one is dropped, so that to switch is to say which of them is read, and nothing else.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self, runtime_checkable

from twinlog.log.view_store import Build, SharedViewStore
from twinlog.model.errors import FailedPrecondition
from twinlog.model.row_changes import Crossing
from twinlog.model.view import AnyView

KEPT_SECONDS = 5.0
"""How long a build is kept after queries have left it: until then replicas may read it, and watches go across."""
SURE_SECONDS = 3.0
"""How long a replica takes a build to be there since it has looked; by far less than it is kept, for a slow commit."""


class BuildGone(FailedPrecondition):
    """Build {build} of view {view} was dropped, or queries read another one, since it was looked at; look again."""

    reason = "VIEW_BUILD_GONE"


class RebuildUnderWay(FailedPrecondition):
    """Build {build} of view {view} was begun and never switched to; switch to it, or drop it first."""

    reason = "REBUILD_UNDER_WAY"


class OlderAtWork(FailedPrecondition):
    """A program of release 0.1 is at work on the database of view {view} ({sessions}); it would end where it finds a
    second build. Stop it, then rebuild the view."""

    reason = "VIEW_OLDER_AT_WORK"


class SetAsideMeanwhile(Exception):
    """The dead letters of a build have changed since they were looked at."""


class RowDifference(NamedTuple):
    """A row that is not the same in two builds."""

    key: str
    why: str
    """In words."""


class Comparison(NamedTuple):
    """How the rows of a build differ from those of the live one, both at the same positions."""

    compared: int
    """How many keys were looked at."""
    changed: int
    missing: int
    """Rows of the live build that the other does not have."""
    added: int
    """Rows that only the other one has."""
    unsettled: int
    """Rows that changed so often meanwhile that they could not be compared."""
    examples: Sequence[RowDifference]
    columns_added: Sequence[str] = ()
    columns_gone: Sequence[str] = ()

    @property
    def differs(self) -> bool:
        """Whether there is anything that has to be confirmed."""
        rows = self.changed + self.missing + self.added + self.unsettled
        return bool(rows or self.columns_added or self.columns_gone)


class Rows(NamedTuple):
    """What a comparison found at one instant."""

    compared: int
    differing: Mapping[str, str]
    """By key, how: ``missing``, ``added``, or in words; at most so many as were asked for."""
    counts: tuple[int, int, int]
    """All that are changed, missing and added."""
    checkpoints: Mapping[str, int]
    """Where the consumers stood."""
    columns_added: Sequence[str] = ()
    columns_gone: Sequence[str] = ()


@dataclass
class LiveBuilds:
    """Which build of each view this process reads. Reads wait while that changes."""

    current: Mapping[str, Build] = field(default_factory=dict)
    """By view; where there is none, its home is read."""
    on_change: list[Callable[[Mapping[str, int]], None]] = field(default_factory=list)
    """Called after a change, with the checkpoints of all consumers."""
    elsewhere: bool = False
    """Whether any of them is not at home."""
    reads: int = 0
    """Reads under way. A read counts itself, once it may begin."""
    opened: asyncio.Event | None = None
    """Set when reads may go on; None: they may."""
    seen_at: float = -math.inf
    """When those that are read were last known to be kept, by :func:`~twinlog.log.system.seconds_passed`."""
    left: bool = False
    """Whether one is live that this program does not declare, so that one is read which queries elsewhere have left."""

    def saw(self, at: float) -> None:
        """Those that are read were kept then. What queries have left is dropped at any moment: so each read looks."""
        self.seen_at = -math.inf if self.left else at

    def read(self, builds: Mapping[str, Build]) -> None:
        """From now on these are read."""
        self.current = builds
        self.elsewhere = any(build.place or build.version > 1 for build in builds.values())

    def gone(self, builds: Sequence[Build]) -> Build | None:
        """One that is read, and not kept any more; None: all are. ``builds``: those that there are."""
        there = {(build.view, build.number) for build in builds if not build.dropped}
        homes = (build for build in builds if build.home and build.view not in self.current)
        read = (*self.current.values(), *homes)
        return next((build for build in read if (build.view, build.number) not in there), None)

    @asynccontextmanager
    async def changing(self, seconds: float) -> AsyncIterator[None]:
        """No read is under way inside the block, unless one has taken longer than ``seconds``."""
        self.opened = asyncio.Event()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while self.reads:
                        await asyncio.sleep(0.001)
            yield
        finally:
            self.opened.set()
            self.opened = None


@runtime_checkable
class RebuildableStore(SharedViewStore, Protocol):
    """A store whose views can have several builds."""

    @property
    def live(self) -> LiveBuilds:
        """Which builds are read."""

    def at(self, place: str) -> Self:
        """The store as who keeps the builds in a place sees it; empty: the homes."""

    def kept(self) -> Self:
        """The store as it is where it keeps builds in a place already, else at home."""

    async def builds(self) -> Sequence[Build]:
        """All builds of all views, by view and number; of views that have but their home none may be told."""

    async def begin_build(self, view: AnyView, home_version: int, share: int = 100) -> Build:
        """A new build with an empty table. ``home_version``: that of the home, where nothing is stored of it yet.

        Raises RebuildUnderWay, and OlderAtWork where a program is at work that knows of no builds. Such a program
        refuses to start until the home is the only build again.
        """

    async def settle_home(self, view: str, version: int) -> None:
        """Stores that the home has this version and is live, unless it is known already."""

    async def switch(
        self, to: Build, live: Build, consumers: Mapping[str, str], letters: Mapping[str, int] | None
    ) -> Mapping[str, int]:
        """Makes a build the live one instead of another, in one transaction.

        ``consumers``: by each of the live build's, the one of the new build that reads the same log. Those of the new
        one have to be at least as far. ``letters``: by consumer, the version of its dead letters that were looked at;
        None: it is confirmed that the new build may lack some. Returns how far each lacks: then nothing was done;
        empty: it is live. Raises BuildGone and SetAsideMeanwhile.
        """

    async def kept_for(self, build: Build) -> float:
        """For how many seconds a build is still kept, since queries have just left it."""

    async def drop_build(
        self, build: Build, consumers: Sequence[str], table: str, crossing: Crossing | None = None
    ) -> float:
        """Drops the table of a build that is not live, and its checkpoints; of a home, the rows.

        ``crossing``: where watches of it go on; None: they begin anew.

        Returns for how many seconds it is still kept, since queries have just left it: then nothing was done; 0: it is
        dropped. Raises BuildGone.
        """

    async def compare_builds(
        self, old: Build, new: Build, views: tuple[AnyView, AnyView], keys: Sequence[str] | None, limit: int
    ) -> Rows:
        """Compares the rows of two builds at one instant, all or those with some keys."""

    async def count_rows(self, build: Build, table: str) -> int | None:
        """About how many rows a build has, at little cost; None where its table is gone."""


async def home_version(store: RebuildableStore, view: str, declared: Sequence[int], prefix: str) -> int:
    """The version that the home of a view has: what is stored of it, or else, and stored now, the newest that is
    declared where nothing was ever projected, and the oldest otherwise.

    ``prefix``: what the names of the consumers begin with.
    """
    while True:
        for build in await store.builds():
            if build.view == view and build.home:
                return 0 if build.dropped else build.version
        checkpoints = await store.checkpoints()
        fresh = not any(name.startswith(f"{prefix}.") for name in checkpoints)
        await store.settle_home(view, max(declared) if fresh else min(declared))
