"""Retention: forgets the outcomes of requests once no client retries them any more, and snapshots that an earlier
deploy kept and this one does not.

A retry that comes later is a new request. Where the client chose the id of what it creates, it is refused as existing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from datetime import timedelta

import structlog

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log import say
from twinlog.log.kept_snapshots import drop_surplus
from twinlog.log.lease import ALWAYS_HELD, Lease
from twinlog.log.ports import Log
from twinlog.model.aggregate import AnyAggregate

KEPT = timedelta(days=7)
"""How long the outcome of a request is kept, by default."""

_BATCH = 1000
_BETWEEN_BATCHES_SECONDS = 0.1
"""Keeps the work beside the commands: at most 10,000 outcomes a second, of some 100 bytes each."""


class Retention:
    """Sweeps the outcomes of one log, in small batches, while the lease is held."""

    def __init__(
        self,
        log: Log,
        *,
        keep: timedelta = KEPT,
        declared: Mapping[str, AnyAggregate] = {},
        lease: Lease = ALWAYS_HELD,
        interval_seconds: float = 60.0,
        randomness: Randomness = random,
    ) -> None:
        """``keep``: for how long outcomes are kept, by the store's clock; ``interval_seconds``: between two looks.
        ``declared``: the aggregates that the log is to hold, by name."""
        self._log = log
        self._declared = declared
        self._keep = keep
        self._lease = lease
        self._interval_seconds = interval_seconds
        self._retrying = Retrying(
            say_failing=say.warning("requests.not_swept", log=log.name),
            say_working=say.info("requests.sweeping", log=log.name),
            on=(Exception,),  # whatever it is, it concerns no command
            first_seconds=1.0,
            cap_seconds=interval_seconds,
            randomness=randomness,
        )

    async def run(self) -> None:
        """Sweeps endlessly, first after the interval; during an outage of the store, outcomes are kept for longer."""
        await asyncio.sleep(self._interval_seconds)  # a start has better things to do
        await self._lease.hold(self._run_while_held)

    async def sweep(self) -> int:
        """Forgets a batch of the oldest outcomes that are past their time; returns how many."""
        swept = await self._log.sweep_requests(self._keep, _BATCH)
        if swept:
            structlog.get_logger().debug("requests.swept", log=self._log.name, count=swept)
        return swept

    async def _drop_snapshots(self) -> None:
        if dropped := await drop_surplus(self._log, self._declared):
            structlog.get_logger().info("snapshots.dropped", log=self._log.name, count=dropped)

    async def _run_while_held(self) -> None:
        try:
            await self._retrying(self._drop_snapshots)  # once: policies change with a deploy
            while True:
                more = await self._retrying(self.sweep) == _BATCH
                await asyncio.sleep(_BETWEEN_BATCHES_SECONDS if more else self._interval_seconds)
        finally:
            self._retrying.reset()  # another replica takes over, and its faults are not ours
