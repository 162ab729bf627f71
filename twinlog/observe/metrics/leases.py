"""The leases of a process: the pieces of work that one replica does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twinlog.log.lease import Lease, is_here
from twinlog.observe.metrics.metric import Metric, Sample

HELD = Metric(
    "twinlog_lease_held",
    "gauge",
    "Whether this replica holds the lease: of its relay, its timers, the sweeping of requests, or a consumer.",
    ("lease",),
)


class Leases:
    name = "leases"

    def __init__(self, leases: Mapping[str, Lease]) -> None:
        """``leases``: by the work that each is for."""
        self._leases = leases

    async def samples(self) -> Sequence[Sample]:
        return [Sample(HELD, is_here(lease), (work,)) for work, lease in self._leases.items()]
