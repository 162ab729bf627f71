"""Whether the process serves, and which of its signals have something to say: the same as its health checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.rpc.inspection import Inspected

SERVING = Metric(
    "twinlog_serving", "gauge", "Whether the process is SERVING: no part of it has a problem.", ()
)
PROBLEM = Metric(
    "twinlog_signal_problem",
    "gauge",
    "Whether a health check of its own, which calls for an operator while traffic goes on, has a problem.",
    ("signal",),
)


@dataclass(frozen=True)
class Problems:
    name = "problems"

    inspected: Inspected

    async def samples(self) -> Sequence[Sample]:
        inspected = self.inspected
        return [
            Sample(SERVING, not any(part.problem for part in inspected.parts)),
            *(Sample(PROBLEM, bool(part.problem), (name,)) for name, part in inspected.signals.items()),
        ]
