"""The leases of a process: the pieces of work that one replica does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from twinlog.log.lease import Lease, is_here
from twinlog.observe.metrics.metric import Metric, Sample

HELD = Metric(
    "twinlog_lease_held",
    "gauge",
    "Whether this replica holds the lease: of its relay, its timers, the sweeping of requests, or a consumer.",
    ("lease",),
)


@dataclass(frozen=True)
class Leases:
    name = "leases"

    leases: Mapping[str, Lease]
    """By the work that each is for."""

    async def samples(self) -> Sequence[Sample]:
        return [Sample(HELD, is_here(lease), (work,)) for work, lease in self.leases.items()]
