"""Samples as Prometheus reads them: its text format, or OpenMetrics.

Written in place. `prometheus_client` makes objects of each line first, which took twenty times as long, and was most of
what a scrape cost a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import accumulate
from math import inf, isfinite, isnan

from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.observe.metrics.tallies import Histogram

_KEPT = 2_000
"""Of as many series the labels are kept as they are written."""


def text(samples: Sequence[Sample], *, open_metrics: bool = False) -> str:
    """The samples by metric, with what each metric means."""
    by_metric: dict[Metric, list[Sample]] = {}
    for sample in samples:
        by_metric.setdefault(sample.metric, []).append(sample)
    parts: list[str] = []
    for metric, its in by_metric.items():
        parts.append(_header(metric, open_metrics))
        for sample in its:
            labels = _labels(metric.labels, sample.labels)
            if isinstance(sample.value, Histogram):
                parts.append(_buckets(metric, sample.value, labels))
            else:
                braced = f"{{{labels}}}" if labels else ""
                parts.append(f"{metric.name}{braced} {_number(sample.value)}\n")
    return "".join(parts)


@cache
def _header(metric: Metric, open_metrics: bool) -> str:
    name = metric.name.removesuffix("_total") if open_metrics else metric.name
    said = _escaped(metric.help) if open_metrics else metric.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {said}\n# TYPE {name} {metric.kind}\n"


@lru_cache(_KEPT)
def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _buckets(metric: Metric, histogram: Histogram, labels: str) -> str:
    bucket = f'{metric.name}_bucket{{{labels}{"," if labels else ""}le="'
    numbers = [*accumulate(histogram.counts)]
    lines = [
        f'{bucket}{bound}"}} {upto}\n'
        for bound, upto in zip(_bounds(tuple(histogram.bounds)), numbers, strict=True)
    ]
    braced = f"{{{labels}}}" if labels else ""
    lines.append(
        f"{metric.name}_count{braced} {numbers[-1]}\n{metric.name}_sum{braced} {_number(histogram.sum)}\n"
    )
    return "".join(lines)


@cache
def _bounds(bounds: tuple[float, ...]) -> Sequence[str]:
    """As Prometheus writes them."""
    return [*(repr(float(bound)) for bound in bounds), "+Inf"]


def _number(value: float) -> str:
    if isfinite(value):
        return repr(float(value))
    return "NaN" if isnan(value) else "+Inf" if value == inf else "-Inf"
