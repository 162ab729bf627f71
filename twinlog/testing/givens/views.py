"""Given / when / then for views: which rows events come to.

given(ROOMS, RoomOpened(...)).when(RoomReserved(...)).row("101", Room("101", taken=True))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.model.routing import routing_key_of
from twinlog.model.view import AnyView, fold
from twinlog.testing.fakes import START
from twinlog.testing.givens.difference import difference
from twinlog.testing.givens.happened import events as given

Happened = Message | tuple[Recorded, Message]
"""An event, alone or with the record that a log has of it."""


@dataclass(frozen=True)
class GivenView:
    """A view after some events."""

    view: AnyView
    seen: int = 0
    rows: Mapping[str, Any] = field(default_factory=dict)

    def when(self, *events: Happened) -> GivenView:
        """Events happen, in order; each is the next of one log, in its own stream, unless its record says more."""
        given("when", [each[-1] if isinstance(each, tuple) and each else each for each in events])
        decoded = [
            each if isinstance(each, tuple) else (_recorded(each, position), each)
            for position, each in enumerate(events, self.seen + 1)
        ]
        rows = self.rows
        for one in decoded:  # as a projection that is handed them one by one
            rows = self._after([one], rows)
        together = self._after(decoded, self.rows)
        assert together == rows, difference(
            "one batch comes to other rows than one by one", [together], [rows]
        )
        return GivenView(self.view, self.seen + len(events), rows)

    def _after(
        self, events: Sequence[tuple[Recorded, Message]], rows: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        changed = fold([self.view], events, {self.view: rows}).get(self.view, {})
        return {
            key: row for key, row in {**rows, **changed}.items() if row is not None
        }  # None: it is deleted

    def row(self, key: str, expected: Any) -> GivenView:
        """The row with this key is exactly this; None: there is none."""
        came = self.rows.get(key)
        assert came == expected, difference(f"row {key} of {self.view.name} is", _some(came), _some(expected))
        return self

    def all_rows(self, expected: Mapping[str, Any]) -> GivenView:
        """Exactly these rows, by key."""
        assert self.rows == expected, difference(f"{self.view.name} has", [self.rows], [expected])
        return self


def _some(row: Any) -> Sequence[Any]:
    return [] if row is None else [row]


def _recorded(message: Message, position: int) -> Recorded:
    return Recorded(
        "test",
        position,
        StreamId("test", str(position)),
        1,
        UUID(int=position),
        message.DESCRIPTOR.full_name,
        message.SerializeToString(deterministic=True),
        Metadata(),
        "test",
        routing_key_of(message),
        START,
    )
