"""Whether the process serves, and which of its signals have something to say: the same as its health checks."""

from __future__ import annotations

from collections.abc import Sequence

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


class Problems:
    name = "problems"

    def __init__(self, inspected: Inspected) -> None:
        self._inspected = inspected

    async def samples(self) -> Sequence[Sample]:
        inspected = self._inspected
        return [
            Sample(SERVING, not any(part.problem for part in inspected.parts)),
            *(Sample(PROBLEM, bool(part.problem), (name,)) for name, part in inspected.signals.items()),
        ]
