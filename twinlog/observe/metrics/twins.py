"""The own log and the twins: how far each is, and what the relay has not copied yet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from twinlog.log.chain import SHORT_HASH
from twinlog.log.relay import Relay
from twinlog.log.twin import Twin, TwinDamaged, TwinMissing, TwinState
from twinlog.model.clock import Clock
from twinlog.model.errors import Unavailable
from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.rpc.inspection import Inspected

LOG_POSITION = Metric(
    "twinlog_log_position_events",
    "gauge",
    "The position of the last event of the own log, which is how many it has.",
    ("log",),
)
TWIN_POSITION = Metric(
    "twinlog_twin_position_events",
    "gauge",
    "The last sequence of a log's stream in JetStream: of the own log and of those that are followed.",
    ("log",),
)
TWIN_HOLES = Metric(
    "twinlog_twin_missing_events", "gauge", "Messages that are missing inside a log's stream.", ("log",)
)
LAG_EVENTS = Metric(
    "twinlog_relay_lag_events", "gauge", "Events of the own log that are not in its stream yet.", ("log",)
)
LAG_SECONDS = Metric(
    "twinlog_relay_lag_seconds",
    "gauge",
    "Age of the oldest event of the own log that is not in its stream yet; 0: all are.",
    ("log",),
)
COPYING = Metric(
    "twinlog_relay_copying", "gauge", "Whether this replica copies its log into its stream.", ("log",)
)
CHAIN_POSITION = Metric(
    "twinlog_chain_position_events",
    "gauge",
    "The position of the own log when the last link was added to its chain.",
    ("log",),
)
CHAIN_HASH = Metric(
    "twinlog_chain_hash_number",
    "gauge",
    "The first 48 bits of the hash of that link, as a number: its hexadecimal digits are the head to verify against.",
    ("log",),
)


@dataclass(frozen=True)
class Twins:
    name = "twins"

    inspected: Inspected
    streams: Streams
    relay: Relay
    clock: Clock

    async def samples(self) -> Sequence[Sample]:
        log = self.inspected.log
        states = await self.streams.states()
        head = await log.head()
        samples = [
            Sample(COPYING, self.relay.position is not None, (log.name,)),
            Sample(LOG_POSITION, head, (log.name,)),
        ]
        for name, state in states.items():
            samples += [Sample(TWIN_POSITION, state.last, (name,)), Sample(TWIN_HOLES, state.holes, (name,))]
        copied = states.get(log.name)
        if copied is not None:
            samples += [
                Sample(LAG_EVENTS, max(0, head - copied.last), (log.name,)),
                Sample(LAG_SECONDS, await self._age_after(copied.last, head), (log.name,)),
            ]
        return [*samples, *await self._chain()]

    async def _chain(self) -> Sequence[Sample]:
        heads = self.inspected.heads
        if heads is None or (head := await heads.newest()) is None:
            return []
        return [
            Sample(CHAIN_POSITION, head.position, (head.log,)),
            Sample(CHAIN_HASH, int(head.hash[:SHORT_HASH], 16), (head.log,)),
        ]

    async def _age_after(self, position: int, head: int) -> float:
        if position >= head:
            return 0.0
        waiting = await self.inspected.log.read(position, 1)
        return max(0.0, (self.clock.now() - waiting[0].recorded_at).total_seconds()) if waiting else 0.0


class Streams:
    """Asks for the states of the own log's stream and of those that are followed."""

    def __init__(self, inspected: Inspected) -> None:
        self._inspected = inspected
        self._asking: asyncio.Task[Mapping[str, TwinState]] | None = None

    async def states(self) -> Mapping[str, TwinState]:
        """By log; a stream that is not to be had is left out. Callers that ask at the same time share the answer."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Mapping[str, TwinState]:
        inspected = self._inspected
        twins = {each.consumer.source: each.twin for each in inspected.followed}
        twins[inspected.log.name] = inspected.twin
        states = await asyncio.gather(*(_state(twin) for twin in twins.values()))
        return {name: state for name, state in zip(twins, states, strict=True) if state is not None}


async def _state(twin: Twin) -> TwinState | None:
    with suppress(TwinMissing, TwinDamaged, Unavailable):
        return await twin.state()
    return None
