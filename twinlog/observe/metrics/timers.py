"""Timers that are due and have not been fired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class TimersDue:
    """Looks at the timers of the own log."""

    name = "timers"

    log: Log
    timers: Timers
    clock: Clock

    async def samples(self) -> Sequence[Sample]:
        now, log = self.clock.now(), self.log.name
        due = await self.log.due(now, MOST)
        late = (now - due[0].due).total_seconds() if due else 0.0
        return [
            Sample(DUE, len(due), (log,)),
            Sample(OLDEST, late, (log,)),
            Sample(STUCK, self.timers.stuck, (log,)),
        ]
