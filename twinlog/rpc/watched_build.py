"""What has changed for a watch when another build of its view is read than the one that it was told from.

The notes of a build are of its own consumers, whose batches end elsewhere than those of another. So what was told is
followed to its end in the notes of the build that was left, which is kept up to date as well; the rows that then differ
between the two, at one moment, are the rest. The build that is read has to be as far by then, or rows would step back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from twinlog.log.view_build import Build, consumer_of
from twinlog.log.view_store import ViewMoment
from twinlog.model.row_changes import Before, Changed, Mark, Marks, Noted, since, values_told
from twinlog.model.view import AnyView

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


async def changed_across(
    moment: ViewMoment,
    consumers: Consumers,
    fields: Collection[str],
    starts: Sequence[Told],
    now: Marks,
    most: int,
    *,
    patient: bool,
) -> Mapping[Place, Changed | None]:
    """What has changed since watches were told from another build than the one that is ``now`` read; None: unknown.

    ``starts``: all of one build. Raises Behind, unless it is no longer ``patient``.
    """
    unknown = dict.fromkeys(each.place for each in starts)
    other = await moment.build(consumers.view, starts[0].build)
    if other is None:
        return unknown
    of_other = consumers.of(other)
    marks = oldest([of_consumers(each.marks, of_other) for each in starts])
    noted = await moment.noted(consumers.view, list(marks), marks, most)
    if any(now[log].position < mark.position for log, mark in of_logs(noted, of_other).items()):
        if patient:
            raise Behind
        return unknown
    named = list(fields)
    differing = await moment.differing(consumers.view, other, named, most)
    if differing is None:
        return unknown
    differ = {
        key: Before(named, None if values is None else values_told(values))
        for key, values in differing.items()
    }
    noticed = {each.place: since(noted, of_consumers(each.marks, of_other)) for each in starts}
    return {place: None if changed is None else {**differ, **changed} for place, changed in noticed.items()}


def oldest(starts: Sequence[Marks]) -> Marks:
    """The oldest of these marks, by consumer; empty where none are given."""
    return {each: min(marks[each] for marks in starts) for each in (starts[0] if starts else ())}
