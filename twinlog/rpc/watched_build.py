"""What has changed for a watch when another build of its view is read than the one that it was told from.

The notes of a build are of its own consumers, whose batches end elsewhere than those of another. So what was told is
followed to its end in the notes of the build that was left, which is kept up to date as well; the rows that then differ
between the two, at one moment, are the rest. The build that is read has to be as far by then, or rows would step back.
When a build is dropped, both are noted of its last moment, so that watches go on from there while notes are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from twinlog.log.view_store import NEVER, Build, ViewMoment, consumer_of
from twinlog.model.row_changes import Before, Changed, Crossing, Mark, Marks, Noted, since, values_told
from twinlog.model.view import AnyView

MOST_KEYS = 50_000
"""Changed rows that a watcher may be behind when it resumes."""
Place = tuple[int, tuple[tuple[str, Mark], ...]]
"""What was told last, as a key."""


class Told(NamedTuple):
    """Up to where a watch was told what has changed."""

    build: int
    """The number of the build that was read; 0: the home."""
    marks: Marks
    """By log."""

    @property
    def place(self) -> Place:
        """The same as a key."""
        return self.build, tuple(sorted(self.marks.items()))


class Behind(Exception):
    """The build that is read is not yet as far as the one that was; a moment later it is."""


class Consumers:
    """The consumers that keep the builds of a view, by the log that each reads."""

    def __init__(self, view: AnyView, declared: Mapping[str, str]) -> None:
        """``declared``: those of its home, with the log of each."""
        self.view = view
        self.declared = declared

    def numbered(self, number: int) -> Mapping[str, str]:
        """By log, the consumer that kept a build of this number; 0: the home."""
        return self.of(Build(self.view.name, number, 1, False, False, True, NEVER) if number else None)

    def of(self, build: Build | None) -> Mapping[str, str]:
        """By log, the consumer that keeps a build; None: the home."""
        return {log: consumer_of(build, name, log) if build else name for name, log in self.declared.items()}


def number_of(build: Build | None) -> int:
    """The number of a build in what watches were told; 0: the home."""
    return 0 if build is None or build.home else build.number


def of_logs(noted: Noted, consumers: Mapping[str, str]) -> Marks:
    """Where a build is, by log."""
    return {log: noted.now[consumer] for log, consumer in consumers.items()}


def of_consumers(marks: Marks, consumers: Mapping[str, str]) -> Marks:
    """Marks by log as marks of a build's consumers."""
    return {consumers[log]: mark for log, mark in marks.items()}


class Crossings(NamedTuple):
    """From one build of a view to another, at one moment."""

    moment: ViewMoment
    consumers: Consumers
    fields: Collection[str]
    """Those whose values before are told of rows that differ."""
    most: int
    """Changed rows, at most."""

    async def changed(
        self, starts: Sequence[Told], now: Told, *, patient: bool
    ) -> Mapping[Place, Changed | None]:
        """What has changed since watches were told from another build than the one that is ``now`` read; None: unknown.

        ``starts``: all of one build. Raises Behind, unless it is no longer ``patient``.
        """
        unknown = dict.fromkeys(each.place for each in starts)
        other = await self.moment.build(self.consumers.view, starts[0].build)
        if other is None:
            return await self._changed_since_dropped(starts, now, patient=patient)
        of_other = self.consumers.of(other)
        noted = await self._noted(starts, of_other)
        if not _is_as_far(now.marks, of_logs(noted, of_other)):
            if patient:
                raise Behind
            return unknown
        differ = await self._differing(other)
        if differ is None:
            return unknown
        return _together(starts, noted, of_other, differ)

    async def _changed_since_dropped(
        self, starts: Sequence[Told], now: Told, *, patient: bool
    ) -> Mapping[Place, Changed | None]:
        """The same where the build is not kept any more: by what was noted when it was dropped, and from there on."""
        unknown = dict.fromkeys(each.place for each in starts)
        crossing = await self.moment.crossing(self.consumers.view, starts[0].build)
        if crossing is None or crossing.marks.keys() != now.marks.keys():
            return unknown
        entered = Told(crossing.entered, crossing.reached)
        if entered.build == now.build:
            here = self.consumers.numbered(now.build)
            reached = of_consumers(entered.marks, here)
            noted = await self.moment.noted(self.consumers.view, list(here.values()), reached, self.most)
            after = since(noted, reached)
        else:
            after = (await self.changed([entered], now, patient=patient))[entered.place]
        if after is None:
            return unknown
        left = self.consumers.numbered(crossing.build)
        noted = await self._noted(starts, left, of_consumers(crossing.marks, left))
        return _together(starts, noted, left, {**after, **crossing.changed})

    async def left(self, left: Build) -> Crossing | None:
        """Where watches go on that were told from a build which is about to be dropped; None where that cannot be said.

        Raises Behind where the build that is read is not as far.
        """
        view, entered = self.consumers.view, self.moment.reads(self.consumers.view)
        build, now = number_of(left), number_of(entered)
        if build == now:
            return None
        of_left, of_entered = self.consumers.of(left), self.consumers.of(entered)
        noted = await self.moment.noted(view, [*of_left.values(), *of_entered.values()], {}, self.most)
        marks, reached = of_logs(noted, of_left), of_logs(noted, of_entered)
        if not _is_as_far(reached, marks):
            raise Behind
        changed = await self._differing(left)
        return None if changed is None else Crossing(build, marks, now, reached, changed)

    async def _noted(
        self, starts: Sequence[Told], consumers: Mapping[str, str], upto: Marks | None = None
    ) -> Noted:
        """What a build has noted since the oldest of these."""
        marks = oldest([of_consumers(each.marks, consumers) for each in starts])
        return await self.moment.noted(self.consumers.view, list(marks), marks, self.most, upto)

    async def _differing(self, other: Build) -> Changed | None:
        """The rows that differ from those of another build, as that one has them; None: there are too many."""
        named = list(self.fields)
        differing = await self.moment.differing(self.consumers.view, other, named, self.most)
        if differing is None:
            return None
        return {
            key: Before(named, None if values is None else values_told(values))
            for key, values in differing.items()
        }


def _together(
    starts: Sequence[Told], noted: Noted, consumers: Mapping[str, str], differ: Changed
) -> Mapping[Place, Changed | None]:
    """Of each start, the rows that differ with those that it has not been told of; None: these are not known."""
    noticed = {each.place: since(noted, of_consumers(each.marks, consumers)) for each in starts}
    return {place: None if changed is None else {**differ, **changed} for place, changed in noticed.items()}


def _is_as_far(now: Marks, marks: Marks) -> bool:
    return all(now[log].position >= mark.position for log, mark in marks.items())


def oldest(starts: Sequence[Marks]) -> Marks:
    """The oldest of these marks, by consumer; empty where none are given."""
    return {each: min(marks[each] for marks in starts) for each in (starts[0] if starts else ())}
