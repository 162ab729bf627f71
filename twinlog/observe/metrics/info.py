"""Which process this is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import twinlog
from twinlog.observe.metrics.metric import Metric, Sample

INFO = Metric(
    "twinlog_info", "gauge", "1; says which service this is, and of which version.", ("name", "version")
)


@dataclass(frozen=True)
class Info:
    name = "info"

    service: str

    async def samples(self) -> Sequence[Sample]:
        return [Sample(INFO, 1, (self.service, twinlog.__version__))]
