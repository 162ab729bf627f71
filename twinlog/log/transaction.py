"""Transactions: what a unit of work reads, decides and appends.

The units of a batch share a :class:`Draft`, so each sees the states that the ones before it left. A unit that fails
leaves no trace in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from twinlog.log.ports import Statement, TimerChange
from twinlog.model.aggregate import Aggregate, AnyAggregate
from twinlog.model.clock import Ids
from twinlog.model.errors import FailedPrecondition, StreamUnreadable, TwinlogError, defect, named
from twinlog.model.event import Metadata, NewEvent, StreamId, encoded, known_stream
from twinlog.model.forms import shown
from twinlog.model.schema import Schema
from twinlog.model.withheld import decides_personal, withheld

State = TypeVar("State")
Command = TypeVar("Command")


class Entry(NamedTuple):
    """A stream as this process knows it."""

    aggregate: AnyAggregate
    state: Any
    version: int
    position: int
    """The position of its last event; 0 for an empty stream, and until that event is committed."""
    snapshot_version: int
    """The version of its newest snapshot; 0 if it has none."""
    due: datetime | None = None
    """When it wants to be woken, as far as :attr:`due_known` says."""
    due_known: bool = False


class NotLoaded(Exception):
    """A unit read a stream that is not in memory; the writer loads it and runs the unit again."""

    def __init__(self, aggregate: AnyAggregate, stream: StreamId) -> None:
        super().__init__(stream)
        self.aggregate = aggregate
        self.stream = stream


class NoStreamId(FailedPrecondition):
    """{command} for {aggregate} has the id {id}, and an id is text that is not empty; is a field unset?"""

    reason = "NO_STREAM_ID"


class Draft:
    """What a batch has decided so far."""

    def __init__(
        self,
        known: Mapping[StreamId, Entry],
        failed: MutableMapping[StreamId, StreamUnreadable],
        ids: Ids,
        schema: Schema,
        owners: Mapping[type[Message], str],
    ) -> None:
        """``failed``: the streams that cannot be read in this batch. ``schema``: what will read the events.

        ``owners``: the aggregate that declares a type among its ``events``, by its name."""
        self.owners = owners
        self.upcasting = schema if schema.fingerprint else None
        """What reads the events that are decided as something else, where they are of an older type."""
        self.known = known
        self.failed = failed
        self.ids = ids
        self.read: dict[StreamId, Entry] = {}
        """Every stream that a unit read, as it was before the batch."""
        self.written: dict[StreamId, Entry] = {}
        """Every stream with new events, as it is after them."""
        self.events: list[NewEvent] = []
        """As decided; sealed before they are appended."""
        self.statements: list[Statement] = []
        self.checked: set[StreamId] = set()
        """Streams whose stored timers may be wrong."""
        self.due: dict[StreamId, datetime | None] = {}
        """When the streams with new events want to be woken, by :meth:`timers`."""

    def timers(self) -> list[TimerChange]:
        """The timers that the new events set or clear.

        Where an aggregate's ``due`` fails, the stream is among the failed from now on, and StreamUnreadable is raised.
        """
        changes = []
        for stream, after in self.written.items():
            try:
                due = self.due[stream] = after.aggregate.due(after.state)
                if due and getattr(due, "tzinfo", None) is None:
                    raise ValueError(f"it gives {due}, which has no time zone; give a datetime that has one")
                before = self.read[stream]
                changed = due != (before.due if before.due_known else after.aggregate.due(before.state))
            except BaseException as error:
                cause = withheld(defect(error), decides_personal(after.aggregate))
                self.failed[stream] = _unreadable(stream, after.version, "due fails", cause)
                raise self.failed[stream] from cause
            if changed or stream in self.checked:
                changes.append(TimerChange(stream, after.version, due))
        for stream in self.checked - self.written.keys():
            entry = self.read[stream]
            changes.append(TimerChange(stream, entry.version, entry.aggregate.due(entry.state)))
        return changes


class Transaction:
    """One unit's view of the draft; changes the draft only in :meth:`keep`."""

    def __init__(self, draft: Draft, metadata: Metadata) -> None:
        self._draft = draft
        self._metadata = metadata
        self._read: dict[StreamId, Entry] = {}
        self._written: dict[StreamId, Entry] = {}
        self._events: list[NewEvent] = []
        self._statements: list[Statement] = []
        self._checked: set[StreamId] = set()

    def state(self, aggregate: Aggregate[State, Any], id: str) -> State:
        """The state of a stream, including this unit's own decisions."""
        state: State = self._entry(aggregate, known_stream((aggregate.name, id))).state
        return state

    def do(
        self,
        aggregate: Aggregate[State, Command],
        id: str,
        command: Command,
        metadata: Metadata | None = None,
    ) -> State:
        """Decides a command and returns the state after it.

        ``metadata`` goes on its events; by default the unit's. Raises the decider's TwinlogErrors, and StreamUnreadable
        if the stream cannot be read or the aggregate fails in any other way. The transaction then holds nothing of the
        command.
        """
        if not id or not isinstance(id, str):
            raise NoStreamId(aggregate=aggregate.name, id=repr(id), command=type(command).__name__)
        stream = known_stream((aggregate.name, id))
        entry, cause = self._entry(aggregate, stream), metadata or self._metadata
        state, version, events = entry.state, entry.version, []
        at_work, upcasting, owners = "decide", self._draft.upcasting, self._draft.owners
        given: Any = ()
        try:
            given = aggregate.decide(entry.state, command)
            for message in given:
                kind = type(message)
                if (kind not in aggregate.events) if aggregate.events else (kind in owners):
                    self._refuse_event(aggregate, message)
                type_, payload, routing_key = encoded(message)  # before anybody changes it
                at_work = "evolve"
                if upcasting is None:
                    state, version = aggregate.evolve(state, message), version + 1
                else:
                    state, version = aggregate.fold(upcasting.today(message), state), version + 1
                if state is None and aggregate.initial is not None:
                    raise TypeError(f"it gives None after {message.DESCRIPTOR.full_name}; return the state")
                at_work = "partition_key"
                key = aggregate.partition_key(state)
                if not isinstance(key, str):
                    raise TypeError(f"it gives {key!r}, which is no text")
                at_work = "decide"
                uuid = self._draft.ids.uuid7()
                events.append(NewEvent(stream, version, uuid, type_, payload, cause, key, routing_key))
            if aggregate.pristine is not None and aggregate.initial != aggregate.pristine:
                raise TypeError(
                    "it changes in place the initial state, which all streams share; give a changed copy"
                )
        except TwinlogError:
            raise
        except BaseException as error:  # a defect of the aggregate, or a state that it was not made for
            told: BaseException = (_told(given) if at_work == "decide" else None) or defect(error)
            told = withheld(told, decides_personal(aggregate, command, told))
            raise _unreadable(
                stream, entry.version, f"{at_work} fails on {type(command).__name__}", told
            ) from told
        if events:
            self._events += events
            self._written[stream] = Entry(aggregate, state, version, 0, entry.snapshot_version)
        decided: State = state
        return decided

    def execute(self, query: str, *arguments: Any) -> None:
        """Runs a SQL statement in the transaction of the events, after them.

        It is skipped if the unit decides no event, so a repeated command runs it once. It holds up every other append
        while it runs. If it fails, nothing of the unit is appended, and the caller gets INTERNAL. The log in memory
        only records it, in ``statements``.
        """
        self._statements.append(Statement(query, arguments))

    def check_timer(self, aggregate: AnyAggregate, id: str) -> None:
        """Makes the stored timer of a stream match its state: set, changed or cleared."""
        self._entry(aggregate, stream := known_stream((aggregate.name, id)))
        self._checked.add(stream)

    @property
    def decided(self) -> int:
        """How many events the unit has decided so far."""
        return len(self._events)

    def keep(self) -> None:
        """Adds the unit's decisions to the draft."""
        draft = self._draft
        for stream, entry in self._read.items():  # `keep_reads`
            draft.read.setdefault(stream, entry)
        draft.written.update(self._written)
        draft.events.extend(self._events)
        draft.checked |= self._checked
        if self._events:
            draft.statements += self._statements

    def keep_reads(self) -> None:
        """Adds what the unit read to the draft, so that the append checks it."""
        for stream, entry in self._read.items():
            self._draft.read.setdefault(stream, entry)

    def _refuse_event(self, aggregate: AnyAggregate, message: Message) -> None:
        """Raises TypeError, unless it is an event as an older version writes it, and still has to for its sake."""
        name = message.DESCRIPTOR.full_name
        if not aggregate.events:
            owner = self._draft.owners[type(message)]
            raise TypeError(
                f"{name} is among the `events` of aggregate {owner!r}; give this one an event of its own"
            )
        upcasting = self._draft.upcasting
        if not (upcasting and upcasting.replaces(type(message))):
            raise TypeError(f"{name} is not among its `events`")

    def _entry(self, aggregate: AnyAggregate, stream: StreamId) -> Entry:
        if self._draft.failed and stream in self._draft.failed:
            raise StreamUnreadable(**self._draft.failed[stream].facts)
        entry = self._written.get(stream) or self._draft.written.get(stream) or self._read.get(stream)
        if entry is not None:
            if stream not in self._read:
                self._read[stream] = entry
            return entry
        entry = self._draft.known.get(stream)
        if entry is None:
            raise NotLoaded(aggregate, stream)
        self._read[stream] = entry
        return entry


def _told(given: Any) -> TypeError | None:
    """What is wrong with what `decide` gave, where it is no events."""
    if isinstance(given, Message):
        return TypeError(f"it gives {shown(given)}; put it into a list")
    if not isinstance(given, Iterable):
        return TypeError(
            f"it gives {shown(given)}; give its events in a list, which is empty where there are none"
        )
    others = [each for each in given if not isinstance(each, Message)] if isinstance(given, Sequence) else []
    if others:
        return TypeError(f"among its events is {shown(others[0])}; give messages")
    return None


def _unreadable(stream: StreamId, version: int, what: str, error: BaseException) -> StreamUnreadable:
    why = f"{what} ({named(error)}); deploy a version that can bear it"
    return StreamUnreadable(stream=stream, version=version, why=why)
