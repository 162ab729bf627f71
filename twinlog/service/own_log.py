"""What works on a service's own log: it copies, appends, fires timers, forgets old requests, and tells of the chain."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.log.chain import Chained
from twinlog.log.heads import Heads
from twinlog.log.lineage import Lineage
from twinlog.log.personal import Personal
from twinlog.log.ports import Log
from twinlog.log.relay import Relay
from twinlog.log.retention import Retention
from twinlog.log.timers import Timers
from twinlog.log.writer import Writer
from twinlog.memory.keys import MemoryKeys
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.schema import Schema
from twinlog.service.environment import Environment
from twinlog.service.feeding import Feeding

_DRAIN_SECONDS = 1.0
_CHECK_TIMERS_SECONDS = 30.0

Work = Iterator[tuple[str, Coroutine[Any, Any, None]]]
"""Tasks to be run, by name."""


class OwnLog:
    """The parts of a service that work on its own log."""

    def __init__(
        self,
        actor: str,
        log: Log,
        environment: Environment,
        feeding: Feeding,
        *,
        aggregates: Sequence[AnyAggregate],
        schema: Schema,
        keep_requests: timedelta,
    ) -> None:
        """See :class:`~twinlog.service.service.Service`. ``actor``: whose name goes on what timers append."""
        randomness, tracing, keys = environment.randomness, environment.tracing, environment.keys
        self.lineage = Lineage(log, feeding.own_twin, randomness=randomness)
        self.relay = Relay(
            log,
            tracing.twin(feeding.own_twin),
            feeding.lease("relay"),
            on_fork=self.lineage.doubt,
            randomness=randomness,
        )
        self.personal = Personal(keys, nonces=keys.nonces) if isinstance(keys, MemoryKeys) else Personal(keys)
        declared = {each.name: each for each in (*aggregates, DEAD_LETTERS)}
        self.writer = Writer(
            environment.observed.log(tracing.log(log)),
            schema=schema,
            clock=environment.clock,
            ids=environment.ids,
            on_commit=self.relay.offer,
            lineage=self.lineage,
            randomness=randomness,
            personal=self.personal,
            owners={event: each.name for each in aggregates for event in each.events},
            declared=declared,
        )
        self.timers = Timers(
            log,
            self.writer,
            [*aggregates, DEAD_LETTERS],
            clock=environment.clock,
            lease=feeding.lease("timers"),
            actor=actor,
            traced=tracing.timers,
            randomness=randomness,
        )
        self.retention = Retention(
            log,
            keep=keep_requests,
            declared=declared,
            lease=feeding.lease("requests"),
            randomness=randomness,
        )
        self.heads = (
            Heads(log.name, log, sign=environment.sign, randomness=randomness)
            if isinstance(log, Chained)
            else None
        )
        """What tells of the log's chain; None where it has none."""
        self._timed = any(aggregate.has_timers for aggregate in aggregates)

    def copying(self) -> Work:
        """The tasks that go on for as long as anything is appended."""
        yield "lineage", self.lineage.run()
        yield "relay", self.relay.run()

    def tending(self) -> Work:
        """The tasks that end before the writer does."""
        yield "unreadable streams", self.writer.unreadable.run(self.writer.read)
        yield "requests", self.retention.run()
        if self.heads:
            yield "heads", self.heads.run()
        yield "keys", self.personal.known.run()
        yield "timers", self.timers.run() if self._timed else self._check_timers()

    async def _check_timers(self) -> None:
        """Also now and then: a timer of an aggregate that is no longer declared is to be reported."""
        era = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_TIMERS_SECONDS):
                    era = await self.lineage.repaired(era)
            await self.timers.check()

    async def drain(self) -> None:
        """Commits and copies what was begun, for a second each at most."""
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self.writer.drain()
        except TimeoutError:
            return  # the store is away: what waits is refused as UNAVAILABLE
        if self.relay.position is not None:
            await self.relay.drain(_DRAIN_SECONDS)
