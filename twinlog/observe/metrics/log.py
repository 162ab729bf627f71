"""The log that a writer appends to and loads from: how often, how much at once, how long, and in how much conflict."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import cast

from twinlog.log.ports import Appended, Batch, Conflict, Log, LogSession, ReadRequest, Snapshot, StreamSlice
from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.observe.metrics.tallies import SIZES, UNAVAILABLE, Bounded, Histogram, reason_of
from twinlog.observe.wrapper import Wrapper

APPEND_SECONDS = Metric(
    "twinlog_log_append_duration_seconds",
    "histogram",
    "Time that the store took to append a batch or to refuse it for a conflict.",
    ("log",),
)
APPEND_EVENTS = Metric(
    "twinlog_log_append_events", "histogram", "Events in a batch that was appended.", ("log",)
)
EVENTS = Metric(
    "twinlog_log_events_total",
    "counter",
    "Events that this process has appended, by aggregate and type.",
    ("log", "aggregate", "type"),
)
CONFLICTS = Metric(
    "twinlog_log_append_conflicts_total",
    "counter",
    "Appends that were refused for a conflict and decided again, by what was elsewhere than expected: streams, "
    "requests, checkpoints or the history.",
    ("log", "kind"),
)
APPEND_FAILURES = Metric(
    "twinlog_log_append_failures_total",
    "counter",
    "Appends without an answer from the store, by reason.",
    ("log", "reason"),
)
LOAD_SECONDS = Metric(
    "twinlog_log_load_duration_seconds",
    "histogram",
    "Time that the store took to load streams.",
    ("log",),
)
LOADED_STREAMS = Metric("twinlog_log_loaded_streams_total", "counter", "Streams that were loaded.", ("log",))
LOADED_EVENTS = Metric(
    "twinlog_log_loaded_events_total", "counter", "Events that were loaded with streams.", ("log",)
)
EXCLUSIVE = Metric(
    "twinlog_log_exclusive_appends_total",
    "counter",
    "Appends for which other writers were locked out, after three lost races.",
    ("log",),
)
SNAPSHOTS = Metric("twinlog_snapshots_saved_total", "counter", "Snapshots that were saved.", ("log",))


class LogTally:
    """What was asked of one log."""

    name = "log"

    def __init__(self) -> None:
        self.log = ""
        self.append_seconds = Histogram()
        self.append_events = Histogram(SIZES)
        self.events: Counter[tuple[str, str]] = Counter()
        """By aggregate and type."""
        self.conflicts: Counter[str] = Counter(streams=0, requests=0, checkpoints=0, history=0)
        self.failures = Bounded(UNAVAILABLE)
        self.load_seconds = Histogram()
        self.loaded_streams = self.loaded_events = self.exclusive = self.snapshots = 0

    def around(self, log: Log) -> Log:
        """The same log, counting."""
        self.log = log.name
        return cast(Log, _CountedLog(log, self))

    def expect(self, aggregate: str, types: Sequence[str]) -> None:
        """Has events of these types told from the start, so that the first one shows as an increase."""
        self.events.update({(aggregate, type): 0 for type in types})

    def appended(self, batch: Batch, result: Appended | Conflict, seconds: float) -> None:
        """Counts an append that was answered."""
        self.append_seconds.observe(seconds)
        if isinstance(result, Appended):
            self.append_events.observe(len(batch.events))
            self.events.update([(event.stream.type, event.type) for event in batch.events])
            return
        self.conflicts["streams"] += bool(result.streams)
        self.conflicts["requests"] += bool(result.replies)
        self.conflicts["checkpoints"] += bool(result.checkpoints)
        self.conflicts["history"] += result.forked

    def loaded(self, slices: Sequence[StreamSlice], seconds: float) -> None:
        self.load_seconds.observe(seconds)
        self.loaded_streams += len(slices)
        self.loaded_events += sum([len(each.events) for each in slices])

    async def samples(self) -> Sequence[Sample]:
        log = self.log
        numbers = {
            LOADED_STREAMS: self.loaded_streams,
            LOADED_EVENTS: self.loaded_events,
            EXCLUSIVE: self.exclusive,
            SNAPSHOTS: self.snapshots,
        }
        return [
            Sample(APPEND_SECONDS, self.append_seconds, (log,)),
            Sample(APPEND_EVENTS, self.append_events, (log,)),
            Sample(LOAD_SECONDS, self.load_seconds, (log,)),
            *(Sample(EVENTS, number, (log, *of)) for of, number in self.events.items()),
            *(Sample(CONFLICTS, number, (log, kind)) for kind, number in self.conflicts.items()),
            *(Sample(APPEND_FAILURES, number, (log, why)) for why, number in self.failures.counts.items()),
            *(Sample(metric, number, (log,)) for metric, number in numbers.items()),
        ]


class _CountedSession(Wrapper):
    """A session whose appends and loads are counted."""

    _inner: LogSession

    def __init__(self, inner: LogSession, tally: LogTally) -> None:
        super().__init__(inner)
        self._tally = tally

    async def append(self, batch: Batch) -> Appended | Conflict:
        began = perf_counter()
        try:
            result = await self._inner.append(batch)
        except Exception as error:
            self._tally.failures.add(reason_of(error))
            raise
        self._tally.appended(batch, result, perf_counter() - began)
        return result

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        began = perf_counter()
        slices = await self._inner.load(wanted)
        self._tally.loaded(slices, perf_counter() - began)
        return slices


class _CountedLog(_CountedSession):
    _inner: Log

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[LogSession]:
        self._tally.exclusive += 1
        async with self._inner.exclusive() as session:
            yield _CountedSession(session, self._tally)

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        await self._inner.save(snapshots)
        self._tally.snapshots += sum(bool(snapshot.version) for snapshot in snapshots)
