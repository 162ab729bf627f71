"""The writer of the own log: what waits, what may begin, and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twinlog.log.writer import Writer
from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.observe.metrics.tallies import SIZES, Histogram

WAITING = Metric(
    "twinlog_writer_waiting_units",
    "gauge",
    "Units of work that wait to be decided: commands of clients (outside), and those of policies, sagas, timers and "
    "operators (inside).",
    ("log", "origin"),
)
BATCH = Metric(
    "twinlog_writer_batch_units",
    "histogram",
    "Units of work that were taken up at once: they share an append, 256 at the most.",
    ("log",),
)
APPEND_AGE = Metric(
    "twinlog_writer_oldest_append_seconds",
    "gauge",
    "How long the batch that is being committed has been; 0: none is.",
    ("log",),
)
UNFINISHED = Metric(
    "twinlog_admission_unfinished_streams",
    "gauge",
    "What commands of clients have begun at this replica and the sagas behind them have not ended yet.",
    ("log",),
)
WINDOW = Metric(
    "twinlog_admission_window_streams",
    "gauge",
    "How much may be unfinished before commands that begin something are refused as OVERLOADED.",
    ("log",),
)
CACHED = Metric("twinlog_writer_cached_streams", "gauge", "Streams whose state is kept in memory.", ("log",))
UNREADABLE = Metric(
    "twinlog_unreadable_streams", "gauge", "Streams that this replica has found and cannot read.", ("log",)
)
IGNORED = Metric(
    "twinlog_snapshots_ignored_total",
    "counter",
    "Snapshots that could not be read and were made anew.",
    ("log",),
)


@dataclass(frozen=True)
class Writing:
    name = "writer"

    log: str
    writer: Writer

    async def samples(self) -> Sequence[Sample]:
        log, writer = self.log, self.writer
        inside, outside = writer.waiting
        numbers = {
            APPEND_AGE: writer.append_seconds,
            UNFINISHED: len(writer.unfinished),
            WINDOW: writer.unfinished.window,
            CACHED: writer.cached,
            UNREADABLE: writer.unreadable.count,
            IGNORED: writer.snapshots_ignored,
        }
        return [
            Sample(WAITING, inside, (log, "inside")),
            Sample(WAITING, outside, (log, "outside")),
            Sample(BATCH, _histogram(writer.batches), (log,)),
            *(Sample(metric, number, (log,)) for metric, number in numbers.items()),
        ]


def _histogram(batches: Mapping[int, int]) -> Histogram:
    """Made for each scrape, of at most 256 sizes, so that a batch costs no call."""
    histogram = Histogram(SIZES)
    for size, number in batches.items():
        histogram.observe(size, number)
    return histogram
