"""The event loop of a process: by how much it is late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter

from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.observe.metrics.tallies import Histogram

EVERY_SECONDS = 0.1

LAG = Metric(
    "twinlog_event_loop_lag_seconds",
    "histogram",
    "By how much the event loop was late, ten times a second: something held it up, or the processor was busy.",
)
TASKS = Metric("twinlog_event_loop_tasks", "gauge", "Tasks of the event loop.")


class EventLoop:
    """Measures the loop that :meth:`run` runs on."""

    name = "event_loop"
    metrics: Sequence[Metric] = (LAG, TASKS)

    def __init__(self) -> None:
        self._lag = Histogram()

    async def run(self) -> None:
        """Measures endlessly."""
        while True:
            due = perf_counter() + EVERY_SECONDS
            await asyncio.sleep(EVERY_SECONDS)
            self._lag.observe(max(0.0, perf_counter() - due))

    async def samples(self) -> Sequence[Sample]:
        return [Sample(LAG, self._lag), Sample(TASKS, len(asyncio.all_tasks()))]
