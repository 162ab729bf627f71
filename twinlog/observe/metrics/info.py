"""Which process this is."""

from __future__ import annotations

from collections.abc import Sequence

import twinlog
from twinlog.observe.metrics.metric import Metric, Sample

INFO = Metric(
    "twinlog_info", "gauge", "1; says which service this is, and of which version.", ("name", "version")
)


class Info:
    name = "info"

    def __init__(self, service: str) -> None:
        self._service = service

    async def samples(self) -> Sequence[Sample]:
        return [Sample(INFO, 1, (self._service, twinlog.__version__))]
