"""Timers: wakes the streams whose time has come.

The log keeps one timer row a stream, set and cleared in the transaction of the events that change it, so time
never lives in a process's memory. A late or doubled wake-up does nothing: the decider looks at its state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog

from twinlog.log.lease import Lease
from twinlog.log.ports import Log, Timer
from twinlog.log.transaction import Transaction
from twinlog.log.writer import Writer
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.clock import Clock
from twinlog.model.errors import Unavailable
from twinlog.model.event import Metadata

_BATCH = 200


class Timers:
    """Fires the due timers of one log, of the aggregates it is given."""

    def __init__(
        self,
        log: Log,
        writer: Writer,
        aggregates: Sequence[AnyAggregate],
        *,
        clock: Clock,
        lease: Lease | None = None,
        actor: str,
        interval: float = 0.5,
    ) -> None:
        """``interval``: seconds between two looks, so the most that a wake-up is late."""
        self._log = log
        self._writer = writer
        self._aggregates = {aggregate.name: aggregate for aggregate in aggregates}
        self._clock = clock
        self._lease = lease
        self._actor = actor
        self._interval = interval

    async def run(self) -> None:
        """For ever; an outage of the store delays wake-ups and loses none."""
        if self._lease:
            await self._lease.hold(self._run)
        else:
            await self._run()

    async def _run(self) -> None:
        while True:
            try:
                fired = await self.fire()
            except Unavailable:
                fired = 0
            if fired < _BATCH:
                await asyncio.sleep(self._interval)

    async def fire(self) -> int:
        """Wakes what is due now; gives how many."""
        now = self._clock.now()
        timers = await self._log.due(now, _BATCH)
        if timers:
            structlog.get_logger().info("timers.fired", log=self._log.name, count=len(timers))
            await self._writer.execute(
                lambda transaction: self._wake(transaction, timers, now),
                preload=[(self._aggregates[timer.stream.type], timer.stream.id) for timer in timers],
            )
        return len(timers)

    def _wake(self, transaction: Transaction, timers: Sequence[Timer], now: datetime) -> None:
        for timer in timers:
            aggregate = self._aggregates[timer.stream.type]
            state = transaction.state(aggregate, timer.stream.id)
            due = aggregate.due(state)
            if due is not None and due <= now:
                metadata = Metadata(timer.stream.id, f"timer/{timer.stream}", "", self._actor)
                transaction.do(aggregate, timer.stream.id, aggregate.on_due(state, now), metadata)
