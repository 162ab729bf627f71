"""Compares the timeline with the events of its logs, row by row, each log at its own checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from google.protobuf.message import Message

from projector.views.timeline import TIMELINE, TimelineRow
from twinlog import Recorded
from twinlog.audit import VIEW_EQUAL, DeadLetters, Decoded, Findings, RowsAudit, difference
from twinlog.testing.internals import Connection, load_queries

_QUERIES = load_queries("proof.auditor.sql")


class TimelineAudit(RowsAudit):
    """Follows the timeline of one log. It keeps no rows."""

    def __init__(self, *, log: str, dead_letters: DeadLetters, database: str, remedy: str) -> None:
        super().__init__(TIMELINE, log=log, consumer=dead_letters.consumer, database=database)
        self._dead_letters = dead_letters
        self._replayed = 0
        self._remedy = remedy
        self._unread: set[int] = set()
        """Positions of events that cannot be read here, of those that are looked at."""
        self._discarded: dict[int, TimelineRow] = {}
        """The rows of events that were given up: they are there where the view was made again since."""

    def note(self, event: Recorded, message: Message) -> None:
        """Each event has a row."""
        self.wanted = event.position

    async def follow(self, connection: Connection, decoded: Decoded, upto: int, findings: Findings) -> int:
        """Compares the rows of these events, which follow the position, up to ``upto``; returns how many."""
        self._unread = {event.position for event, messages in decoded if not messages}
        self._discarded = {
            position: row
            for event, messages in decoded
            if event.position in self._dead_letters.discarded
            for position, row in _rows(event, messages)
        }
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

    async def begin(self, connection: Connection, findings: Findings) -> None:
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
        unread = {each for each in self._unread if not self._dead_letters.lacks(each)}
        for position in sorted((expected.keys() | found.keys()) - unread):
            made_again = position in found and self._discarded.get(position) == found[position]
            if expected.get(position) != found.get(position) and not made_again:
                self._add(position, difference(expected.get(position), found.get(position)), findings)

    async def compare(self, connection: Connection, upto: int, findings: Findings) -> int:
        """Reports rows beyond the view's checkpoint."""
        for row in await connection.fetch(_QUERIES["timeline_beyond"], self.log, upto):
            self._add(row[0], f"it is there, and the view's checkpoint is {upto}", findings)
        return 0

    def _add(self, position: int, why: str, findings: Findings) -> None:
        findings.add(
            VIEW_EQUAL,
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
