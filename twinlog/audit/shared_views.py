"""Compares views that several logs change: a row has to be what its events lead to in some order.

Each log's events of a row keep their order; how the logs took turns is recorded nowhere. So every order that could have
been is allowed, the likely ones first. Most folds come to one row in any order, and one try is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from heapq import merge
from itertools import chain, islice, product
from math import prod
from typing import Any

from google.protobuf.message import Message

from twinlog.audit.report import Findings
from twinlog.audit.views import CHUNK, EQUAL, Rows, ViewAudit, difference
from twinlog.model.event import Recorded
from twinlog.model.view import AnyView
from twinlog.postgres.codecs import Connection

_MOST_TURNS = 20_000
"""How many ways to take turns are followed for one row; beyond that it is not compared."""
_MOST_ROWS = 64
"""How many different rows are followed at a time."""

Event = tuple[Recorded, Message]


class SharedRows:
    """The rows of one table, and the events of each, by log."""

    def __init__(self, view: AnyView, stored: Rows, remedy: str) -> None:
        """``remedy`` makes the view again."""
        self._view = view
        self._stored = stored
        self._remedy = remedy
        self._parts: list[SharedViewAudit] = []
        self._events: dict[str, dict[str, list[Event]]] = {}
        """By key and consumer."""
        self._made_anew: dict[str, dict[str, list[Event]]] = {}
        """Of the rows that discarded events are about, with them: so a view has them that was made again since."""
        self._present: set[str] = set()
        """Keys of the rows that were there when they were compared last."""
        self._touched: set[str] = set()
        self._connection: Connection | None = None
        self._arrived: list[bool] = []
        """Which parts stand where their checkpoints do, by this connection."""

    def join(self, part: SharedViewAudit) -> None:
        self._parts.append(part)

    def add(self, consumer: str, key: str, event: Recorded, message: Message) -> None:
        """An event of a row."""
        self._events.setdefault(key, {}).setdefault(consumer, []).append((event, message))
        if key in self._made_anew:
            self._made_anew[key].setdefault(consumer, []).append((event, message))

    def add_discarded(self, consumer: str, key: str, event: Recorded, message: Message) -> None:
        """An event of a row that its consumer gave up."""
        if key not in self._made_anew:
            self._made_anew[key] = {of: [*events] for of, events in self._events.get(key, {}).items()}
        self._made_anew[key].setdefault(consumer, []).append((event, message))

    async def arrive(
        self, connection: Connection, ready: bool, touched: Iterable[str], findings: Findings
    ) -> int:
        """One of the logs is read; once all are, the rows are compared. Returns how many."""
        if connection is not self._connection:
            self._connection, self._arrived = connection, []
        self._touched.update(touched)
        self._arrived.append(ready)
        if len(self._arrived) < len(self._parts) or not all(self._arrived):
            return 0
        return await self._compare(connection, findings)

    async def _compare(self, connection: Connection, findings: Findings) -> int:
        compared, wrong = len(self._touched), set[str]()
        waiting = iter(self._touched)
        while chunk := list(islice(waiting, CHUNK)):
            found = await self._stored.named(connection, chunk)
            self._present.difference_update(chunk)
            self._present.update(found)
            for key in chunk:
                if why := await self._why_not(connection, key, found.get(key), findings):
                    self._add(key, why, findings)
                    wrong.add(key)
        self._touched = wrong
        if await self._stored.count(connection) != len(self._present):
            for key in await self._stored.keys(connection):
                if key not in self._events and key not in self._made_anew:
                    self._add(key, "no event knows of it", findings)
        return compared

    async def _why_not(self, connection: Connection, key: str, found: Any, findings: Findings) -> str:
        """Why the stored row follows from its events in no order; empty where it does, or where that is unknown."""
        why = await self._differs(connection, key, self._events.get(key, {}), found, findings)
        if why and key in self._made_anew:
            why = await self._differs(connection, key, self._made_anew[key], found, findings)
        return why

    async def _differs(
        self,
        connection: Connection,
        key: str,
        events: Mapping[str, Sequence[Event]],
        found: Any,
        findings: Findings,
    ) -> str:
        histories = [*events.values()]
        likely = [fold(self._view, key, order) for order in likely_orders(histories)]
        if await self._is_one_of(connection, found, likely):
            return ""
        possible = any_order(self._view, key, histories)
        if possible is None:
            findings.note(f"row {key} of {self._view.name} is not compared: its events have too many orders")
            return ""
        return "" if await self._is_one_of(connection, found, possible) else difference(likely[0], found)

    async def _is_one_of(self, connection: Connection, found: Any, rows: Sequence[Any]) -> bool:
        if found in rows:
            return True
        given = [row for row in rows if row is not None]
        return bool(given) and found is not None and found in await self._stored.as_stored(connection, given)

    def _add(self, key: str, why: str, findings: Findings) -> None:
        if not all(part.judged for part in self._parts):
            return
        at = [f"{part.log}/{part.position}" for part in self._parts]
        findings.add(
            EQUAL,
            f"row {key} of {self._view.name}, at {' and '.join(at)}: {why}",
            ids=[key],
            events=at,
            remedy=self._remedy,
        )


class SharedViewAudit(ViewAudit):
    """Follows one of the logs that change a view; :class:`SharedRows` compares."""

    def __init__(self, view: AnyView, rows: Rows, *, shared: SharedRows, **parts: Any) -> None:
        super().__init__(view, rows, **parts)
        self._shared = shared
        shared.join(self)

    def _fold(self, event: Recorded, messages: Iterable[Message]) -> None:
        for message in messages:
            for key in self._keys(event, message):
                self._touched.add(key)
                self._shared.add(self.consumer, key, event, message)

    def _fold_discarded(self, event: Recorded, messages: Iterable[Message]) -> None:
        for message in messages:
            for key in self._keys(event, message):
                self._shared.add_discarded(self.consumer, key, event, message)

    async def compare(self, connection: Connection, upto: int, findings: Findings) -> int:
        touched, self._touched = self._touched, set()
        return await self._shared.arrive(connection, self.position == upto, touched, findings)


def fold(view: AnyView, key: str, events: Iterable[Event]) -> Any:
    """A row after events, in their order."""
    row: Any = None
    for event, message in events:
        row = _after(view, key, row, event, message)
    return row


def likely_orders(histories: Sequence[Sequence[Event]]) -> Iterator[Iterable[Event]]:
    """Orders in which several logs' events of a row may have come: by time, and one log after the other."""
    yield merge(*histories, key=lambda each: each[0].recorded_at)
    yield chain.from_iterable(histories)
    yield chain.from_iterable(reversed(histories))


def any_order(view: AnyView, key: str, histories: Sequence[Sequence[Event]]) -> Sequence[Any] | None:
    """Every row that some order of the events leads to, with each log's in theirs; None: there are too many."""
    if prod(len(history) + 1 for history in histories) > _MOST_TURNS:
        return None
    reached: dict[tuple[int, ...], list[Any]] = {(0,) * len(histories): [None]}
    for place in product(*(range(len(history) + 1) for history in histories)):
        rows: list[Any] = reached.get(place, [])
        for number, history in enumerate(histories):
            if place[number]:
                before = (*place[:number], place[number] - 1, *place[number + 1 :])
                event, message = history[place[number] - 1]
                for row in reached[before]:
                    if (after := _after(view, key, row, event, message)) not in rows:
                        rows.append(after)
        if len(rows) > _MOST_ROWS:
            return None
        reached[place] = rows
    return rows


def _after(view: AnyView, key: str, row: Any, event: Recorded, message: Message) -> Any:
    with suppress(Exception):  # an impossible history, which the log's checks report
        return view.after(key, row, event, message)
    return None
