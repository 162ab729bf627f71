"""The group commit: decides a batch of units and appends all their events in one transaction.

Lost races are decided again on newer states; after a few, other writers are locked out for one append.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CoroutineType
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from google.protobuf.message import Message

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log import say
from twinlog.log.keys import KeysUnavailable
from twinlog.log.lineage import Lineage
from twinlog.log.personal import Personal
from twinlog.log.ports import Appended, Batch, Conflict, Log, LogSession, NewReply, ReadRequest
from twinlog.log.stall import RefusedAppends
from twinlog.log.states import StateCache
from twinlog.log.texts import refuse_metadata
from twinlog.log.transaction import Draft, Entry, NotLoaded, Transaction
from twinlog.log.twin import EventTooLarge, LogForked
from twinlog.log.units import Unit, refuse_async, refuse_reply
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.clock import Clock, Ids
from twinlog.model.errors import (
    CheckpointMoved,
    RowsRefused,
    StreamUnreadable,
    TwinlogError,
    Unavailable,
    defect,
)
from twinlog.model.event import Recorded, StreamId, known_recorded

_OPTIMISTIC_ROUNDS = 3
_FAIL_FAST_AFTER_SECONDS = 5.0
_OF_A_UNIT = (KeysUnavailable, RowsRefused)
"""Of what is unavailable, that which concerns a unit and not the whole store."""


class _Decided(NamedTuple):
    """A unit with its result and the number of events of the batch up to and including its own."""

    unit: Unit
    result: Any
    reply: bytes
    """The result as it is stored; empty where it is not."""
    events: int


class _Refused(NamedTuple):
    """A unit with what it raised: an answer that is final once the states it read are known to be the newest."""

    unit: Unit
    error: Exception


class _Plan(NamedTuple):
    """A decided batch, ready to append."""

    draft: Draft
    decided: list[_Decided]
    refused: list[_Refused]
    batch: Batch


class GroupCommit:
    """Commits batches of units to one log, one batch after the other."""

    def __init__(
        self,
        log: Log,
        states: StateCache,
        *,
        clock: Clock,
        ids: Ids,
        on_commit: Callable[[Sequence[Recorded], UUID | None], None],
        lineage: Lineage | None,
        on_outage: Callable[[Unavailable], None],
        randomness: Randomness,
        personal: Personal | None,
        owners: Mapping[type[Message], str],
    ) -> None:
        """``personal`` seals what is decided. ``owners``: the aggregate that declares a type of events, by its name.

        ``on_commit`` gets the events of every batch right after its commit, and the id of the event before them.
        ``lineage``: what is known of the log's history; None: nothing, so that no fork is noticed. ``on_outage`` is
        called, again and again, while an append has found no answer for some seconds."""
        self._log = log
        self._states = states
        self._clock = clock
        self._ids = ids
        self._on_commit = on_commit
        self._lineage = lineage
        self._breaks = 0
        self._personal = personal
        self._owners = owners
        self._on_outage = on_outage
        self.down: Unavailable | None = None
        """Why an append has found no answer for some seconds; None while there are answers."""
        self._refused = RefusedAppends(log.name)
        telling = partial(
            Retrying,
            say_failing=say.warning("writer.store_unavailable", log=log.name),
            say_working=say.info("writer.store_available", log=log.name),
            randomness=randomness,
        )
        self._retrying = telling(on=(Unavailable,))
        self._told = telling()
        """Of batches that failed before their append: their callers try again, and not all of them do."""

    @property
    def problem(self) -> str | None:
        """Current fault of the store, or None while healthy."""
        return self._retrying.problem or self._refused.problem

    async def commit(self, units: list[Unit]) -> None:
        """Decides the units in order, appends their events and answers their callers. Raises Unavailable."""
        try:
            await self._know_history()
            self._states.begin()
            # Only once: a stream that turns out to exist, and is forgotten again, must not be assumed empty again.
            self._states.assume_empty([ref for unit in units for ref in unit.assume_empty])
            await self._commit_apart(units)
        except LogForked:  # which is told where it is found
            raise
        except Unavailable as error:
            self._told.failed(error)
            raise
        self._told.succeeded()

    async def _commit_apart(self, units: Sequence[Unit]) -> None:
        """Commits units together; where the store cannot take what one of them reads or decides, all but that one."""
        try:
            await self._commit_together([*units])
        except Exception as error:  # the store has undone all of it
            if isinstance(error, Unavailable) and not isinstance(error, _OF_A_UNIT):
                raise
            if len(units) == 1:
                if isinstance(error, RowsRefused):
                    self._refused.refused(error)
                elif not isinstance(error, TwinlogError):
                    structlog.get_logger().exception("writer.failed", log=self._log.name)
                    self._refused.refused(error)
                units[0].fail(error)
                return
            waiting = [unit for unit in units if not unit.done.done()]
            middle = len(waiting) // 2
            for part in (waiting[:middle], waiting[middle:]):
                await self._commit_apart(part)

    async def _commit_together(self, units: list[Unit]) -> None:
        rounds = 0
        touched: list[StreamId] = []
        while units:
            rounds += 1
            if rounds <= _OPTIMISTIC_ROUNDS:
                plan = await self._decide(self._log, units)
                result = await self._append(plan.batch)
            else:
                plan, result = await self._append_alone(units, touched)
            touched = list(plan.draft.read)
            if isinstance(result, Appended):
                self._settle(plan, result)
                for unit, error in plan.refused:
                    await self._refuse(unit, error)
                return
            if result.forked:
                assert self._lineage
                self._lineage.doubt()
                await self._know_history()
            await self._states.refresh(self._log, result.streams)
            units = [*_without_answered(plan.decided, result), *(unit for unit, _ in plan.refused)]

    async def _know_history(self) -> None:
        """Forgets every state that is of another history than the log's. Raises LogForked."""
        if self._lineage:
            await self._lineage.verify()
            if self._lineage.breaks != self._breaks:
                self._breaks = self._lineage.breaks
                self._states.clear()

    async def _append_alone(
        self, units: Sequence[Unit], touched: Sequence[StreamId]
    ) -> tuple[_Plan, Appended | Conflict]:
        plan = None
        try:
            async with self._log.exclusive() as session:
                await self._states.refresh(session, touched)
                plan = await self._decide(session, units)
                return plan, await session.append(plan.batch)
        except RowsRefused:
            raise
        except Unavailable as error:
            if plan is None:
                raise
            return plan, await self._resolve(plan.batch, error)

    async def _decide(self, session: LogSession, units: Sequence[Unit]) -> _Plan:
        await self._states.load(session, [ref for unit in units for ref in unit.preload])
        while True:
            draft = Draft(
                self._states.known, self._states.failed, self._ids, self._states.schema, self._owners
            )
            decided: list[_Decided] = []
            refused: list[_Refused] = []
            missing: dict[StreamId, AnyAggregate] = {}
            for unit in units:
                transaction = Transaction(draft, unit.metadata)
                try:
                    result = unit.work(transaction)
                    if isinstance(result, CoroutineType):
                        refuse_async(result)
                    if unit.request and not isinstance(result, unit.request.reply_type):
                        refuse_reply(result, unit.request.reply_type)
                    reply = result.SerializeToString(deterministic=True) if unit.request else b""
                except NotLoaded as needs:
                    missing[needs.stream] = needs.aggregate
                    continue
                except BaseException as error:  # a defect in one unit's work concerns no other unit
                    transaction.keep_reads()
                    refused.append(_Refused(unit, defect(error)))
                    continue
                transaction.keep()
                decided.append(_Decided(unit, result, reply, len(draft.events)))
            if missing:
                refs = [(aggregate, stream.id) for stream, aggregate in missing.items()]
                await self._states.load(session, refs)
                continue
            if self._personal and draft.events:
                draft.events = await self._personal.sealed(draft.events)
            try:
                return _Plan(draft, decided, refused, self._batch(draft, decided))
            except StreamUnreadable as error:  # decided once more, without the units that read that stream
                self._states.unreadable.tell(error)

    async def _refuse(self, unit: Unit, error: Exception) -> None:
        """Fails a unit, unless it is the retry of a request that already has its outcome."""
        if isinstance(error, StreamUnreadable):
            self._states.unreadable.tell(error)
        stored = await self._log.reply(unit.request.request_id) if unit.request else None
        if stored:
            unit.answer(stored)
        else:
            unit.fail(error)

    def _batch(self, draft: Draft, decided: Sequence[_Decided]) -> Batch:
        try:  # no call for each event
            "".join([text for event in draft.events for text in event.metadata[:4]])
            "".join([text for event in draft.events for text in event.metadata.extra.values()])
        except (TypeError, AttributeError):
            refuse_metadata(draft.events)
            raise
        if self._lineage and (most := self._lineage.most_bytes):
            # Once it is in the log, no event behind it could be copied.
            for event in [event for event in draft.events if len(event.payload) > most]:
                self._lineage.outgrown()
                raise EventTooLarge(stream=event.stream, bytes=len(event.payload), most=most)
        return Batch(
            recorded_at=self._clock.now(),
            expects={stream: entry.version for stream, entry in draft.read.items()},
            events=draft.events,
            replies=[
                NewReply(unit.request.request_id, unit.request.fingerprint, reply, events)
                for unit, _, reply, events in decided
                if unit.request
            ],
            advances=[each.unit.advance for each in decided if each.unit.advance],
            timers=draft.timers(),
            statements=draft.statements,
            tip=self._lineage.known if self._lineage else None,
        )

    async def _append(self, batch: Batch) -> Appended | Conflict:
        try:
            return await self._log.append(batch)
        except RowsRefused:
            raise
        except Unavailable as error:
            return await self._resolve(batch, error)

    async def _resolve(self, batch: Batch, error: Unavailable) -> Appended | Conflict:
        """Finds out what became of an append whose answer was lost: repeats it until there is an answer.

        If the first attempt was committed after all, the second meets its own events as a conflict.
        """
        since = asyncio.get_running_loop().time()

        async def repeated() -> Appended | Conflict | RowsRefused:
            try:
                if self._lineage:  # the answer may have been lost with the server that knew it
                    await self._lineage.verify()
                result = await self._log.append(batch)
                if isinstance(result, Conflict) and batch.events:
                    result = await self._recognize(batch) or result
            except RowsRefused as refused:  # an answer like another
                return refused
            except Unavailable as unavailable:
                if asyncio.get_running_loop().time() - since > _FAIL_FAST_AFTER_SECONDS:
                    # Whatever it is, it concerns all that is to be appended.
                    self.down = unavailable
                    self._on_outage(self.down)
                raise
            return result

        try:
            self._retrying.failed(error)
            await self._retrying.pause()
            result = await self._retrying(repeated)
        finally:
            self._retrying.reset()
            self.down = None
        if isinstance(result, RowsRefused):
            raise result
        return result

    async def _recognize(self, batch: Batch) -> Appended | None:
        first = batch.events[0]
        (history,) = await self._log.load([ReadRequest(first.stream, first.version - 1)])
        if history.events and history.events[0].event_id == first.event_id:
            return Appended(history.events[0].position)  # what lies before it is unknown
        return None

    def _settle(self, plan: _Plan, appended: Appended) -> None:
        name, recorded_at = self._log.name, plan.batch.recorded_at
        last: dict[StreamId, int] = {}
        events = []
        for position, event in enumerate(plan.draft.events, appended.first):
            last[event.stream] = position
            events.append(known_recorded((name, position, *event, recorded_at)))
        due = plan.draft.due
        committed = {
            stream: Entry(
                at.aggregate, at.state, at.version, last[stream], at.snapshot_version, due[stream], True
            )
            for stream, at in plan.draft.written.items()
        }
        self._states.keep(plan.draft.read, committed)
        if events:
            if self._lineage:
                self._lineage.committed(events[-1])
            self._refused.count = 0
            self._on_commit(events, appended.before)
        for unit, result, _, events_so_far in plan.decided:
            unit.settle(result, appended.first - 1 + events_so_far)


def _without_answered(decided: Sequence[_Decided], conflict: Conflict) -> list[Unit]:
    """Answers the retries and fails the zombies that the conflict names; returns the units still to be decided."""
    stored = {reply.request_id: reply for reply in conflict.replies}
    remaining = []
    for unit, *_ in decided:
        if unit.request and unit.request.request_id in stored:
            unit.answer(stored[unit.request.request_id])
        elif unit.advance and unit.advance.consumer in conflict.checkpoints:
            actual = conflict.checkpoints[unit.advance.consumer]
            unit.fail(
                CheckpointMoved(consumer=unit.advance.consumer, actual=actual, expected=unit.advance.after)
            )
        else:
            remaining.append(unit)
    return remaining
