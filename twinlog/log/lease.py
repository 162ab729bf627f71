"""Leases: one replica at a time does a piece of work. They save effort; correctness never depends on them.

One that adapters share is a row that expires: what counts as held, who works, and what is said of waiting in vain.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol, runtime_checkable

import structlog

from twinlog._aio.retrying import Randomness, Retrying, backoff
from twinlog._aio.tasks import to_its_end
from twinlog.log import say
from twinlog.model.errors import Unavailable

SECONDS = 5.0
"""How long a lease lasts without renewal."""
_STOP_SECONDS = 0.5
HELD_UP = "somebody may hold a lock (pg_stat_activity tells who)"
"""What is told of a store that is silent."""


class Lease(Protocol):
    """The right to do one piece of work, until it expires."""

    @property
    def problem(self) -> str | None:
        """Why nobody may be doing the work, or None while healthy."""

    async def hold(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs ``work`` whenever this replica holds the lease, endlessly; cancels it when the lease is lost."""


@runtime_checkable
class ToldLease(Protocol):
    """A lease that knows who has it."""

    @property
    def holder(self) -> str:
        """Who has it, as last heard; empty: not known."""

    @property
    def mine(self) -> bool:
        """Whether this replica has it, as last heard."""


class AlwaysHeld:
    """The lease of work that needs none: a single replica, or work that replicas may safely do at once."""

    problem: str | None = None

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        await work()


ALWAYS_HELD: Lease = AlwaysHeld()


def is_here(lease: Lease) -> bool:
    """Whether this replica does the work, as far as is known."""
    return lease.mine if isinstance(lease, ToldLease) else True


def holder_of(lease: Lease) -> str:
    """Who does the work; empty where that is not known."""
    return lease.holder if isinstance(lease, ToldLease) else ""


class LeaseRow(NamedTuple):
    """A lease as it is stored."""

    holder: str
    expires_at: datetime
    """By the clock of the store, which may have been another one when it was written."""

    def reaches_too_far(self, now: datetime, seconds: float) -> bool:
        """Whether it ends later than any lease of this length can: a clock that was ahead granted it, so it is void."""
        return self.expires_at > now + timedelta(seconds=seconds)

    def may_be_taken(self, holder: str, now: datetime, seconds: float) -> bool:
        """Whether somebody may have it who asks for so many seconds."""
        return self.holder == holder or self.expires_at < now or self.reaches_too_far(now, seconds)


class Answer(NamedTuple):
    """What a store says to somebody who asks for a lease."""

    mine: bool
    """Whether the caller has it now."""
    row: LeaseRow | None
    """None: it has changed meanwhile."""


class ExpiringLease(ABC):
    """A lease as a row that expires, by the store's clock.

    All replicas, of whatever version, ask for the same length: a row that reaches further is void.
    """

    def __init__(
        self,
        name: str,
        holder: str,
        *,
        seconds: float = SECONDS,
        randomness: Randomness = random,
        asking: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        """``holder`` names this replica; the lease expires after ``seconds`` without renewal. ``asking``: goes around
        each question to the store; leases may share it."""
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._randomness = randomness
        self._turn = asyncio.Lock()
        self._asking = asking or nullcontext()
        self._retrying = Retrying(
            say_failing=say.warning("lease.unconfirmed", lease=name),
            say_working=say.info("lease.confirmed", lease=name),
        )
        self._waiting = _Waiting(name, seconds)
        self._may_be_mine = False  # also while that is asked, and where no answer came
        self.holder = ""
        """Who has it, as last heard; empty: not known."""

    @abstractmethod
    async def take_row(self, name: str, holder: str, seconds: float) -> Answer:
        """Takes or renews it, where :meth:`LeaseRow.may_be_taken` says so. Raises what the store refuses with."""

    @abstractmethod
    async def give_up_row(self, name: str, holder: str) -> None:
        """Lets another replica have it at once. Raises what the store refuses with."""

    @property
    def mine(self) -> bool:
        return self.holder == self._holder

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        return self._retrying.problem or self._waiting.problem

    async def hold(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        waits = backoff(self._seconds / 5, self._seconds / 5, self._randomness)
        try:
            while True:
                if not await self._take():
                    await asyncio.sleep(next(waits))
                    continue
                async with asyncio.TaskGroup() as group:
                    running = group.create_task(work())
                    group.create_task(self._renew_while(running))
        except (Exception, asyncio.CancelledError):
            if self._may_be_mine:
                # A server that does not answer is not waited for: the lease expires by itself.
                with suppress(Exception, asyncio.CancelledError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await to_its_end(self._give_up())
            raise

    async def _renew_while(self, running: asyncio.Task[None]) -> None:
        while not running.done():
            await asyncio.wait([running], timeout=self._seconds / 3)
            if not running.done() and not await self._take():
                structlog.get_logger().info("lease.lost", lease=self._name)
                running.cancel()
                return

    async def _take(self) -> bool:
        """Whether the lease is held now; while the database is away, or the table is locked, nobody else can take it
        either.

        Neither while it refuses, as by a constraint that somebody added; if others can, the work is fenced.
        """
        self._may_be_mine = True
        silent = f"lease {self._name}: no answer for {self._seconds:g} s; {HELD_UP}"
        try:
            with self._retrying.told_after(self._seconds, Unavailable(silent)):
                mine, row = await to_its_end(self._renewed())
        except Exception as error:
            self._retrying.failed(error)
            return True
        self._retrying.succeeded()
        self.holder = row.holder if row else ""
        if mine:
            self._waiting = _Waiting(self._name, self._seconds)
            return True
        self._may_be_mine = False
        self._waiting.seen(row)
        return False

    # Otherwise a renewal in flight could take back a lease that is being given up.
    async def _renewed(self) -> Answer:
        async with self._turn, self._asking:
            return await self.take_row(self._name, self._holder, self._seconds)

    async def _give_up(self) -> None:
        async with self._turn, self._asking:
            await self.give_up_row(self._name, self._holder)


class _Waiting:
    """How long somebody else has had the lease. To stand by is normal; a lease that is neither renewed nor expires is
    not, since its work stands still."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        self._began: float | None = None
        self._row: LeaseRow | None = None
        self._row_since = 0.0
        self._said = False
        self.problem: str | None = None

    def seen(self, row: LeaseRow | None) -> None:
        """Notes the lease as it is stored."""
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = self._row_since = now
        if row != self._row:
            self._row, self._row_since, self.problem = row, now, None
        log, holder = structlog.get_logger(), row.holder if row else "somebody"
        if now - self._began > self._seconds and not self._said:
            self._said = True
            log.info("lease.waiting", lease=self._name, holder=holder)
        if now - self._row_since > self._seconds and not self.problem:
            self.problem = (
                f"lease {self._name}: {holder} has not renewed it for {self._seconds:g} s, and it does not expire; "
                f"free it: DELETE FROM leases WHERE name = '{self._name}'"
            )
            log.warning("lease.not_renewed", lease=self._name, holder=holder, problem=self.problem)
