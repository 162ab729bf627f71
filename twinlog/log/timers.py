"""Timers: wake the streams whose time has come.

The log keeps one timer row per stream, set and cleared in the transaction of the events that change it, so timers
outlive the process. A late or repeated wake-up does nothing: the decider checks its state.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime

import structlog

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log.lease import ALWAYS_HELD, Lease
from twinlog.log.ports import Log, Timer
from twinlog.log.transaction import Transaction
from twinlog.log.writer import Writer
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.clock import Clock
from twinlog.model.errors import Unavailable
from twinlog.model.event import Metadata

_BATCH = 200


class Timers:
    """Fires the due timers of one log, for the aggregates it is given."""

    def __init__(
        self,
        log: Log,
        writer: Writer,
        aggregates: Sequence[AnyAggregate],
        *,
        clock: Clock,
        lease: Lease = ALWAYS_HELD,
        actor: str,
        interval: float = 0.5,
        randomness: Randomness = random,
    ) -> None:
        """``interval``: seconds between two checks, so the most by which a wake-up is late while the store works."""
        self._log = log
        self._writer = writer
        self._aggregates = {aggregate.name: aggregate for aggregate in aggregates}
        self._clock = clock
        self._lease = lease
        self._actor = actor
        self._interval = interval
        self._retrying = Retrying(
            say_failing=self._say_stopped,
            say_working=self._say_firing,
            on=(Unavailable,),
            first_seconds=interval,
            randomness=randomness,
        )

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        return self._retrying.problem

    async def run(self) -> None:
        """Fires endlessly, while the lease is held; an outage of the store delays wake-ups and loses none."""
        await self._lease.hold(self._run_while_held)

    async def _run_while_held(self) -> None:
        try:
            while True:
                if await self._retrying(self.fire) < _BATCH:
                    await asyncio.sleep(self._interval)
        finally:
            self._retrying.reset()  # another replica takes over, and its faults are not ours

    async def fire(self) -> int:
        """Wakes the streams that are due now; returns how many."""
        now = self._clock.now()
        # A repair leaves rows of version 0: what they should be is found out here.
        timers = [timer for timer in await self._log.due(now, _BATCH) if self._concerns(timer)]
        if timers:
            structlog.get_logger().info("timers.fired", log=self._log.name, count=len(timers))
            await self._writer.execute(
                lambda transaction: self._wake(transaction, timers, now),
                preload=[(self._aggregates[timer.stream.type], timer.stream.id) for timer in timers],
            )
        return len(timers)

    async def check(self) -> None:
        """Puts right what a repair of the log left of timers; for a service whose aggregates have none."""
        while await self._retrying(self.fire):
            pass

    def _concerns(self, timer: Timer) -> bool:
        return timer.stream.type in self._aggregates

    def _wake(self, transaction: Transaction, timers: Sequence[Timer], now: datetime) -> None:
        for timer in timers:
            aggregate = self._aggregates[timer.stream.type]
            state = transaction.state(aggregate, timer.stream.id)
            due = aggregate.due(state)
            if not timer.version:
                transaction.check_timer(aggregate, timer.stream.id)
            if due is not None and due <= now:
                metadata = Metadata(timer.stream.id, f"timer/{timer.stream}", "", self._actor)
                transaction.do(aggregate, timer.stream.id, aggregate.on_due(state, now), metadata)

    def _say_stopped(self, error: Exception) -> None:
        structlog.get_logger().warning("timers.stopped", log=self._log.name, problem=str(error))

    def _say_firing(self) -> None:
        structlog.get_logger().info("timers.firing", log=self._log.name)
