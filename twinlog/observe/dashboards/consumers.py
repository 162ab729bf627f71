"""The dashboard of consumers: how far behind each is, what a batch takes, and what it fails on."""

from __future__ import annotations

from twinlog.observe.dashboards.panels import Dashboard, Row, panel
from twinlog.observe.dashboards.promql import JOB, average, greatest, per_second, quantile
from twinlog.observe.metrics import consumers

_EACH = "{{consumer}}"

CONSUMERS = Dashboard(
    "twinlog-consumers",
    "Twinlog: consumers",
    "Policies, projections and effects: how far behind each is, what a batch takes, and what it fails on.",
    [
        Row(
            "How far behind",
            [
                panel("In seconds", greatest(consumers.LAG_SECONDS, "consumer", JOB), _EACH, "s"),
                panel("In events", greatest(consumers.LAG_EVENTS, "consumer", JOB), _EACH),
                panel(
                    "From event to effect, 95 % of batches",
                    quantile(0.95, consumers.AGE, "consumer", JOB),
                    _EACH,
                    "s",
                ),
                panel("Position", greatest(consumers.POSITION, "consumer", JOB), _EACH),
                panel(
                    "Where it runs",
                    greatest(consumers.HERE, "consumer, instance", JOB),
                    "{{consumer}} {{instance}}",
                    "bool",
                ),
            ],
        ),
        Row(
            "Batches",
            [
                panel(
                    "Events handled",
                    per_second(f"{consumers.BATCH_EVENTS.name}_sum", "consumer", JOB),
                    _EACH,
                    "reqps",
                ),
                panel("Events in a batch", average(consumers.BATCH_EVENTS, "consumer", JOB), _EACH),
                panel(
                    "Time of a batch, 95 %",
                    quantile(0.95, consumers.BATCH_SECONDS, "consumer", JOB),
                    _EACH,
                    "s",
                ),
            ],
        ),
        Row(
            "Failures",
            [
                panel("Held up", greatest(consumers.PROBLEM, "consumer", JOB), _EACH, "bool"),
                panel(
                    "Batches that failed",
                    per_second(consumers.FAILURES, "consumer, reason", JOB),
                    "{{consumer}} {{reason}}",
                    "reqps",
                ),
                panel("Dead letters", greatest(consumers.DEAD_LETTERS, "consumer", JOB), _EACH, alarming=1),
                panel("Set aside", per_second(consumers.PARKED, "consumer", JOB), _EACH, "reqps"),
            ],
        ),
    ],
)
