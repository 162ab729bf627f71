"""What a metric is, and one value of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from twinlog.observe.metrics.tallies import Histogram

Kind = Literal["counter", "gauge", "histogram"]


class Metric(NamedTuple):
    """A metric, as Prometheus knows it; its names and labels follow Prometheus' conventions."""

    name: str
    """With its unit; a counter ends in ``_total``."""
    kind: Kind
    help: str
    """What it counts or measures, in a sentence."""
    labels: Sequence[str] = ()
    """Of few values each: never ids."""


class Sample(NamedTuple):
    """One value of a metric."""

    metric: Metric
    value: float | Histogram
    labels: Sequence[str] = ()
    """The values of the metric's labels, in their order."""


class Concern(Protocol):
    """What is measured of one part of a process."""

    @property
    def name(self) -> str:
        """Names the concern where it cannot be sampled."""

    async def samples(self) -> Sequence[Sample]:
        """The values now; called on the event loop, for each scrape. May raise whatever its servers do."""
