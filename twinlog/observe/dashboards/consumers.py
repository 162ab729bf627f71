"""The dashboard of consumers: how far behind each is, what a batch takes, and what it fails on."""

from __future__ import annotations

from twinlog.observe.dashboards.panels import Dashboard, Row, panel
from twinlog.observe.dashboards.promql import JOB, average, greatest, per_second, quantile
from twinlog.observe.metrics import consumers

CONSUMERS = Dashboard(
    "twinlog-consumers",
    "Twinlog: consumers",
    "Policies, projections and effects: how far behind each is, what a batch takes, and what it fails on.",
    [
        Row(
            "How far behind",
            [
                panel("In seconds", greatest(consumers.LAG_SECONDS, "consumer", JOB), "s"),
                panel("In events", greatest(consumers.LAG_EVENTS, "consumer", JOB)),
                panel(
                    "From event to effect, 95 % of batches",
                    quantile(0.95, consumers.AGE, "consumer", JOB),
                    "s",
                ),
                panel("Position", greatest(consumers.POSITION, "consumer", JOB)),
                panel("Where it runs", greatest(consumers.HERE, "consumer, instance", JOB), "bool"),
            ],
        ),
        Row(
            "Batches",
            [
                panel(
                    "Events handled",
                    per_second(f"{consumers.BATCH_EVENTS.name}_sum", "consumer", JOB),
                    "reqps",
                ),
                panel("Events in a batch", average(consumers.BATCH_EVENTS, "consumer", JOB)),
                panel("Time of a batch, 95 %", quantile(0.95, consumers.BATCH_SECONDS, "consumer", JOB), "s"),
            ],
        ),
        Row(
            "Failures",
            [
                panel("Held up", greatest(consumers.PROBLEM, "consumer", JOB), "bool"),
                panel(
                    "Batches that failed", per_second(consumers.FAILURES, "consumer, reason", JOB), "reqps"
                ),
                panel("Dead letters", greatest(consumers.DEAD_LETTERS, "consumer", JOB), alarming=1),
                panel("Set aside", per_second(consumers.PARKED, "consumer", JOB), "reqps"),
            ],
        ),
    ],
)
