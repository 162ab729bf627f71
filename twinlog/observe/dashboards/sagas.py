"""The dashboard of sagas: where they stand, how they end, and which wait for somebody."""

from __future__ import annotations

from twinlog.observe.dashboards.panels import Dashboard, Row, panel
from twinlog.observe.dashboards.promql import JOB, greatest, per_second
from twinlog.observe.metrics import log, sagas, timers

_OF = "aggregate, type"


def _events(*types: str) -> str:
    wanted = "|".join(types)
    return per_second(log.EVENTS, _OF, JOB, f'type=~"twinlog[.]v1[.]({wanted})"')


SAGAS = Dashboard(
    "twinlog-sagas",
    "Twinlog: sagas",
    "Where sagas stand, how they end, and which wait for somebody.",
    [
        Row(
            "Now",
            [
                panel("Not ended", greatest(sagas.SAGAS, "saga, status", JOB)),
                panel(
                    "The oldest",
                    greatest(sagas.OLDEST, "saga, status", JOB),
                    "s",
                    meaning="From its start. One that waits for a person may be old; one that waits for a service not.",
                ),
                panel(
                    "Need attention",
                    greatest(sagas.SAGAS, "saga", JOB, 'status="NEEDS_ATTENTION"'),
                    kind="stat",
                    alarming=1,
                ),
                panel(
                    "Oldest timer that is due",
                    greatest(timers.OLDEST, "log", JOB),
                    "s",
                    meaning="Deadlines and delays of sagas are timers of their log.",
                ),
            ],
        ),
        Row(
            "Over time",
            [
                panel(
                    "Started and ended", _events("SagaStarted", "SagaCompleted", "SagaCompensated"), "reqps"
                ),
                panel("Ended, by status", per_second(sagas.ENDED, "saga, status", JOB), "reqps"),
                panel("Steps", _events("SagaStepSucceeded", "SagaStepFailed"), "reqps"),
                panel(
                    "Compensations", _events("SagaStepCompensated", "SagaInterrupted", "SagaAborted"), "reqps"
                ),
                panel(
                    "Interventions",
                    _events("SagaNeedsAttention", "SagaRetryRequested", "SagaStepSkipped", "SagaAborted"),
                    "reqps",
                    meaning="What sagas asked operators for, and what those did.",
                ),
            ],
        ),
    ],
)
