"""Repair: what becomes of a log that lost its last events, while its stream still holds them and others acted on them.

The events that the stream holds are put back at their own positions: they are history that others have seen. What the
log recorded instead has been seen by nobody, since no relay copies it; it is moved behind them, unless its streams have
gone another way meanwhile. Then it is given up, and the consumers that caused it handle its causes again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

from twinlog.log.lineage import KnowsHead, first_difference, trimmed
from twinlog.log.ports import Log
from twinlog.log.twin import DeliveryLost, Twin, TwinDamaged, TwinMissing, TwinState, event_in
from twinlog.model.errors import FailedPrecondition, Unavailable
from twinlog.model.event import Metadata, Recorded, StreamId, encoded
from twinlog.v1.event_pb2 import EventsGivenUp

GIVEN_UP = "given_up"
"""The type of the stream, one in a log, of what a repair notes in the place of events that are gone."""
_BATCH = 1_000
_GONE = 7 << 76 | 2 << 62
"""A UUID of version 7 without anything random, below its 48 bits of time."""
_CLOCKS = timedelta(seconds=1)
"""More than the clocks of two processes are apart."""
_SILENCE_SECONDS = 10.0
"""A stream that delivers nothing for so long has lost what it should deliver."""


class Unrepairable(FailedPrecondition):
    """Log {log} cannot be repaired from its stream: {why}."""

    reason = "UNREPAIRABLE"


class GivenUp(NamedTuple):
    """Positions of events that are gone."""

    first: int
    last: int


class Difference(NamedTuple):
    """How a stream differs from its log."""

    state: TwinState
    """``(1, 0, 0)`` where there is no stream."""
    since: int
    """The first position at which the stream has another event than the log, or had; 0: none."""
    theirs: Sequence[Recorded]
    """The stream's events from there on, up to the first that is no event; some may be gone."""
    shared: Recorded | None
    """The event before, if the stream has it."""
    damaged: str
    """What is wrong with the stream itself; empty: nothing."""
    foreign: bool = False
    """Whether that is a message of somebody else: no event ever followed it."""

    @property
    def last(self) -> int:
        """The last event that the stream has, or had."""
        return self.theirs[-1].position if self.foreign and self.theirs else self.state.last

    @property
    def complete(self) -> bool:
        """Whether the stream has every event that the log lost."""
        return self._whole and (self.shared is not None or self.since == 1)

    @property
    def only_notes(self) -> bool:
        """Whether the log lost dead letters of projections only; what is gone from the stream too may have been any."""
        return self._whole and only_notes_of_projections(self.theirs)

    @property
    def _whole(self) -> bool:
        return len(self.theirs) == self.last + 1 - self.since


async def difference(log: Log, twin: Twin) -> Difference:
    """Compares all of a stream with its log. Raises Unavailable."""
    try:
        state = await twin.state()
    except TwinMissing:
        return Difference(TwinState(1, 0, 0), 0, (), None, "it does not exist")
    shared: Recorded | None = None
    theirs: list[Recorded] = []
    gone = state.first > await trimmed(log) + 1
    damaged = f"its events before {state.first} are gone" if gone else ""
    foreign = False
    try:
        async for events in _stored(twin, state):
            ours = (
                {} if theirs else {e.position: e for e in await log.read(events[0].position - 1, len(events))}
            )
            for event in events:
                mine = ours.get(event.position)
                if theirs or mine is None or mine.event_id != event.event_id:
                    theirs.append(event)
                else:
                    shared = mine
                    if mine.payload != event.payload:
                        damaged = f"its message {event.position} was changed"
    except TwinMissing as error:  # another repair has it made anew
        raise Unavailable(f"stream {twin.name} has changed meanwhile; try again") from error
    except TwinDamaged as error:
        damaged, foreign = error.facts["damage"], True
    except (DeliveryLost, TimeoutError):
        return await _past_holes(log, twin, state)
    since = theirs[0].position if theirs else 0
    if since and not shared:  # trimmed further than the log of now reaches
        since = min(since, await _end(log) + 1)
    return Difference(state, since, theirs, shared, damaged, foreign)


async def _past_holes(log: Log, twin: Twin, state: TwinState) -> Difference:
    """Compares a stream of which some messages are gone, so that nobody delivers it."""
    damaged = (
        f"{state.holes} of its messages are gone" if state.holes else "it does not deliver all that it has"
    )
    since = await first_difference(log, twin, state, min(await _end(log), state.last))
    while since > state.first and await twin.message(since - 1) is None:
        since -= 1  # whether the log has what was there is not to be seen
    theirs: list[Recorded] = []
    foreign = False
    for position in range(since, state.last + 1):
        if (message := await twin.message(position)) is None:
            continue
        try:
            theirs.append(event_in(twin.name, position, log.name, message))
        except TwinDamaged as error:
            damaged, foreign = error.facts["damage"], True
            break
    shared = await log.read(since - 2, 1) if since > max(state.first, 1) else ()
    return Difference(state, since if theirs else 0, theirs, shared[0] if shared else None, damaged, foreign)


async def _end(log: Log) -> int:
    """The position of the last event of a log."""
    return await log.last() if isinstance(log, KnowsHead) else await log.head()


async def _stored(twin: Twin, state: TwinState) -> AsyncIterator[Sequence[Recorded]]:
    """The events of a stream, up to the last."""
    position = state.first - 1
    if state.last <= position:
        return
    async with twin.deliver(position) as delivery:
        while position < state.last:
            async with asyncio.timeout(_SILENCE_SECONDS):
                events = [event for event in await delivery.next(_BATCH) if event.position <= state.last]
            if events:
                position = events[-1].position
                yield events


@dataclass(frozen=True)
class Plan:
    """What a repair makes of a log from position ``since`` on."""

    since: int
    restored: Sequence[Recorded]
    """What the stream has from there on, at its own positions."""
    kept: Sequence[Recorded]
    """What only the log had, at new positions behind it."""
    given_up: Sequence[Recorded]
    """What only the log had, of streams that have gone another way; at their old positions."""
    moved: Mapping[int, int]
    """The new positions of the log's own events, by the old ones."""
    checkpoints: Mapping[str, int]
    """Where the service's consumers have to stand afterwards."""

    @property
    def streams(self) -> set[StreamId]:
        """The streams whose states differ from what they were before."""
        return {event.stream for event in [*self.restored, *self.kept, *self.given_up]}


def plan(
    ours: Sequence[Recorded],
    theirs: Sequence[Recorded],
    versions: Mapping[StreamId, int],
    checkpoints: Mapping[str, int],
) -> Plan:
    """``ours``: the log's events from the first difference on; ``theirs``: the stream's.

    ``versions``: of streams before that position, where they had any. ``checkpoints``: of the service's consumers.
    Raises Unrepairable where the stream's events do not follow each other.
    """
    since, end = theirs[0].position, theirs[-1].position
    after = dict(versions)
    for event in theirs:
        if event.version != after.get(event.stream, 0) + 1:
            why = f"event {event.position} in the stream, of {event.stream}, is not the next of its stream"
            raise Unrepairable(log=event.log, why=why)
        after[event.stream] = event.version
    seen = {event.event_id: event.position for event in theirs}
    own = [event for event in ours if event.event_id not in seen]
    lost: set[StreamId] = set()
    """Streams whose own events are given up."""
    for event in own:
        if event.stream in lost or event.version != after.get(event.stream, 0) + 1:
            lost.add(event.stream)
        else:
            after[event.stream] = event.version
    proven = _handled(theirs)
    reached = {name: max(checkpoints.get(name, 0), proven.get(name, 0)) for name in {**proven, **checkpoints}}
    _set_back(own, lost, proven, reached)
    kept = [event for event in own if event.stream not in lost]
    moved = {event.position: end + number for number, event in enumerate(kept, 1)}
    return Plan(
        since,
        theirs,
        [event._replace(position=moved[event.position]) for event in kept],
        [event for event in own if event.stream in lost],
        {**{event.position: seen[event.event_id] for event in ours if event.event_id in seen}, **moved},
        {name: position for name, position in reached.items() if position != checkpoints.get(name, 0)},
    )


def _set_back(
    own: Sequence[Recorded], lost: set[StreamId], proven: Mapping[str, int], reached: dict[str, int]
) -> None:
    """Sets consumers back to before what they did in vain, and gives up the streams of whatever they did after that.

    Either may lead to more of the other, so both grow until nothing changes.
    """
    while True:
        for event in own:
            consumer, cause = caused_by(event)
            if event.stream in lost and proven.get(consumer, 0) < cause <= reached.get(consumer, 0):
                reached[consumer] = cause - 1
        more = {
            event.stream for event in own if reached.get(caused_by(event)[0], 2**63) < caused_by(event)[1]
        }
        if more <= lost:
            return
        lost |= more


def _handled(events: Sequence[Recorded]) -> Mapping[str, int]:
    """Up to which position each consumer has handled its log, as the effects prove."""
    reached: defaultdict[str, int] = defaultdict(int)
    for event in events:
        consumer, cause = caused_by(event)
        if consumer:
            reached[consumer] = max(reached[consumer], cause)
    return dict(reached)


def gone(effect: Recorded) -> UUID:
    """What a checkpoint remembers of the cause of an effect, where neither its log nor the stream of that has it.

    No event has such an id, which tells the time of the effect: when it was recorded, the cause was still there.
    """
    ms = int(effect.recorded_at.timestamp() * 1_000)
    return UUID(int=ms << 80 | _GONE)


def is_gone(event_id: UUID | None) -> bool:
    """Whether that is what an id says."""
    return event_id is not None and event_id.int & (2**80 - 1) == _GONE


def shared_by(stand: Iterable[tuple[int, UUID]], lost: Sequence[tuple[int, UUID]]) -> int:
    """The last position at which a consumer stands that a log had before it was set back.

    ``stand``: positions and ids of events that it has. ``lost``: of those that are gone, which were made before any
    that came to their places. 0: none is known.
    """
    first = min((position for position, _ in lost), default=2**63)
    told = all(id.version == 7 for _, id in lost)
    earliest = min((id.int >> 80 for _, id in lost if told), default=2**48)
    before = (at for at, id in stand if at < first and (id.version != 7 or id.int >> 80 <= earliest))
    return max(before, default=0)


def before_all(event_ids: Sequence[UUID]) -> datetime | None:
    """A time at which none of some events was there, as far as their ids tell it, which have it where they are made by
    Twinlog (RFC 9562, version 7); a log that was set back has only shared events from before then."""
    if not event_ids or any(id.version != 7 for id in event_ids):
        return None
    return datetime.fromtimestamp(min(id.int >> 80 for id in event_ids) / 1_000, UTC) - _CLOCKS


def notes_of_given_up(
    log: str, span: GivenUp, head: int, version: int, recorded_at: datetime
) -> Sequence[Recorded]:
    """What a log records behind ``head`` of events that are gone; ``version``: of the notes' stream, until now."""
    stream, metadata = StreamId(GIVEN_UP, log), Metadata(str(uuid4()), actor="twinlog repair")
    type, payload, routing_key = encoded(EventsGivenUp(first=span.first, last=span.last))
    said = type, payload, metadata, log, routing_key, recorded_at
    return [
        Recorded(log, head + number, stream, version + number, uuid4(), *said)
        for number in range(1, max(span.last - head, 1) + 1)
    ]


def given_up(note: Recorded) -> GivenUp:
    """What a note says."""
    said = EventsGivenUp.FromString(note.payload)
    return GivenUp(said.first, said.last)


def caused_by(event: Recorded) -> tuple[str, int]:
    """The consumer that caused an event, and the position of the cause; empty and 0 where none did."""
    log, _, position = event.metadata.causation_id.partition("/")
    # Dead letters of a projection prove nothing: its rows are not in the log.
    if not position.isdecimal() or event.metadata.actor == event.stream.id:
        return "", 0
    return f"{event.metadata.actor}.{log}", int(position)


def only_notes_of_projections(events: Sequence[Recorded]) -> bool:
    """Whether events are dead letters of projections only, which are set aside again when their causes come again."""
    projections = {event.stream for event in events if event.metadata.actor == event.stream.id}
    return all(event.stream in projections for event in events)
