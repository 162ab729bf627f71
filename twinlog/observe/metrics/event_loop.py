"""The event loop of a process: by how much it is late."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
    """Measures the loop that :meth:`measured` runs on."""

    name = "event_loop"

    def __init__(self) -> None:
        self._lag = Histogram()
        self._ticks: asyncio.TimerHandle | None = None

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measures the running loop while the block runs; by a timer, since a task would cost three times as much."""
        loop = asyncio.get_running_loop()
        self._ticks = loop.call_later(EVERY_SECONDS, self._tick, loop, loop.time() + EVERY_SECONDS)
        try:
            yield
        finally:
            self._ticks.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self._lag.observe(max(0.0, now - due))
        self._ticks = loop.call_at(now + EVERY_SECONDS, self._tick, loop, now + EVERY_SECONDS)

    async def samples(self) -> Sequence[Sample]:
        return [Sample(LAG, self._lag), Sample(TASKS, len(asyncio.all_tasks()))]
