"""The writer: the one load → fold → decide → append → retry loop, with group commit.

Units of work wait in a queue; one task takes whatever waits, decides the units one after the other on the
state so far, and appends all their events in one transaction. So one row lock and one commit serve hundreds
of commands. Lost races are re-decided; a writer that keeps losing shuts the others out for one append.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Self, TypeVar

import structlog
from google.protobuf.message import Message

from twinlog._aio.linger import Linger
from twinlog.log.ports import (
    Appended,
    Batch,
    CheckpointAdvance,
    Conflict,
    Log,
    LogSession,
    ReadRequest,
    StoredReply,
)
from twinlog.log.requests import Request
from twinlog.log.snapshots import Snapshots
from twinlog.log.transaction import Draft, Entry, NotLoaded, Transaction
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.clock import Clock, Ids
from twinlog.model.errors import CheckpointMoved, Overloaded, RequestIdReused, Unavailable
from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.model.schema import Schema

T = TypeVar("T")
StreamRef = tuple[AnyAggregate, str]

_BATCH_UNITS = 256
_OPTIMISTIC_ROUNDS = 3
_RETRY_FIRST, _RETRY_MOST = 0.05, 2.0
_FAIL_FAST_AFTER = 5.0


class Outcome(NamedTuple, Generic[T]):
    """What a unit of work came to."""

    result: T
    position: int
    """The position of the log at which its effects are visible."""


@dataclass(eq=False)
class _Unit:
    """One unit of work on its way through the queue."""

    work: Callable[[Transaction], Any]
    metadata: Metadata
    request: Request | None
    advance: CheckpointAdvance | None
    preload: Sequence[StreamRef]
    assume_empty: Sequence[StreamRef]
    done: asyncio.Future[Outcome[Any]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, result: Any, position: int) -> None:
        if not self.done.done():
            self.done.set_result(Outcome(result, position))

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def answer(self, stored: StoredReply) -> None:
        """Answers a retry with the stored outcome."""
        assert self.request is not None
        if stored.fingerprint != self.request.fingerprint:
            self.fail(RequestIdReused(request_id=stored.request_id))
        else:
            self.settle(self.request.reply_type.FromString(stored.reply), stored.offset)


class _Decided(NamedTuple):
    """A unit with its result and the number of events up to and with its own."""

    unit: _Unit
    result: Any
    offset: int


class _Refused(NamedTuple):
    """A unit with what it raised: an answer that counts once what it read is known to be the newest."""

    unit: _Unit
    error: Exception


class _Plan(NamedTuple):
    """What a batch came to, ready to append."""

    draft: Draft
    decided: list[_Decided]
    refused: list[_Refused]
    batch: Batch


class Writer:
    """Decides and appends for one log in this process. Use as an async context manager: it owns its tasks."""

    def __init__(
        self,
        log: Log,
        *,
        clock: Clock,
        ids: Ids,
        on_commit: Callable[[Sequence[Recorded]], None] = lambda _events: None,
        schema: Schema | None = None,
        cached_streams: int = 20_000,
        max_waiting: int = 10_000,
    ) -> None:
        """``on_commit`` gets every batch of events right after its commit, in order (the relay's offer).

        ``cached_streams``: how many states are kept in memory. ``max_waiting``: units that may wait; one more
        is refused as Overloaded.
        """
        self._log = log
        self._clock = clock
        self._ids = ids
        self._on_commit = on_commit
        self._schema = schema or Schema()
        self._cached_streams = cached_streams
        self._max_waiting = max_waiting
        self._known: OrderedDict[StreamId, Entry] = OrderedDict()
        self._queue: deque[_Unit] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._down = False
        self.linger = Linger()
        """How it rests between batches."""
        self._snapshots = Snapshots(log)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._snapshots.run())]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for unit in self._queue:
            unit.fail(Unavailable("the server is stopping; try again with the same request_id"))
        self._queue.clear()

    async def drain(self) -> None:
        """Returns when nothing waits and nothing is being appended."""
        await self._idle.wait()

    async def execute(
        self,
        work: Callable[[Transaction], T],
        *,
        metadata: Metadata = Metadata(),
        request: Request | None = None,
        advance: CheckpointAdvance | None = None,
        preload: Sequence[StreamRef] = (),
        assume_empty: Sequence[StreamRef] = (),
    ) -> Outcome[T]:
        """Runs a unit of work and commits what it decides, together with the move of a checkpoint.

        ``work`` is synchronous and pure: it may be run again. With a ``request`` it returns a message of the
        request's reply type, which is stored with the events; a retry gets the stored one. ``preload`` names
        streams that it will read, so that they are loaded at once; ``assume_empty`` those that should not exist yet.

        The caller may be cancelled at any time: what was begun is committed all the same.

        Raises what ``work`` raises (nothing of it is appended), RequestIdReused, CheckpointMoved, Overloaded,
        or Unavailable.
        """
        if self._down:
            raise Unavailable
        if len(self._queue) >= self._max_waiting:
            raise Overloaded(waiting=len(self._queue))
        unit = _Unit(work, metadata, request, advance, preload, assume_empty)
        self._queue.append(unit)
        self._idle.clear()
        self._wake.set()
        return await unit.done

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            units, began = self._take(), loop.time()
            try:
                await self._commit(units)
            except Unavailable as error:
                _fail(units, error)
            except Exception as error:  # a defect must reach the callers, and must not end the writer
                structlog.get_logger().exception("writer.failed", log=self._log.name)
                _fail(units, error)
            self._trim()
            await self.linger.wait(began, len(self._queue), _BATCH_UNITS)

    def _take(self) -> list[_Unit]:
        """Whatever waits, up to a batch; a request id at most once, since its row is inserted once."""
        units: list[_Unit] = []
        requests: set[str] = set()
        while self._queue and len(units) < _BATCH_UNITS:
            unit = self._queue[0]
            if unit.request and unit.request.request_id in requests:
                break
            self._queue.popleft()
            if unit.done.done():
                continue
            if unit.request:
                requests.add(unit.request.request_id)
            units.append(unit)
        return units

    async def _commit(self, units: list[_Unit]) -> None:
        # Once: what turns out to be there already, and is forgotten again, must not be assumed a second time.
        self._assume_new(units)
        rounds = 0
        touched: list[StreamId] = []
        while units:
            rounds += 1
            if rounds <= _OPTIMISTIC_ROUNDS:
                plan, result = await self._append_openly(units)
            else:
                plan, result = await self._append_alone(units, touched)
            touched = list(plan.draft.read)
            if isinstance(result, Appended):
                self._settle(plan, result)
                for unit, error in plan.refused:
                    await self._refuse(unit, error)
                return
            await self._refresh(self._log, result.streams)
            units = [*_without_answered(plan.decided, result), *(unit for unit, _ in plan.refused)]

    async def _append_openly(self, units: Sequence[_Unit]) -> tuple[_Plan, Appended | Conflict]:
        plan = await self._decide(self._log, units)
        return plan, await self._append(self._log, plan.batch)

    async def _append_alone(
        self, units: Sequence[_Unit], touched: Sequence[StreamId]
    ) -> tuple[_Plan, Appended | Conflict]:
        plan = None
        try:
            async with self._log.exclusive() as session:
                await self._refresh(session, touched)
                plan = await self._decide(session, units)
                return plan, await session.append(plan.batch)
        except Unavailable:
            if plan is None:
                raise
            return plan, await self._resolve(plan.batch)

    async def _decide(self, session: LogSession, units: Sequence[_Unit]) -> _Plan:
        await self._load(session, [ref for unit in units for ref in unit.preload])
        while True:
            draft = Draft(self._known, self._ids)
            decided: list[_Decided] = []
            refused: list[_Refused] = []
            missing: dict[StreamId, AnyAggregate] = {}
            for unit in units:
                transaction = Transaction(draft, unit.metadata)
                try:
                    result = unit.work(transaction)
                except NotLoaded as needs:
                    missing[needs.stream] = needs.aggregate
                    continue
                except Exception as error:  # a defect in one unit's work is no other unit's
                    transaction.keep_reads()
                    refused.append(_Refused(unit, error))
                    continue
                transaction.keep()
                decided.append(_Decided(unit, result, len(draft.events)))
            if not missing:
                return _Plan(draft, decided, refused, self._batch(draft, decided))
            await self._load(session, [(aggregate, stream.id) for stream, aggregate in missing.items()])

    async def _refuse(self, unit: _Unit, error: Exception) -> None:
        """Fails a unit, unless it is the retry of a request that has its outcome already."""
        stored = await self._log.reply(unit.request.request_id) if unit.request else None
        if stored:
            unit.answer(stored)
        else:
            unit.fail(error)

    def _batch(self, draft: Draft, decided: Sequence[_Decided]) -> Batch:
        return Batch(
            recorded_at=self._clock.now(),
            expects={stream: entry.version for stream, entry in draft.read.items()},
            events=draft.events,
            replies=[
                StoredReply(unit.request.request_id, unit.request.fingerprint, _serialised(result), offset)
                for unit, result, offset in decided
                if unit.request
            ],
            advances=[unit.advance for unit, _, _ in decided if unit.advance],
            timers=draft.timers(),
        )

    async def _append(self, session: LogSession, batch: Batch) -> Appended | Conflict:
        try:
            return await session.append(batch)
        except Unavailable:
            return await self._resolve(batch)

    async def _resolve(self, batch: Batch) -> Appended | Conflict:
        """Finds out what became of an append whose reply was lost: tries it again until there is an answer.

        Where the first try was committed after all, the second meets its own events as a conflict.
        """
        log = structlog.get_logger()
        log.warning("writer.store_unavailable", log=self._log.name)
        delay, since = _RETRY_FIRST, asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(delay)
            try:
                result = await self._log.append(batch)
                if isinstance(result, Conflict) and batch.events:
                    result = await self._recognise(batch) or result
                break
            except Unavailable:
                delay = min(delay * 2, _RETRY_MOST)
            if asyncio.get_running_loop().time() - since > _FAIL_FAST_AFTER:
                self._down = True
                _fail(self._queue, Unavailable())
                self._queue.clear()
        self._down = False
        log.info("writer.store_available", log=self._log.name)
        return result

    async def _recognise(self, batch: Batch) -> Appended | None:
        first = batch.events[0]
        (history,) = await self._log.load([ReadRequest(first.stream, first.version - 1)])
        if history.events and history.events[0].event_id == first.event_id:
            return Appended(history.events[0].position)
        return None

    def _settle(self, plan: _Plan, appended: Appended) -> None:
        name, recorded_at = self._log.name, plan.batch.recorded_at
        last: dict[StreamId, int] = {}
        events = []
        for position, event in enumerate(plan.draft.events, appended.first):
            last[event.stream] = position
            events.append(Recorded(name, position, *event, recorded_at))
        for stream, entry in plan.draft.written.items():
            committed = entry._replace(position=last[stream])
            self._known[stream] = self._snapshots.offer(stream, committed)
        for stream in plan.draft.read:
            self._known.move_to_end(stream)
        if events:
            self._on_commit(events)
        for unit, result, offset in plan.decided:
            unit.settle(result, appended.first - 1 + offset)

    def _assume_new(self, units: Sequence[_Unit]) -> None:
        for unit in units:
            for aggregate, id in unit.assume_empty:
                self._known.setdefault(
                    StreamId(aggregate.name, id), Entry(aggregate, aggregate.initial, 0, 0, 0)
                )

    async def _load(self, session: LogSession, refs: Sequence[StreamRef]) -> None:
        missing = {StreamId(aggregate.name, id): aggregate for aggregate, id in refs}
        missing = {stream: aggregate for stream, aggregate in missing.items() if stream not in self._known}
        await self._read(session, {s: Entry(a, a.initial, 0, 0, 0) for s, a in missing.items()})

    async def _refresh(self, session: LogSession, streams: Sequence[StreamId]) -> None:
        """Brings streams up to date; one that has not moved on is forgotten.

        It was read only, or the log was set back to before what is known of it.
        """
        known = {stream: self._known[stream] for stream in streams if stream in self._known}
        await self._read(session, known)
        for stream, entry in known.items():
            if self._known[stream].version == entry.version:
                del self._known[stream]

    async def _read(self, session: LogSession, from_entries: Mapping[StreamId, Entry]) -> None:
        """Brings streams up to date from what is known of them; from a snapshot where nothing is known."""
        if not from_entries:
            return
        wanted = [
            ReadRequest(
                stream, entry.version, "" if entry.version else self._snapshots.codec(entry.aggregate).schema
            )
            for stream, entry in from_entries.items()
        ]
        histories = await session.load(wanted)
        for (stream, entry), (snapshot, events) in zip(from_entries.items(), histories, strict=True):
            if snapshot:
                state = self._snapshots.restore(entry.aggregate, snapshot)
                entry = Entry(entry.aggregate, state, snapshot.version, snapshot.position, snapshot.version)
            for event in events:
                state = entry.aggregate.fold(self._schema.decode(event), entry.state)
                entry = entry._replace(state=state, version=event.version, position=event.position)
            self._known[stream] = entry

    def _trim(self) -> None:
        while len(self._known) > self._cached_streams:
            self._known.popitem(last=False)


def _serialised(reply: Message) -> bytes:
    return reply.SerializeToString(deterministic=True)


def _fail(units: Sequence[_Unit] | deque[_Unit], error: BaseException) -> None:
    for unit in units:
        unit.fail(error)


def _without_answered(decided: Sequence[_Decided], conflict: Conflict) -> list[_Unit]:
    """Answers the retries and fails the zombies that the conflict names; gives the units still to be decided."""
    stored = {reply.request_id: reply for reply in conflict.replies}
    remaining = []
    for unit, _, _ in decided:
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
