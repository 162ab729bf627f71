"""What the pages of the log ask for: filters as a URL has them, events of one log, and one request's events of all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from twinlog.console.answers import Answer
from twinlog.console.page import Query
from twinlog.console.services import Services
from twinlog.model.event import MOST_VERSION
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

NEWEST = 100
_KEPT_SECONDS = 10.0
"""A tail that nobody has watched for longer is read anew: the log may have been mended meanwhile."""
_CORRELATED = 500
_AT_ONCE, _PATIENTLY = timedelta(seconds=0.25), timedelta(seconds=1)
"""How long a state is waited for: where a page is to be seen at once, and while it says that the state is to come."""


@dataclass(frozen=True)
class Filter:
    """Which events of a log are to be shown."""

    log: str
    stream: str = ""
    type: str = ""
    key: str = ""
    correlation: str = ""
    since: datetime | None = None
    until: datetime | None = None
    before: int = 0
    """Only events before this position; 0: the newest."""
    wrong: tuple[str, ...] = ()
    """What of the URL cannot be understood."""

    @classmethod
    def of(cls, query: Query, log: str) -> Filter:
        """The filters of a URL."""
        wrong: list[str] = []
        times: dict[str, datetime | None] = {}
        for name in ("since", "until"):
            try:
                times[name] = moment_in(query.get(name))
            except ValueError:
                wrong.append(f"{name}: {query.get(name)!r} is no time; write 2026-01-31T12:00:00Z or 12:00")
        return cls(
            log,
            query.get("stream"),
            query.get("type"),
            query.get("key"),
            query.get("correlation"),
            times.get("since"),
            times.get("until"),
            query.number("before"),
            tuple(wrong),
        )

    @property
    def narrows(self) -> bool:
        """Whether it leaves anything out."""
        return any((self.stream, self.type, self.key, self.correlation, self.since, self.until))

    def request(self) -> pb.ReadLogRequest:
        """The newest events that fit."""
        made = pb.ReadLogRequest(
            newest=NEWEST,
            upto=max(0, self.before - 1),
            stream=self.stream,
            types=[self.type] if self.type else [],
            routing_key=self.key,
            correlation_id=self.correlation,
        )
        if self.since:
            made.since.FromDatetime(self.since)
        if self.until:
            made.until.FromDatetime(self.until)
        return made


def moment_in(text: str) -> datetime | None:
    """A moment as people write it: ISO 8601, in UTC unless it says otherwise, or a time of today. Raises ValueError."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = datetime.fromisoformat(f"{datetime.now(UTC).date().isoformat()}T{text}")
    try:
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError("it lies outside the years 1 to 9999 in UTC") from error


@dataclass(frozen=True)
class Events:
    """Events of a log, the newest first."""

    events: Sequence[pb.LoggedEvent] = ()
    complete: bool = True
    """Whether there are no older ones that fit."""


@dataclass(frozen=True)
class _Tail:
    """A tail as it was found last, so that the next look reads only what has come since."""

    events: Sequence[pb.LoggedEvent]
    position: int
    """Up to where the log was looked through."""
    complete: bool
    at: float


async def newest(services: Services, service: str, wanted: Filter) -> Answer[Events]:
    """The newest events that fit. While somebody watches, only those are read that have come since the last look."""
    kept = services.kept(_Tail, wanted)
    if kept and time.monotonic() - kept.at < _KEPT_SECONDS:
        answer = await _since(services, service, wanted, kept)
        if answer.message and (tail := _joined(kept, answer.message)):
            services.keep(wanted, tail)
            return Answer(service, Events(tail.events, tail.complete))
    answer = await services.collect(service, lambda c: InspectionServiceStub(c).ReadLog, wanted.request())
    if answer.message is None:
        return Answer(service, None, answer.why, answer.problem, answer.reason)
    found = [each.event for each in answer.message if each.HasField("event")]
    ends = [each for each in answer.message if not each.HasField("event")]
    looked = all(each.complete for each in ends)
    complete = looked and (len(found) < NEWEST or found[0].position <= 1)
    if ends and not wanted.before:
        services.keep(wanted, _Tail(found[::-1], ends[-1].position, complete, time.monotonic()))
    return Answer(service, Events(found[::-1], complete))


async def _since(services: Services, service: str, wanted: Filter, kept: _Tail) -> Answer[list[Any]]:
    request = wanted.request()
    request.newest, request.after, request.limit = 0, kept.position, NEWEST
    return await services.collect(service, lambda c: InspectionServiceStub(c).ReadLog, request)


def _joined(kept: _Tail, answered: Sequence[Any]) -> _Tail | None:
    """The tail with what has come; None where so much has come that the tail is another."""
    if not all(each.complete for each in answered if not each.HasField("event")):
        return None
    came = [each.event for each in answered if each.HasField("event")]
    position = max((each.position for each in answered), default=kept.position)
    events = [*came[::-1], *kept.events]
    complete = kept.complete and len(events) <= NEWEST
    return _Tail(events[:NEWEST], max(position, kept.position), complete, time.monotonic())


async def stream_of(
    services: Services, service: str, request: pb.GetStreamRequest, query: Query | None = None
) -> Answer[pb.GetStreamResponse]:
    """A stream, with such entries of a large field of its state as a URL asks for.

    The first look at a state that takes long to fold is answered without it, the next ones wait for it; see
    :func:`still_folding`.
    """
    if query:
        ask_for_entries(request, query)
    kept = (service, request.stream)
    request.state_within.FromTimedelta(_PATIENTLY if services.kept(bool, kept) else _AT_ONCE)
    answer = await services.ask(service, lambda c: InspectionServiceStub(c).GetStream, request)
    services.keep(kept, bool(answer.message and answer.message.folded))
    return answer


def still_folding(*answers: Answer[pb.GetStreamResponse]) -> bool:
    """Whether something of these streams is missing that comes by itself, as it is folded just now."""
    return any(answer.message is not None and answer.message.folded for answer in answers)


def ask_for_entries(request: pb.GetStreamRequest, query: Query) -> None:
    """Has a request ask for the entries of a large field that a URL names; others are told from the first on."""
    if path := query.get("entries"):
        request.entries_of, request.entries_after = path, query.number("skip", most=MOST_VERSION)


@dataclass(frozen=True)
class Node:
    """An event with what it set off, in a tree."""

    event: pb.LoggedEvent
    depth: int
    here: bool = False
    """Whether it is the event that the page is about."""


@dataclass(frozen=True)
class Tree:
    """What one request set off, in all logs."""

    nodes: Sequence[Node] = ()
    """Each after what caused it, in order."""
    cause: str = ""
    """What began it: a call, as rpc/Method, or another cause that is no event that was found."""
    missing: Sequence[tuple[str, str]] = ()
    """Services that could not be asked, and why."""
    more: bool = False
    """Whether there are more events than are shown."""


async def tree_of(services: Services, about: pb.LoggedEvent) -> Tree:
    """The causes and effects of an event across all logs, by its correlation id."""
    request = pb.ReadCorrelatedRequest(
        correlation_ids=[about.correlation_id], around=[about.recorded_at], limit=_CORRELATED
    )
    asked = await services.collect_all(
        lambda c: InspectionServiceStub(c).ReadCorrelated, request, services=services.names
    )
    answers = asked.values()
    found = {about.address: about}
    for answer in answers:
        for each in answer.message or ():
            if each.HasField("event"):
                found[each.event.address] = each.event
    more = any(each.more for answer in answers for each in answer.message or ())
    missing = [(answer.service, answer.problem) for answer in answers if not answer.ok]
    return Tree([*_nodes(found, about.address)], _beginning(found, about), missing, more)


def _beginning(found: dict[str, pb.LoggedEvent], about: pb.LoggedEvent) -> str:
    at, seen = about, set[str]()
    while at.cause in found and at.address not in seen:
        seen.add(at.address)
        at = found[at.cause]
    return at.cause


def _nodes(found: dict[str, pb.LoggedEvent], here: str) -> Sequence[Node]:
    """The tree, each event before its effects, those of one cause in the order of their time, and of their log.

    Events that were appended together have one time.
    """
    effects: dict[str, list[pb.LoggedEvent]] = {}
    roots: list[pb.LoggedEvent] = []
    for event in sorted(found.values(), key=_when):
        (effects.setdefault(event.cause, []) if event.cause in found else roots).append(event)
    made: list[Node] = []
    waiting = [(event, 0) for event in reversed(roots)]
    while waiting:
        event, depth = waiting.pop()
        made.append(Node(event, depth, event.address == here))
        waiting += [(each, depth + 1) for each in reversed(effects.get(event.address, []))]
    return made


def _when(event: pb.LoggedEvent) -> tuple[int, str, int]:
    log = event.address.rpartition("/")[0]
    return event.recorded_at.ToNanoseconds(), log, event.position
