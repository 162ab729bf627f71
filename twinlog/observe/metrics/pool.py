"""The connections of the process to its store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from twinlog.log.ports import Log
from twinlog.observe.metrics.metric import Metric, Sample

CONNECTIONS = Metric(
    "twinlog_pool_connections",
    "gauge",
    "Connections to Postgres: busy, idle, or not made yet (free).",
    ("state",),
)
MADE = Metric(
    "twinlog_pool_connections_made_total", "counter", "Connections to Postgres that were made so far."
)


@runtime_checkable
class Pooled(Protocol):
    """A log whose store is reached through a pool."""

    @property
    def pool(self) -> Any:
        """It tells its size, its greatest size, and how many of its connections are idle."""


@dataclass(frozen=True)
class PoolUse:
    """Looks at the pool of a log; a log without one has no samples."""

    name = "pool"

    log: Log

    async def samples(self) -> Sequence[Sample]:
        if not isinstance(self.log, Pooled):
            return []
        pool = self.log.pool
        size, idle, most = pool.get_size(), pool.get_idle_size(), pool.get_max_size()
        states = {"busy": size - idle, "idle": idle, "free": most - size}
        return [
            *(Sample(CONNECTIONS, number, (state,)) for state, number in states.items()),
            Sample(MADE, self.log.connections),
        ]
