"""PromQL from metrics: what dashboards and alerts ask."""

from __future__ import annotations

from twinlog.observe.metrics.metric import Metric

RATE = "$__rate_interval"
"""Grafana puts four scrape intervals in its place."""
JOB = 'job=~"$job"'


def chosen(metric: Metric | str, *labels: str) -> str:
    """The series of a metric that have these labels, such as ``reason!="OK"``."""
    name = metric if isinstance(metric, str) else metric.name
    return f"{name}{{{', '.join(labels)}}}" if labels else name


def per_second(metric: Metric | str, by: str, *labels: str, over: str = RATE) -> str:
    """How often a counter was counted a second."""
    return f"sum by ({by}) (rate({chosen(metric, *labels)}[{over}]))"


def greatest(metric: Metric, by: str, *labels: str) -> str:
    """The greatest value: of what every replica tells alike, that is the value."""
    return f"max by ({by}) ({chosen(metric, *labels)})"


def total(metric: Metric, by: str, *labels: str) -> str:
    return f"sum by ({by}) ({chosen(metric, *labels)})"


def quantile(share: float, histogram: Metric, by: str, *labels: str, over: str = RATE) -> str:
    """What so large a share of the values does not exceed."""
    found = per_second(f"{histogram.name}_bucket", f"{by}, le", *labels, over=over)
    return f"histogram_quantile({share:g}, {found})"


def average(histogram: Metric, by: str, *labels: str) -> str:
    sums = per_second(f"{histogram.name}_sum", by, *labels)
    counts = per_second(f"{histogram.name}_count", by, *labels)
    return f"{sums} / {counts}"
