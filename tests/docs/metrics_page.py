"""Every metric there is, and docs/reference/metrics.md, written anew by ``python -m tests.docs.metrics_page``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

from stack.topology import ROOT
from twinlog.observe.metrics import (
    clocks,
    commands,
    consumers,
    event_loop,
    info,
    leases,
    log,
    pages,
    pool,
    problems,
    sagas,
    scrape,
    timers,
    twins,
    writer,
)
from twinlog.observe.metrics.metric import Metric


def metrics_of(module: ModuleType) -> Sequence[Metric]:
    """Those that a module defines, in their order."""
    return [each for each in vars(module).values() if isinstance(each, Metric)]


PAGE = ROOT / "docs" / "reference" / "metrics.md"

_CONCERNS = {
    "The process": (info, scrape, problems, event_loop, clocks),
    "Calls": (commands,),
    "The log": (log,),
    "The writer": (writer,),
    "Twins and relay": (twins,),
    "Consumers": (consumers,),
    "Sagas": (sagas,),
    "Timers": (timers,),
    "Leases": (leases,),
    "Connections": (pool,),
    "The console": (pages,),
}
BY_CONCERN: Mapping[str, Sequence[Metric]] = {
    heading: [metric for module in modules for metric in metrics_of(module)]
    for heading, modules in _CONCERNS.items()
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
    parts = [_INTRODUCTION]
    for heading, metrics in BY_CONCERN.items():
        parts.append(f"\n## {heading}\n\n| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n")
        parts += [_row(metric) for metric in metrics]
    return "".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
