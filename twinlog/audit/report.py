"""The outcome of an audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

SHOWN = 50
"""How many violations of one check are kept; the rest is counted."""


class Violation(NamedTuple):
    """One broken rule, with what shows it and what mends it."""

    check: str
    """Which rule is broken, such as ``twin equals log``."""
    says: str
    """What is wrong, for people."""
    ids: Sequence[str]
    """The streams, rows, consumers or requests concerned."""
    events: Sequence[str]
    """The events that show it, as ``log/position``."""
    remedy: str
    """The command that mends it, or what to do first."""


def roots_first(violations: Sequence[Violation], roots: Collection[str]) -> list[Violation]:
    """With what the checks ``roots`` found in front, as that has to be mended before the others are looked at.

    Others may follow from it, and what would mend them alone may stand in the way of that.
    """
    of_roots = [each for each in violations if each.check in roots]
    others = [each for each in violations if each.check not in roots]
    if of_roots:
        command = of_roots[0].remedy.partition("    # ")[0].replace(" --dry-run", "")
        remedy = f"{command}    # mend that first: this may follow from it; then audit again"
        others = [each._replace(remedy=remedy) for each in others]
    return [*of_roots, *others]


class Findings:
    """Collects violations. It keeps the first :data:`SHOWN` of each check, which bounds its memory."""

    def __init__(self) -> None:
        self.kept: list[Violation] = []
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []

    def note(self, says: str) -> None:
        """Notes a consequence of what an operator did, which is no violation."""
        if len(self.notes) < SHOWN:
            self.notes.append(says)

    def add(
        self,
        check: str,
        says: str,
        *,
        ids: Sequence[str] = (),
        events: Sequence[str] = (),
        remedy: str,
    ) -> None:
        self.counts[check] += 1
        if self.counts[check] <= SHOWN:
            self.kept.append(Violation(check, says, ids, events, remedy))


@dataclass(frozen=True, slots=True)
class Figures:
    """How much there is, and how far each part has got. Lags are in events."""

    events: Mapping[str, int] = field(default_factory=dict)
    """By log."""
    twin_lag: Mapping[str, int] = field(default_factory=dict)
    """By log."""
    consumer_lag: Mapping[str, int] = field(default_factory=dict)
    """By consumer: from its checkpoint to the last event that concerns it."""
    view_lag: Mapping[str, int] = field(default_factory=dict)
    """By consumer that keeps views."""
    streams: int = 0
    """Aggregates."""
    domain: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What the domain counts, by what it calls that: such as its sagas, by status."""
    parked: Mapping[str, int] = field(default_factory=dict)
    """The number of parked events, by consumer that has any."""
    checked: Mapping[str, int] = field(default_factory=dict)
    """How many were compared, by kind."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an audit."""

    violations: Sequence[Violation]
    """At most :data:`SHOWN` of each check."""
    counts: Mapping[str, int]
    """How many there are of each check."""
    figures: Figures
    in_flight: Sequence[str]
    """What has not arrived yet, for people; empty in a settled system."""
    took: timedelta
    notes: Sequence[str] = ()
    """What operators discarded or skipped, and what that left open, at most :data:`SHOWN`; these are no violations."""

    @property
    def settled(self) -> bool:
        """Whether nothing was in flight, so that every check covered everything."""
        return not self.in_flight

    @property
    def clean(self) -> bool:
        """Whether no violation was found."""
        return not self.counts
