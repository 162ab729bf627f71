"""Timers that are due and have not been fired."""

from __future__ import annotations

from collections.abc import Sequence

from twinlog.log.ports import Log
from twinlog.log.timers import Timers
from twinlog.model.clock import Clock
from twinlog.observe.metrics.metric import Metric, Sample

MOST = 1_000

DUE = Metric(
    "twinlog_timers_due", "gauge", f"Timers that are due and not fired yet, up to {MOST:,}.", ("log",)
)
OLDEST = Metric(
    "twinlog_timer_oldest_due_seconds",
    "gauge",
    "By how much the oldest of them is late; 0: none is.",
    ("log",),
)
STUCK = Metric(
    "twinlog_timers_stuck",
    "gauge",
    "Timers that this replica could not fire, because their stream cannot be read or their aggregate is gone.",
    ("log",),
)


class TimersDue:
    """Looks at the timers of the own log."""

    name = "timers"

    def __init__(self, log: Log, timers: Timers, clock: Clock) -> None:
        self._log = log
        self._timers = timers
        self._clock = clock

    async def samples(self) -> Sequence[Sample]:
        now, log = self._clock.now(), self._log.name
        due = await self._log.due(now, MOST)
        late = (now - due[0].due).total_seconds() if due else 0.0
        return [
            Sample(DUE, len(due), (log,)),
            Sample(OLDEST, late, (log,)),
            Sample(STUCK, self._timers.stuck, (log,)),
        ]
