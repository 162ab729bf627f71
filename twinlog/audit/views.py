"""Compares views with the fold of their events, row by row, each at its own checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Protocol

from google.protobuf.message import Message

from twinlog.audit.dead_letters import DeadLetters, out_of_order
from twinlog.audit.report import Findings
from twinlog.model.event import Recorded
from twinlog.model.routing import routing_key_of
from twinlog.model.schema import Schema
from twinlog.model.view import AnyView
from twinlog.postgres.codecs import Connection
from twinlog.postgres.view_builds import shortened

EQUAL = "view row equals fold"
"""The check that a row breaks which its events do not lead to."""

CHUNK = 2_000

Decoded = Sequence[tuple[Recorded, Sequence[Message]]]
"""Events with their messages; UNREAD where an event cannot be read."""
UNREAD: Sequence[Message] = []
"""Known by its identity: an event of a type that was dropped has no messages either."""


class Rows(Protocol):
    """A view as it is stored."""

    async def named(self, connection: Connection, keys: Sequence[str]) -> Mapping[str, Any]:
        """The rows of these keys that exist, by key."""

    async def as_stored(self, connection: Connection, rows: Sequence[Any]) -> Sequence[Any]:
        """Rows as they come back when they are stored: columns may round, pad, or have another type."""

    async def keys(self, connection: Connection) -> Sequence[str]:
        """The key of every row."""

    async def count(self, connection: Connection) -> int:
        """How many rows there are."""


class RowsAudit:
    """Follows what one consumer keeps of one log. By itself it compares no rows: it tells how far behind they are."""

    def __init__(
        self,
        view: AnyView,
        *,
        log: str,
        consumer: str,
        database: str,
        routing_key: str = "",
        schema: Schema | None = None,
    ) -> None:
        """``routing_key`` is that of the events that are projected, empty for all; ``schema`` decodes them, None: as
        their log does.
        """
        self.log = log
        self.consumer = consumer
        self.database = database
        self.schema = schema
        self.position = 0
        """Compared up to here."""
        self.wanted = 0
        """Position of the last event that it has to show."""
        self._view = view
        self._routing_key = routing_key

    def note(self, event: Recorded, message: Message) -> None:
        """Notes an event, which may be beyond the checkpoint."""
        if self._projects(message):
            self.wanted = event.position

    def _projects(self, message: Message) -> bool:
        return self._view.is_about(message) and self._routing_key in ("", routing_key_of(message))

    async def begin(self, connection: Connection, findings: Findings) -> None:
        """Takes in what was parked when its turn came and has been replayed since."""

    async def follow(self, connection: Connection, decoded: Decoded, upto: int, findings: Findings) -> int:
        """Takes in events that follow the position, up to ``upto``; returns how many rows were compared."""
        self.position = max(self.position, decoded[-1][0].position)
        return 0

    async def compare(self, connection: Connection, upto: int, findings: Findings) -> int:
        """Compares what can only be compared at the checkpoint, ``upto``; returns how many rows."""
        return 0


class ViewAudit(RowsAudit):
    """Follows one view of one log. It keeps the folded rows in memory."""

    def __init__(
        self,
        view: AnyView,
        rows: Rows,
        *,
        log: str,
        dead_letters: DeadLetters,
        database: str,
        routing_key: str = "",
        schema: Schema | None = None,
        remedy: str,
    ) -> None:
        """``dead_letters`` are its consumer's; ``remedy`` makes the view again."""
        consumer = dead_letters.consumer
        super().__init__(
            view, log=log, consumer=consumer, database=database, routing_key=routing_key, schema=schema
        )
        self._dead_letters = dead_letters
        self._replayed = 0
        """How many of the replayed dead letters were folded."""
        self._stored = rows
        self._remedy = remedy
        self._rows: dict[str, Any] = {}
        self._made_anew: dict[str, Any] = {}
        """The rows that discarded events are about, with them: so a view has them that was made again since."""
        self._touched: set[str] = set()
        """Keys of the rows to compare."""
        self.judged = True
        """Whether rows are judged: not where its consumer has handled what cannot be read here."""

    async def begin(self, connection: Connection, findings: Findings) -> None:
        while self._replayed < len(self._dead_letters.replayed):
            replayed = self._dead_letters.replayed[self._replayed]
            self._replayed += 1
            if replayed.event and replayed.position <= self.position:
                self._fold(replayed.event, replayed.messages)

    async def follow(self, connection: Connection, decoded: Decoded, upto: int, findings: Findings) -> int:
        for event, messages in decoded:
            if self.position < event.position <= upto:
                self._take(event, messages, findings)
        return 0

    def _take(self, event: Recorded, messages: Sequence[Message], findings: Findings) -> None:
        """Folds the next event, unless its consumer parked or discarded it."""
        self.position = event.position
        if self._dead_letters.lacks(event.position):
            # The row has to be what it is without the event.
            self._touched.update(key for one in messages for key in self._keys(event, one))
            if event.position in self._dead_letters.discarded:
                self._fold_discarded(event, messages)
            return
        self._fold(event, messages)
        if messages is UNREAD:
            self.judged = False
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
                row = self._after(key, self._rows.get(key), event, message)
                if row is None:
                    self._rows.pop(key, None)
                else:
                    self._rows[key] = row
                if key in self._made_anew:
                    self._made_anew[key] = self._after(key, self._made_anew[key], event, message)

    def _fold_discarded(self, event: Recorded, messages: Iterable[Message]) -> None:
        for message in messages:
            for key in self._keys(event, message):
                row = self._made_anew.get(key, self._rows.get(key))
                self._made_anew[key] = self._after(key, row, event, message)

    def _after(self, key: str, row: Any, event: Recorded, message: Message) -> Any:
        with suppress(Exception):  # an impossible history, which the log's checks report
            return self._view.after(key, row, event, message)
        return None

    async def compare(self, connection: Connection, upto: int, findings: Findings) -> int:
        """Compares the rows that changed or were wrong since the last time; ``connection`` sees the view exactly at
        the position.
        """
        waiting, wrong = iter(self._touched), set[str]()
        compared = len(self._touched)
        while chunk := list(islice(waiting, CHUNK)):
            wrong |= await self._compare(connection, chunk, findings)
        if self._made_anew or await self._stored.count(connection) != len(self._rows):
            for key in await self._stored.keys(connection):
                if key not in self._rows and self._made_anew.get(key) is None:
                    self._add(key, "no event knows of it", findings)
        self._touched = wrong
        return compared

    async def _compare(self, connection: Connection, keys: Sequence[str], findings: Findings) -> set[str]:
        """The keys of rows that are not as they have to be, which are reported."""
        found = await self._stored.named(connection, keys)
        right = await self._right(connection, keys, self._rows, found)
        others = [key for key in keys if key not in right and key in self._made_anew]
        right |= await self._right(connection, others, self._made_anew, found)
        wrong = [key for key in keys if key not in right]
        for key in wrong:
            self._add(key, difference(self._rows.get(key), found.get(key)), findings)
        return set(wrong)

    async def _right(
        self, connection: Connection, keys: Sequence[str], rows: Mapping[str, Any], found: Mapping[str, Any]
    ) -> set[str]:
        """The keys whose stored row is the one of ``rows``."""
        equal = {key for key in keys if rows.get(key) == found.get(key)}
        differ = [key for key in keys if key not in equal and rows.get(key) is not None and key in found]
        stored = await self._stored.as_stored(connection, [rows[key] for key in differ]) if differ else []
        return equal | {key for key, row in zip(differ, stored, strict=True) if row == found[key]}

    def _add(self, key: str, why: str, findings: Findings) -> None:
        if not self.judged:
            return
        findings.add(
            EQUAL,
            f"row {key} of {self._view.name}, at {self.log}/{self.position}: {why}",
            ids=[key],
            events=[f"{self.log}/{self.position}"],
            remedy=self._remedy,
        )


def difference(expected: Any, found: Any) -> str:
    """The differences between two rows, in words."""
    if found is None:
        return "it is missing"
    if expected is None:
        return "no event knows of it"
    return "; ".join(
        f"{name} is {shortened(getattr(found, name))}, the events say {shortened(getattr(expected, name))}"
        for name in expected._fields
        if getattr(expected, name) != getattr(found, name)
    )
