"""The dashboard that one looks at first: all services, what they do, and what is wrong."""

from __future__ import annotations

from twinlog.observe.dashboards.panels import Dashboard, Panel, Query, Row, panel
from twinlog.observe.dashboards.promql import JOB, greatest, per_second, quantile, total
from twinlog.observe.metrics import (
    commands,
    consumers,
    event_loop,
    log,
    pages,
    problems,
    sagas,
    scrape,
    twins,
)

_ATTENTION = 'status="NEEDS_ATTENTION"'

OVERVIEW = Dashboard(
    "twinlog-overview",
    "Twinlog: overview",
    "All services: traffic, delays and what is wrong.",
    [
        Row(
            "How it is",
            [
                panel(
                    "Processes that answer",
                    total(scrape.UP, "job", JOB),
                    kind="stat",
                    meaning="Processes whose event loop answers. Fewer than there are replicas: one hangs or is down.",
                ),
                panel(
                    "Not serving",
                    f"count by (job) ({problems.SERVING.name}{{{JOB}}} == 0) or vector(0)",
                    kind="stat",
                    alarming=1,
                    meaning="Processes whose health is NOT_SERVING.",
                ),
                panel(
                    "Events set aside",
                    f"sum({greatest(consumers.DEAD_LETTERS, 'consumer', JOB)})",
                    legend="dead letters",
                    kind="stat",
                    alarming=1,
                    meaning="Dead letters of all consumers.",
                ),
                panel(
                    "Sagas that need attention",
                    f"sum({greatest(sagas.SAGAS, 'saga', JOB, _ATTENTION)}) or vector(0)",
                    legend="sagas",
                    kind="stat",
                    alarming=1,
                    meaning="They wait for an operator.",
                ),
                panel(
                    "Signals",
                    greatest(problems.PROBLEM, "job, signal", JOB),
                    "bool",
                    meaning="Health checks that call for an operator while traffic goes on.",
                ),
            ],
        ),
        Row(
            "What it does",
            [
                panel("Calls", per_second(commands.CALLS, "job", JOB), "reqps"),
                panel(
                    "Calls that failed",
                    per_second(commands.CALLS, "job, reason", JOB, 'reason!="OK"'),
                    "reqps",
                ),
                panel(
                    "Time to the answer, 99 % of calls", quantile(0.99, commands.DURATION, "job", JOB), "s"
                ),
                panel("Events appended", per_second(log.EVENTS, "log", JOB), "reqps"),
                panel(
                    "Processor time",
                    per_second("process_cpu_seconds_total", "job", JOB),
                    "percentunit",
                    meaning="Of one processor; a process of Python uses little more than one.",
                ),
                panel("Delay of the event loop, 99 %", quantile(0.99, event_loop.LAG, "job", JOB), "s"),
            ],
        ),
        Row(
            "How far behind",
            [
                panel("Consumers", greatest(consumers.LAG_SECONDS, "consumer", JOB), "s"),
                panel("Relays", greatest(twins.LAG_SECONDS, "log", JOB), "s"),
                panel(
                    "From event to effect, 95 % of batches",
                    quantile(0.95, consumers.AGE, "consumer", JOB),
                    "s",
                ),
            ],
        ),
        Row(
            "The console",
            [
                panel("Pages asked for", per_second(pages.REQUESTS, "page, status", JOB), "reqps"),
                panel("Time to the page, 95 %", quantile(0.95, pages.DURATION, "page", JOB), "s"),
                Panel(
                    "Watched now",
                    [
                        Query(greatest(pages.VIEWERS, "job", JOB), "viewers"),
                        Query(greatest(pages.LOADED, "job", JOB), "URLs"),
                    ],
                    meaning="Each URL is loaded once a second, however many watch it.",
                ),
            ],
        ),
    ],
)
