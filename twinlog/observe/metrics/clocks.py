"""The machine's clock against the database's, which decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from twinlog.model.clock import Clock
from twinlog.observe.metrics.metric import Metric, Sample

AHEAD = Metric(
    "twinlog_clock_ahead_seconds",
    "gauge",
    "By how much this machine's clock is ahead of the database's, which deadlines go by; negative: behind.",
)


@runtime_checkable
class Compared(Protocol):
    """A clock that knows how far the machine's is from it."""

    @property
    def ahead_seconds(self) -> float:
        """By how much the machine's clock is ahead; negative: behind."""


@dataclass(frozen=True)
class Clocks:
    """Looks at the clock; one that is not compared with another has no samples."""

    name = "clock"

    clock: Clock

    async def samples(self) -> Sequence[Sample]:
        return [Sample(AHEAD, self.clock.ahead_seconds)] if isinstance(self.clock, Compared) else []
