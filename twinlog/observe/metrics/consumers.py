"""The consumers of a process: where each is, how far behind, how long its batches take, and what it fails on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter, time
from typing import NamedTuple

from twinlog.consume import Consumer, ConsumerWrapper, Progress
from twinlog.consume.dead_letters import AddDeadLetter
from twinlog.log.lease import is_here
from twinlog.log.twin import Counting, Peeking, TwinState
from twinlog.model.clock import Clock
from twinlog.model.errors import TwinlogError
from twinlog.model.event import Recorded
from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.observe.metrics.tallies import AGES, INTERNAL, SIZES, UNAVAILABLE, Bounded, Histogram, reason_of
from twinlog.observe.metrics.twins import Streams
from twinlog.rpc.inspection import Followed, Inspected

_OF = ("consumer", "log")

POSITION = Metric(
    "twinlog_consumer_position_events",
    "gauge",
    "The consumer's checkpoint: the position in the log up to which all has had its effects.",
    _OF,
)
LAG_EVENTS = Metric(
    "twinlog_consumer_lag_events",
    "gauge",
    "Events in the stream that the consumer wants and has not handled. Every replica tells the same.",
    _OF,
)
LAG_SECONDS = Metric(
    "twinlog_consumer_lag_seconds",
    "gauge",
    "Age of the oldest event in the stream that the consumer wants and has not handled; 0: there is none.",
    _OF,
)
HERE = Metric("twinlog_consumer_running", "gauge", "Whether this replica runs the consumer.", _OF)
PROBLEM = Metric(
    "twinlog_consumer_stopped", "gauge", "Whether the consumer is held up: an outage or a fault.", _OF
)
DEAD_LETTERS = Metric(
    "twinlog_consumer_dead_letters",
    "gauge",
    "Events that the consumer has set aside, with those behind them. Every replica tells the same, within seconds.",
    _OF,
)
BATCH_SECONDS = Metric(
    "twinlog_consumer_batch_duration_seconds", "histogram", "Time that a batch took, with its commit.", _OF
)
BATCH_EVENTS = Metric("twinlog_consumer_batch_events", "histogram", "Events in a batch.", _OF)
AGE = Metric(
    "twinlog_consumer_event_age_seconds",
    "histogram",
    "Time from the recording of a batch's oldest event to the commit of its effects.",
    _OF,
)
FAILURES = Metric(
    "twinlog_consumer_failures_total",
    "counter",
    "Batches that failed and were tried again, halved or set aside, by reason; INTERNAL: the consumer's own code "
    "raised.",
    (*_OF, "reason"),
)
LAST_FAILURE = Metric(
    "twinlog_consumer_last_failure_timestamp_seconds",
    "gauge",
    "When a batch failed last, in seconds since 1970; 0: none has.",
    _OF,
)
PARKED = Metric(
    "twinlog_consumer_dead_lettered_total",
    "counter",
    "Events that this replica has set aside, with those behind them.",
    _OF,
)


class _Tally:
    """What one consumer did here."""

    def __init__(self) -> None:
        self.seconds = Histogram()
        self.events = Histogram(SIZES)
        self.age = Histogram(AGES)
        self.failures = Bounded(INTERNAL, UNAVAILABLE)
        self.failed_at = 0.0
        self.parked = 0


class ConsumerTallies:
    """The middleware that counts, and what it has counted, by consumer."""

    def __init__(self, clock: Clock) -> None:
        """``clock``: the one that events are recorded by."""
        self._clock = clock
        self.of: dict[str, _Tally] = {}

    def middleware(self, consumer: Consumer) -> Consumer:
        """Goes around a consumer; see :data:`twinlog.consume.Middleware`."""
        tally = self.of[consumer.name] = _Tally()
        return _Counted(consumer, tally, self._clock)


class _Counted(ConsumerWrapper):
    def __init__(self, inner: Consumer, tally: _Tally, clock: Clock) -> None:
        super().__init__(inner)
        self._tally = tally
        self._clock = clock

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        tally, began = self._tally, perf_counter()
        try:
            stored = await self.inner.apply(events, progress)
        except Exception as error:
            tally.failures.add(reason_of(error))
            tally.failed_at = time()
            raise
        if events:
            tally.seconds.observe(perf_counter() - began)
            tally.events.observe(len(events))
            if progress.advance:
                # Another log's clock may be ahead.
                tally.age.observe(max(0.0, (self._clock.now() - events[0].recorded_at).total_seconds()))
        if progress.commands:
            tally.parked += sum(isinstance(command, AddDeadLetter) for command, _ in progress.commands)
        return stored


class _Lag(NamedTuple):
    position: int
    events: int
    seconds: float


@dataclass(frozen=True)
class Consumers:
    """Looks at the consumers, and tells what was counted of them."""

    name = "consumers"

    inspected: Inspected
    streams: Streams
    tallies: ConsumerTallies
    clock: Clock

    async def samples(self) -> Sequence[Sample]:
        states = await self.streams.states()
        followed = [*self.inspected.followed]
        lags = await asyncio.gather(*(self._lag(each, states.get(each.handler.source)) for each in followed))
        samples: list[Sample] = []
        for each, lag in zip(followed, lags, strict=True):
            of = (each.handler.name, each.handler.source)
            samples += _state(each, of)
            if lag is not None:
                values = zip((POSITION, LAG_EVENTS, LAG_SECONDS), lag, strict=True)
                samples += [Sample(metric, value, of) for metric, value in values]
            if tally := self.tallies.of.get(each.handler.name):
                samples += _counted(tally, of)
        return samples

    async def _lag(self, each: Followed, state: TwinState | None) -> _Lag | None:
        """How far behind a consumer is; None while that is not to be had."""
        try:
            position = await each.handler.stored()
            seen = max(position, each.cursor.position if is_here(each.lease) else 0)
            if state is not None and seen >= state.last:
                return _Lag(position, 0, 0.0)
            # The next event first: where there is none, nothing has to be counted, which costs a server four times as
            # much.
            age = await self._age(each, seen)
            return (
                _Lag(position, 0, 0.0)
                if age is None
                else _Lag(position, await _ahead(each, seen, state), age)
            )
        except TwinlogError:
            return None

    async def _age(self, each: Followed, seen: int) -> float | None:
        """How old the next event is; None where there is none."""
        if not isinstance(each.twin, Peeking):
            return 0.0
        event = await each.twin.next_ahead(seen, each.handler.types, each.handler.routing_key)
        return max(0.0, (self.clock.now() - event.recorded_at).total_seconds()) if event else None


async def _ahead(each: Followed, seen: int, state: TwinState | None) -> int:
    handler = each.handler
    all_wanted = not (handler.types or handler.routing_key)
    if state is not None and all_wanted and not state.holes:
        return max(0, state.last - max(seen, state.first - 1))
    if isinstance(each.twin, Counting):
        return await each.twin.ahead(seen, handler.types, handler.routing_key)
    return max(0, (await each.twin.state()).last - seen)


def _state(each: Followed, of: Sequence[str]) -> Sequence[Sample]:
    return [
        Sample(HERE, is_here(each.lease), of),
        Sample(PROBLEM, bool(each.cursor.problem or each.lease.problem), of),
        Sample(DEAD_LETTERS, each.handler.count, of),
    ]


def _counted(tally: _Tally, of: Sequence[str]) -> Sequence[Sample]:
    return [
        Sample(BATCH_SECONDS, tally.seconds, of),
        Sample(BATCH_EVENTS, tally.events, of),
        Sample(AGE, tally.age, of),
        Sample(LAST_FAILURE, tally.failed_at, of),
        Sample(PARKED, tally.parked, of),
        *(Sample(FAILURES, number, (*of, why)) for why, number in tally.failures.counts.items()),
    ]
