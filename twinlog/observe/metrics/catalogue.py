"""Every metric that a process may tell, and the page that lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twinlog.observe.metrics import scrape
from twinlog.observe.metrics.clocks import Clocks
from twinlog.observe.metrics.commands import Commands
from twinlog.observe.metrics.consumers import Consumers
from twinlog.observe.metrics.event_loop import EventLoop
from twinlog.observe.metrics.info import INFO
from twinlog.observe.metrics.leases import Leases
from twinlog.observe.metrics.log import LogTally
from twinlog.observe.metrics.metric import Metric
from twinlog.observe.metrics.pages import Pages
from twinlog.observe.metrics.pool import PoolUse
from twinlog.observe.metrics.problems import Problems
from twinlog.observe.metrics.sagas import Sagas
from twinlog.observe.metrics.timers import TimersDue
from twinlog.observe.metrics.twins import Twins
from twinlog.observe.metrics.writer import Writing

BY_CONCERN: Mapping[str, Sequence[Metric]] = {
    "The process": (INFO, *scrape.METRICS, *Problems.metrics, *EventLoop.metrics, *Clocks.metrics),
    "Calls": Commands.metrics,
    "The log": LogTally.metrics,
    "The writer": Writing.metrics,
    "Twins and relay": Twins.metrics,
    "Consumers": Consumers.metrics,
    "Sagas": Sagas.metrics,
    "Timers": TimersDue.metrics,
    "Leases": Leases.metrics,
    "Connections": PoolUse.metrics,
    "The console": Pages.metrics,
}
"""By the headings of the page."""
ALL: Sequence[Metric] = [metric for metrics in BY_CONCERN.values() for metric in metrics]

_INTRODUCTION = """# Metrics

What a process tells Prometheus where `METRICS_ADDRESS` is set ([how to](../how-to/metrics.md)). Made from the code:
`python -m tests.docs.metrics_page`. Every name has its unit; times are in seconds. Labels have few values each: no ids
of orders, customers or requests are among them. A histogram has `_bucket`, `_sum` and `_count`. Besides these there are
the `process_` metrics of every Prometheus client: processor time, memory, file descriptors, start time.

The label `log` is the name of a log, such as `orders`; `consumer` is the name of a checkpoint, such as
`customer_svc.orders`. What lies in the store is told alike by every replica: take its `max`, not its `sum`.
"""


def page() -> str:
    """The page in Markdown."""
    parts = [_INTRODUCTION]
    for heading, metrics in BY_CONCERN.items():
        parts.append(f"\n## {heading}\n\n| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n")
        parts += [_row(metric) for metric in metrics]
    return "".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n"
