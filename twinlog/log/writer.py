"""The writer: the one load → fold → decide → append → retry loop, with group commit.

Units of work wait in a queue; one task takes whatever is waiting, decides the units in order, each on the states that
the one before it left, and appends all their events in one transaction. So one row lock and one commit serve
hundreds of commands. States are kept in a :class:`~twinlog.log.states.StateCache`; batches are committed by a
:class:`~twinlog.log.group_commit.GroupCommit`.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self, TypeVar
from uuid import UUID

import structlog

from twinlog._aio.linger import Linger
from twinlog._aio.retrying import Randomness
from twinlog.log.group_commit import GroupCommit
from twinlog.log.lineage import Lineage
from twinlog.log.ports import CheckpointAdvance, Log
from twinlog.log.requests import Request
from twinlog.log.snapshots import Snapshots
from twinlog.log.states import StateCache
from twinlog.log.transaction import Transaction
from twinlog.log.units import Outcome, StreamRef, Unit, fail_all
from twinlog.model.clock import Clock, Ids
from twinlog.model.errors import Overloaded, Unavailable
from twinlog.model.event import Metadata, Recorded
from twinlog.model.schema import Schema

T = TypeVar("T")

_BATCH_UNITS = 256


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
    ) -> None:
        """``schema`` decodes the log's events. ``on_commit`` gets every batch of events right after its commit, in
        order, and the id of the event before them (the relay's offer). ``lineage`` tells a log that lost its last
        events, and refuses to append to it.

        ``cached_streams``: how many states are kept in memory. ``max_waiting``: how many units may wait; one more is
        refused as Overloaded.
        """
        self._log = log
        self._max_waiting = max_waiting
        self._queue: deque[Unit] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.linger = Linger()
        """How it pauses between batches."""
        self._snapshots = Snapshots(log)
        self._states = StateCache(self._snapshots, schema, cached_streams)
        self._group_commit = GroupCommit(
            log,
            self._states,
            clock=clock,
            ids=ids,
            on_commit=on_commit,
            lineage=lineage,
            on_outage=self._fail_waiting,
            randomness=randomness,
        )

    @property
    def problem(self) -> str | None:
        """Current fault of the store, or None while healthy."""
        return self._group_commit.problem

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._snapshots.run())]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        fail_all(self._queue, Unavailable("the server is stopping; try again with the same request_id"))
        self._queue.clear()

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
    ) -> Outcome[T]:
        """Runs a unit of work and commits what it decides, together with the advance of a checkpoint.

        ``work`` is synchronous and pure: it may run more than once. With a ``request`` it returns a message of the
        request's reply type, which is stored with the events; a retry gets the stored one. ``preload`` names streams
        that it will read, so that they are loaded together; ``assume_empty`` those that should not exist yet.

        The caller may be cancelled at any time: work that was begun is committed all the same.

        Raises what ``work`` raises (nothing of it is appended), RequestIdReused, CheckpointMoved, Overloaded,
        or Unavailable.
        """
        if self._group_commit.down:
            raise Unavailable
        if len(self._queue) >= self._max_waiting:
            raise Overloaded(waiting=len(self._queue))
        unit = Unit(work, metadata, request, advance, preload, assume_empty)
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
                await self._group_commit.commit(units)
            except Unavailable as error:
                fail_all(units, error)
            except Exception as error:  # a defect must reach the callers, and must not end the writer
                structlog.get_logger().exception("writer.failed", log=self._log.name)
                fail_all(units, error)
            self._states.evict()
            await self.linger.wait(began, len(self._queue), _BATCH_UNITS)

    def _take(self) -> list[Unit]:
        """Whatever is waiting, up to a batch; each request id at most once, because its row is inserted once."""
        units: list[Unit] = []
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

    def _fail_waiting(self) -> None:
        fail_all(self._queue, Unavailable())
        self._queue.clear()
