"""What a domain adds to an audit: its cases, and what must hold in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from google.protobuf.message import Message

from twinlog.audit.dead_letters import DeadLetter, DeadLetters
from twinlog.audit.history import Change
from twinlog.audit.report import Findings
from twinlog.model.event import StreamId


class Round(NamedTuple):
    """What one round has come to, when the domain judges."""

    now: datetime
    """By the clock of the databases."""
    at_rest: bool
    """Whether no service is running, so that deadlines may pass."""
    busy: bool
    """Whether a consumer has not handled, or has set aside, an event that calls for something; or an event is there
    whose cause was not read yet."""
    in_flight: Collection[str]
    """The cases with such an event, as :meth:`Domain.take` named them."""
    parked: Sequence[DeadLetter]
    """What consumers of policies and effects have set aside."""
    discarded: Sequence[tuple[DeadLetters, DeadLetter]]
    """What operators have given up of it, after the dead letters of its consumer."""
    unreadable: Collection[StreamId]
    """Streams that cannot be read to their end; what depends on them cannot be judged."""
    due: Mapping[StreamId, datetime]
    """When each stream that waits for a time is due."""
    state: Callable[[StreamId], Any]
    """The state of a stream; None where it has no events."""
    checked: Counter[str]
    """How many were compared, by kind; add to it."""
    excused: Mapping[str, str] = {}
    """The cases that go on without events which a repair gave up, each with the events in words. What they leave open
    is to be noted, and is no violation."""


class Domain:
    """Derive a class and override what matters; it lives as long as its auditor, from round to round.

    What every system promises is checked besides. A case is what several streams and logs are about together, such as
    an order with the saga that serves it; judge it while it is not in flight.
    """

    def case_of(self, message: Message) -> str:
        """The case of an event that was set aside; empty: none."""
        return ""

    def take(self, change: Change, findings: Findings) -> str:
        """Takes in the next change of a log; gives its case, empty where it has none. Report at once what one event
        alone must never do."""
        return ""

    def judge(self, round: Round, findings: Findings) -> None:
        """Compares what logs must agree on, where nothing that decides it is in flight."""

    def on_their_way(self, now: datetime) -> Iterator[str]:
        """What has not ended yet, and is in time, in words; while there is any, the system is not settled."""
        yield from ()

    def figures(self) -> Mapping[str, Mapping[str, int]]:
        """What it counts, by what it calls that."""
        return {}


class Domains(Domain):
    """Several as one; where more than one names a case, the last one counts."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        self._domains = domains

    def case_of(self, message: Message) -> str:
        return next((case for each in reversed(self._domains) if (case := each.case_of(message))), "")

    def take(self, change: Change, findings: Findings) -> str:
        cases = [each.take(change, findings) for each in self._domains]
        return next((case for case in reversed(cases) if case), "")

    def judge(self, round: Round, findings: Findings) -> None:
        for each in self._domains:
            each.judge(round, findings)

    def on_their_way(self, now: datetime) -> Iterator[str]:
        for each in self._domains:
            yield from each.on_their_way(now)

    def figures(self) -> Mapping[str, Mapping[str, int]]:
        return {name: counts for each in self._domains for name, counts in each.figures().items()}
