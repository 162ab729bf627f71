"""A saga as a picture: a lane for each service, events from top to bottom, an arrow from each cause to its effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict, ParseDict
from google.type.money_pb2 import Money

from shop.queries.v1.order_query_service_pb2 import TimelineEntry
from stack.topology import OWNERS
from stack.try_it.calls import amount

ROW, LANE, LEFT = 52, 32, 20
"""Pixels: the height of an event, the width of a lane, and where the first lane is."""
_LANES = ("orders", "customers", "sagas")
MEANINGS = {
    "OrderCreated": "The order is PENDING",
    "CreditReserved": "Credit is held for it",
    "CreditReservationFailed": "No credit for it",
    "CreditReleased": "The credit is given back",
    "OrderApproved": "The order is APPROVED",
    "OrderRejected": "The order is REJECTED",
    "OrderCancelled": "The order is CANCELLED",
    "OrderApprovalRefused": "Too late to approve it",
    "SagaStarted": "The orchestrator takes it on",
    "ReserveCredit": "Asks customer_svc to hold credit",
    "ReleaseCredit": "Asks customer_svc to give it back",
    "ApproveOrder": "Asks order_svc to approve it",
    "RejectOrder": "Asks order_svc to reject it",
    "SagaStepSucceeded": "It hears that this was done",
    "SagaStepFailed": "It hears that this was refused",
    "SagaStepCompensated": "It hears that this was undone",
    "SagaStepDeferred": "It hears: not yet",
    "SagaCommandRetried": "It asks once more",
    "SagaNeedsAttention": "It goes on asking, and somebody should look",
    "SagaRetryRequested": "An operator has it ask once more",
    "SagaStepSkipped": "An operator has it go on without the answer",
    "SagaAborted": "An operator has it undo what was done",
    "SagaInterrupted": "It begins to undo what was done",
    "SagaCompleted": "The saga has ended well",
    "SagaCompensated": "The saga has ended; nothing is held",
}
"""What each event of the shop says, by the name of its type."""
_BAD = {
    "CreditReservationFailed",
    "OrderRejected",
    "SagaStepFailed",
    "OrderApprovalRefused",
    "SagaNeedsAttention",
}
_GOOD = {"OrderApproved", "SagaCompleted"}
_UNDONE = {"OrderCancelled", "SagaInterrupted", "SagaAborted", "CreditReleased", "SagaCompensated"}


class Event(NamedTuple):
    """An event in the picture."""

    address: str
    """log/position."""
    type: str
    meaning: str
    detail: str
    milliseconds: float
    """After the first."""
    service: str
    """Whose log it is in."""
    lane: int
    x: int
    y: int
    kind: str
    """ok, bad, undo, or run."""
    cause: str


class Arrow(NamedTuple):
    """From a cause to its effect."""

    id: str
    lane: int
    """The effect's."""
    path: str
    row: int
    """The effect's, from 1."""


@dataclass(frozen=True)
class Picture:
    """All of it, in pixels."""

    lanes: Sequence[tuple[str, int, int]]
    """Services with the number and the place of their lanes."""
    events: Sequence[Event]
    arrows: Sequence[Arrow]

    @property
    def width(self) -> int:
        """Of the lanes."""
        return 2 * LEFT + LANE * (len(self.lanes) - 1)

    @property
    def height(self) -> int:
        """Of the events."""
        return ROW * len(self.events)


def picture(entries: Sequence[TimelineEntry]) -> Picture:
    """The picture of a timeline."""
    logs = [log for log in _LANES if any(entry.log == log for entry in entries)]
    places = {log: (number, LEFT + LANE * number) for number, log in enumerate(logs)}
    events = [
        _event(entry, entries[0], row, places.get(entry.log, (0, LEFT))) for row, entry in enumerate(entries)
    ]
    by_address = {event.address: event for event in events}
    arrows = [
        Arrow(event.address, event.lane, _path(by_address[event.cause], event), row)
        for row, event in enumerate(events, 1)
        if event.cause in by_address
    ]
    return Picture([(OWNERS[log].name, *place) for log, place in places.items()], events, arrows)


def _event(entry: TimelineEntry, first: TimelineEntry, row: int, place: tuple[int, int]) -> Event:
    name = entry.type.rpartition(".")[2]
    kind = "bad" if name in _BAD else "ok" if name in _GOOD else "undo" if name in _UNDONE else "run"
    return Event(
        address=f"{entry.log}/{entry.position}",
        type=name,
        meaning=MEANINGS.get(name, name),
        detail=_detail(MessageToDict(entry.payload)),
        milliseconds=(entry.recorded_at.ToNanoseconds() - first.recorded_at.ToNanoseconds()) / 1e6,
        service=OWNERS[entry.log].name if entry.log in OWNERS else entry.log,
        lane=place[0],
        x=place[1],
        y=ROW * row + ROW // 2,
        kind=kind,
        cause=entry.cause,
    )


def _detail(payload: Mapping[str, Any]) -> str:
    for name in ("total", "amount"):
        if name in payload:
            return amount(ParseDict(payload[name], Money()))
    return str(payload.get("reason", "")).removeprefix("REJECTION_REASON_")


def _path(cause: Event, effect: Event) -> str:
    if cause.x == effect.x:  # around whatever lies between
        x = cause.x + (0 if effect.y - cause.y == ROW else LANE * 0.42)
        return f"M{cause.x} {cause.y}C{x} {cause.y + 24} {x} {effect.y - 24} {effect.x} {effect.y - 8}"
    middle = (cause.y + effect.y) / 2
    return f"M{cause.x} {cause.y}C{cause.x} {middle} {effect.x} {middle} {effect.x} {effect.y - 8}"
