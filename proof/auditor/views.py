"""Compares views with the fold of their events, row by row, each at its own checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from google.protobuf.message import Message

from projector.views.timeline import TIMELINE, TimelineRow
from proof.auditor.dead_letters import DeadLetters, out_of_order
from proof.auditor.report import Findings
from twinlog import Recorded
from twinlog.testing.internals import AnyView, Connection, load_queries, routing_key_of

EQUAL = "view row equals fold"

_CHUNK = 2_000
_QUERIES = load_queries("proof.auditor.sql")


class ViewAudit:
    """Follows one view of one log. It keeps the folded rows in memory."""

    def __init__(
        self,
        view: AnyView,
        row_type: type,
        *,
        log: str,
        dead_letters: DeadLetters,
        database: str,
        package: str,
        routing_key: str = "",
        remedy: str,
    ) -> None:
        """``dead_letters`` are its consumer's; ``package`` has the query ``<view>_rows``; ``routing_key`` is that of
        the events that are projected, empty for all.
        """
        self.name = view.name
        self.log = log
        self.consumer = dead_letters.consumer
        self.database = database
        self.position = 0
        """Folded up to here."""
        self.wanted = 0
        """Position of the last event that it has to show."""
        self._dead_letters = dead_letters
        self._replayed = 0
        """How many of the replayed dead letters were folded."""
        self._routing_key = routing_key
        self._view = view
        self._row_type = row_type
        self._rows_query = load_queries(package)[f"{view.name}_rows"]
        self._remedy = remedy
        self._rows: dict[str, Any] = {}
        self._touched: set[str] = set()
        """Keys of the rows to compare."""

    def begin(self) -> None:
        """Folds what was parked when its turn came and has been replayed since."""
        while self._replayed < len(self._dead_letters.replayed):
            replayed = self._dead_letters.replayed[self._replayed]
            self._replayed += 1
            if replayed.event and replayed.position <= self.position:
                self._fold(replayed.event, replayed.messages)

    def take(self, event: Recorded, messages: Sequence[Message], findings: Findings) -> None:
        """Folds the next event, unless its consumer parked or discarded it."""
        self.position = event.position
        if self._dead_letters.lacks(event.position):
            # The row has to be what it is without the event.
            self._touched.update(key for one in messages for key in self._keys(event, one))
            return
        self._fold(event, messages)
        if any(map(self._projects, messages)) and (
            before := self._dead_letters.overtaken_by(event.position, event.partition_key)
        ):
            out_of_order(
                self._dead_letters, event.position, f"was projected before {before}", before, findings
            )

    def _keys(self, event: Recorded, message: Message) -> Sequence[str]:
        if not self._projects(message):
            return ()
        try:
            return self._view.keys(event, message)
        except Exception:  # an impossible event, which its consumer sets aside
            return ()

    def _fold(self, event: Recorded, messages: Iterable[Message]) -> None:
        for message in messages:
            for key in self._keys(event, message):
                self._touched.add(key)
                row = None
                with suppress(Exception):  # an impossible history, which the log's checks report
                    row = self._view.after(key, self._rows.get(key), event, message)
                if row is None:
                    self._rows.pop(key, None)
                else:
                    self._rows[key] = row

    def note(self, event: Recorded, message: Message) -> None:
        """Notes an event, which may be beyond the view's checkpoint."""
        if self._projects(message):
            self.wanted = event.position

    def _projects(self, message: Message) -> bool:
        return not self._routing_key or routing_key_of(message) == self._routing_key

    async def compare(self, connection: Connection, findings: Findings) -> int:
        """Compares the rows that changed or were wrong since the last time; returns how many.

        ``connection`` sees the view exactly at the position.
        """
        waiting, wrong = iter(self._touched), set[str]()
        compared = len(self._touched)
        while chunk := list(islice(waiting, _CHUNK)):
            found = {row[0]: self._row_type(*row) for row in await connection.fetch(self._rows_query, chunk)}
            wrong.update(key for key in chunk if not self._equal(key, found.get(key), findings))
        if await connection.fetchval(_QUERIES[f"{self._view.name}_count"]) != len(self._rows):
            await self._report_extra(connection, findings)
        self._touched = wrong
        return compared

    async def _report_extra(self, connection: Connection, findings: Findings) -> None:
        async for row in connection.cursor(_QUERIES[f"{self._view.name}_keys"], prefetch=_CHUNK):
            if row[0] not in self._rows:
                self._add(row[0], "no event knows of it", findings)

    def _equal(self, key: str, found: Any, findings: Findings) -> bool:
        expected = self._rows.get(key)
        if expected == found:
            return True
        self._add(key, difference(expected, found), findings)
        return False

    def _add(self, key: str, why: str, findings: Findings) -> None:
        findings.add(
            EQUAL,
            f"row {key} of {self._view.name}, at {self.log}/{self.position}: {why}",
            ids=[key],
            events=[f"{self.log}/{self.position}"],
            remedy=self._remedy,
        )


class TimelineAudit:
    """Follows the timeline of one log. It keeps no rows."""

    def __init__(self, *, log: str, dead_letters: DeadLetters, database: str, remedy: str) -> None:
        self.log = log
        self.consumer = dead_letters.consumer
        self.database = database
        self.position = 0
        """Compared up to here."""
        self.wanted = 0
        """Position of the last event that it has to show."""
        self._dead_letters = dead_letters
        self._replayed = 0
        self._remedy = remedy

    def note(self, event: Recorded, _message: Message) -> None:
        """Notes an event, which may be beyond the view's checkpoint."""
        self.wanted = event.position

    async def compare(
        self,
        connection: Connection,
        decoded: Sequence[tuple[Recorded, Sequence[Message]]],
        upto: int,
        findings: Findings,
    ) -> int:
        """Compares the rows of these events, which follow the position, up to ``upto``; returns how many."""
        expected = {
            position: row
            for event, messages in decoded
            if self.position < event.position <= upto and not self._dead_letters.lacks(event.position)
            for position, row in _rows(event, messages)
        }
        last = min(upto, decoded[-1][0].position)
        await self._compare(connection, expected, last, findings)
        self.position = max(self.position, last)
        return len(expected)

    async def compare_replayed(self, connection: Connection, findings: Findings) -> None:
        """Compares the rows of what was parked when its turn came and has been replayed since."""
        while self._replayed < len(self._dead_letters.replayed):
            replayed = self._dead_letters.replayed[self._replayed]
            self._replayed += 1
            if replayed.event and replayed.position <= self.position:
                expected = dict(_rows(replayed.event, replayed.messages))
                await self._compare(connection, expected, replayed.position, findings, replayed.position - 1)

    async def _compare(
        self,
        connection: Connection,
        expected: dict[int, TimelineRow],
        last: int,
        findings: Findings,
        after: int | None = None,
    ) -> None:
        after = self.position if after is None else after
        rows = await connection.fetch(_QUERIES["timeline"], self.log, after, last)
        found = {row[1]: TimelineRow(*row) for row in rows}
        for position in sorted(expected.keys() | found.keys()):
            if expected.get(position) != found.get(position):
                self._add(position, difference(expected.get(position), found.get(position)), findings)

    async def judge_rest(self, connection: Connection, upto: int, findings: Findings) -> None:
        """Reports rows beyond the view's checkpoint."""
        for row in await connection.fetch(_QUERIES["timeline_beyond"], self.log, upto):
            self._add(row[0], f"it is there, and the view's checkpoint is {upto}", findings)

    def _add(self, position: int, why: str, findings: Findings) -> None:
        findings.add(
            EQUAL,
            f"row {self.log}/{position} of timeline: {why}",
            ids=[f"{self.log}/{position}"],
            events=[f"{self.log}/{position}"],
            remedy=self._remedy,
        )


def _rows(event: Recorded, messages: Iterable[Message]) -> Iterator[tuple[int, TimelineRow]]:
    for message in messages:
        with suppress(Exception):  # of an impossible event, which its consumer sets aside
            for key in TIMELINE.keys(event, message):
                if row := TIMELINE.after(key, None, event, message):
                    yield event.position, row


def difference(expected: Any, found: Any) -> str:
    """The differences between two rows, in words."""
    if found is None:
        return "it is missing"
    if expected is None:
        return "no event knows of it"
    return "; ".join(
        f"{name} is {_short(getattr(found, name))}, the events say {_short(getattr(expected, name))}"
        for name in expected._fields
        if getattr(expected, name) != getattr(found, name)
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
