"""The writer: the one load → fold → decide → append → retry loop, with group commit.

Units of work wait in a queue; one task takes whatever is waiting, decides the units in order, each on the states that
the one before it left, and appends all their events in one transaction. So one row lock and one commit serve
hundreds of commands. States are kept in a :class:`~twinlog.log.states.StateCache`; batches are committed by a
:class:`~twinlog.log.group_commit.GroupCommit`.

What policies, timers and sagas do finishes what was accepted before, so it goes first, and is never refused. Commands
from outside are refused early: while their queue would take too long, or while too much that they began is
unfinished (:class:`~twinlog.log.unfinished.UnfinishedWork`).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar
from uuid import UUID

import structlog
from google.protobuf.message import Message

from twinlog._aio.linger import Linger
from twinlog._aio.retrying import Randomness
from twinlog._aio.standing import seconds_since
from twinlog.log.group_commit import GroupCommit
from twinlog.log.kept_snapshots import Keeper
from twinlog.log.lineage import Lineage
from twinlog.log.personal import Personal
from twinlog.log.ports import CheckpointAdvance, Log
from twinlog.log.snapshots import Snapshots
from twinlog.log.stall import Stall
from twinlog.log.states import StateCache
from twinlog.log.transaction import Transaction
from twinlog.log.unfinished import UnfinishedWork
from twinlog.log.units import Outcome, Request, StreamRef, Unit, fail_all, refusing_events
from twinlog.log.unreadable import UnreadableStreams
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.clock import Clock, Ids
from twinlog.model.errors import Overloaded, Unavailable
from twinlog.model.event import Metadata, Recorded
from twinlog.model.schema import Schema

T = TypeVar("T")

_BATCH_UNITS = 256
_QUEUE_SECONDS = 0.25
"""Commands that would wait longer before they are begun are refused. What fits into the next batch never is."""
_SMOOTHING = 0.25
_STOPPING = "the server is stopping; try again with the same request_id"


class Writer:
    """Decides and appends for one log in this process. Use as an async context manager: it owns its tasks."""

    def __init__(
        self,
        log: Log,
        *,
        schema: Schema,
        clock: Clock,
        ids: Ids,
        on_commit: Callable[[Sequence[Recorded], UUID | None], None] = lambda _events, _before: None,
        lineage: Lineage | None = None,
        cached_streams: int = 20_000,
        max_waiting: int = 10_000,
        randomness: Randomness = random,
        personal: Personal | None = None,
        owners: Mapping[type[Message], str] = {},
        declared: Mapping[str, AnyAggregate] | None = None,
    ) -> None:
        """``schema`` decodes the log's events. ``on_commit`` gets every batch of them right after its commit, in order,
        with the id of the event before (the relay's offer). ``lineage`` notices a log that lost its last events, and
        refuses to append to it. ``personal`` seals and opens personal fields; None: they stay in plain text.

        ``cached_streams``: the most states kept in memory. ``max_waiting``: the most commands from outside that may
        wait; one more is refused as Overloaded. ``owners``: by event type, the name of the aggregate that declares it;
        no other may decide it. ``declared``: the aggregates, by name; a unit that reads another one is reported. None:
        any will do.
        """
        self.schema = schema
        self._log = log
        self._max_waiting = max_waiting
        self._inside: deque[Unit] = deque()
        self._outside: deque[Unit] = deque()
        self._began: float | None = None
        """When the batch that is being committed was taken, by the loop's time."""
        self._committing = 0  # units of that batch
        self._batch_seconds = 0.0  # what a batch takes, smoothed
        self.unfinished = UnfinishedWork(log, clock)
        """What commands from outside began and nothing has ended yet."""
        self._on_commit = on_commit
        self._stall = Stall(log)
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.linger = Linger()
        """How it pauses between batches."""
        self.personal = personal
        self._snapshots = Snapshots(log, events=schema, randomness=randomness, personal=personal)
        self._keeper = Keeper(log, schema, self._snapshots, randomness=randomness)
        self._states = StateCache(self._snapshots, schema, cached_streams, self._keeper, declared)
        self.batches: Counter[int] = Counter()
        """How many batches had how many units, since the process started."""
        self._group_commit = GroupCommit(
            log,
            self._states,
            clock=clock,
            ids=ids,
            on_commit=self._committed,
            lineage=lineage,
            on_outage=self._fail_waiting,
            randomness=randomness,
            personal=personal,
            owners=owners,
        )

    @property
    def problem(self) -> str | None:
        """Current fault of the store, or None while healthy. An append that takes more than 2 s is one."""
        return self._group_commit.problem or self._stall.problem

    def dumped(self) -> Mapping[str, Any]:
        """What a dump of the process says of it: counts of units, and seconds."""
        return {
            "log": self._log.name,
            "waiting_inside": len(self._inside),
            "waiting_outside": len(self._outside),
            "appending": self._committing,
            "appending_seconds": seconds_since(self._began),
            "unfinished": len(self.unfinished),
            "window": self.unfinished.window,
            "snapshots_waiting": self._snapshots.waiting + self._keeper.waiting,
            "problem": self.problem,
        }

    @property
    def waiting(self) -> tuple[int, int]:
        """How many units wait: those of policies, timers and sagas, and commands from outside."""
        return len(self._inside), len(self._outside)

    @property
    def append_seconds(self) -> float:
        """For how many seconds the current commit has been running; 0 if there is none."""
        return self._stall.seconds

    @property
    def cached(self) -> int:
        """How many streams' states are in memory."""
        return len(self._states.known)

    @property
    def snapshots_ignored(self) -> int:
        """How many snapshots were of no use."""
        return self._snapshots.ignored

    @property
    def unreadable(self) -> UnreadableStreams:
        """The streams that cannot be read."""
        return self._states.unreadable

    async def read(self, streams: Sequence[StreamRef]) -> None:
        """Reads streams, which tells whether they can be read. Raises Unavailable or Overloaded."""
        await self.execute(lambda _transaction: None, preload=streams)

    async def __aenter__(self) -> Self:
        work = (self._run(), self._snapshots.run(), self._keeper.run(), self.unfinished.watch())
        self._tasks = [asyncio.create_task(each) for each in work]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stall.ended()
        self._fail_waiting(Unavailable(_STOPPING))

    async def drain(self) -> None:
        """Returns when no unit is waiting or being committed."""
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
        outside: bool = False,
        begins: StreamRef | None = None,
    ) -> Outcome[T]:
        """Runs a unit of work and commits what it decides, together with the advance of a checkpoint.

        ``work`` is synchronous and pure: it may run more than once. With a ``request`` it returns a message of the
        request's reply type, which is stored with the events; a retry gets the stored one. ``preload`` names streams
        that it will read, so that they are loaded together; ``assume_empty`` those that should not exist yet.

        ``outside``: the command may be refused under overload, as a client's may; all other work goes first.
        ``begins``, for a command from outside: the stream whose timer it sets, and which later commands clear if all
        goes well. While too many such streams are unfinished, a command that begins one is refused.

        The caller may be cancelled at any time; work that has begun is committed all the same.

        Raises what ``work`` raises (nothing of it is appended), RequestIdReused, CheckpointMoved, Overloaded,
        or Unavailable.
        """
        if down := self._group_commit.down:
            raise down.with_traceback(None)
        begun = None
        if outside:
            self._admit()
            begun = self.unfinished.begin(begins) if begins else None
        if request is None and advance is None:
            work = refusing_events(work)
        done = asyncio.get_running_loop().create_future()
        unit = Unit(work, metadata, request, advance, preload, assume_empty, done)
        (self._outside if outside else self._inside).append(unit)
        self._idle.clear()
        self._wake.set()
        if begun is None:
            return await unit.done
        try:
            outcome: Outcome[T] = await unit.done
        except Exception:
            self.unfinished.never_began(begun)
            raise
        self.unfinished.never_began(begun)  # unless it is committed: the request was an old one
        return outcome

    def _admit(self) -> None:
        """Raises Overloaded where a command from outside would wait too long before it is begun."""
        waiting = len(self._outside)
        if waiting < min(_BATCH_UNITS, self._max_waiting):
            return
        batch = self._batch_seconds
        if self._began is not None:
            batch = max(batch, asyncio.get_running_loop().time() - self._began)
        if waiting >= self._max_waiting or (1 + waiting // _BATCH_UNITS) * batch > _QUEUE_SECONDS:
            raise Overloaded(waiting=waiting)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._inside and not self._outside:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            units, began = self._take(), loop.time()
            self._began, self._committing = began, len(units)
            self.batches[len(units)] += 1
            self._stall.began()
            try:
                await self._group_commit.commit(units)
            except asyncio.CancelledError:  # the server stops; whether they are committed is not known
                fail_all(units, Unavailable(_STOPPING))
                raise
            except Unavailable as error:
                fail_all(units, error)
            except Exception as error:  # a defect must reach the callers, and must not end the writer
                structlog.get_logger().exception("writer.failed", log=self._log.name)
                fail_all(units, error)
            self._stall.ended()
            self._states.evict()
            self._began, self._committing = None, 0
            await self.linger.wait(began, len(self._inside) + len(self._outside), _BATCH_UNITS)
            self._batch_seconds += _SMOOTHING * (loop.time() - began - self._batch_seconds)

    def _take(self) -> list[Unit]:
        """Whatever is waiting, up to a batch, the outside last; each request id at most once, because its row is
        inserted once."""
        units: list[Unit] = []
        requests: set[str] = set()
        for queue in (self._inside, self._outside):
            while queue and len(units) < _BATCH_UNITS:
                unit = queue[0]
                if unit.request and unit.request.request_id in requests:
                    break
                queue.popleft()
                if unit.done.done():
                    continue
                if unit.request:
                    requests.add(unit.request.request_id)
                units.append(unit)
        return units

    def _committed(self, events: Sequence[Recorded], before: UUID | None) -> None:
        if self.unfinished:
            self.unfinished.committed(events, self._states.known)
        self._on_commit(events, before)

    def _fail_waiting(self, error: Unavailable) -> None:
        for queue in (self._inside, self._outside):
            fail_all(queue, error)
            queue.clear()
