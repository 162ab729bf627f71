"""The dashboard of one service: its calls, its log, and what its process is short of."""

from __future__ import annotations

from twinlog.observe.dashboards.panels import Dashboard, Panel, Query, Row, panel
from twinlog.observe.dashboards.promql import JOB, average, greatest, per_second, quantile
from twinlog.observe.metrics import (
    clocks,
    commands,
    event_loop,
    leases,
    log,
    pool,
    problems,
    timers,
    twins,
    writer,
)


def _shares(title: str, histogram: str) -> Panel:
    metric = {each.name: each for each in (commands.DURATION, log.APPEND_SECONDS, log.LOAD_SECONDS)}[
        histogram
    ]
    return Panel(
        title,
        [Query(quantile(share, metric, "job", JOB), f"{share:.0%}") for share in (0.5, 0.95, 0.99)],
        "s",
    )


SERVICE = Dashboard(
    "twinlog-service",
    "Twinlog: one service",
    "One service: its calls, its log, and what its processes are short of.",
    [
        Row(
            "Calls",
            [
                panel("By method", per_second(commands.CALLS, "method", JOB), "{{method}}", "reqps"),
                panel(
                    "That failed",
                    per_second(commands.CALLS, "method, reason", JOB, 'reason!="OK"'),
                    "{{method}} {{reason}}",
                    "reqps",
                ),
                _shares("Time to the answer", commands.DURATION.name),
                panel(
                    "Open streams",
                    f"sum by (method) ({commands.OPEN.name}{{{JOB}}})",
                    "{{method}}",
                    meaning="Watchers, for the most part.",
                ),
            ],
        ),
        Row(
            "Admission",
            [
                Panel(
                    "Unfinished work",
                    [
                        Query(greatest(writer.UNFINISHED, "instance", JOB), "unfinished {{instance}}"),
                        Query(greatest(writer.WINDOW, "instance", JOB), "most {{instance}}"),
                    ],
                    meaning="At the most, commands that begin something are refused as OVERLOADED.",
                ),
                panel(
                    "Waiting units",
                    greatest(writer.WAITING, "instance, origin", JOB),
                    "{{instance}} {{origin}}",
                ),
                panel(
                    "Refused for overload",
                    per_second(commands.CALLS, "reason", JOB, 'reason=~"OVERLOADED|TOO_MANY_.*"'),
                    "{{reason}}",
                    "reqps",
                ),
            ],
        ),
        Row(
            "Log",
            [
                panel("Events by type", per_second(log.EVENTS, "type", JOB), "{{type}}", "reqps"),
                _shares("Time of an append", log.APPEND_SECONDS.name),
                panel("Events in an append", average(log.APPEND_EVENTS, "job", JOB), "mean"),
                panel("Units in a batch", average(writer.BATCH, "job", JOB), "mean"),
                panel("Conflicts", per_second(log.CONFLICTS, "kind", JOB), "{{kind}}", "reqps"),
                panel(
                    "Appends without answer",
                    per_second(log.APPEND_FAILURES, "reason", JOB),
                    "{{reason}}",
                    "reqps",
                ),
                _shares("Time of a load", log.LOAD_SECONDS.name),
                panel("Streams loaded", per_second(log.LOADED_STREAMS, "job", JOB), "streams", "reqps"),
                panel("Oldest append", greatest(writer.APPEND_AGE, "instance", JOB), "{{instance}}", "s"),
                panel("Not copied yet", greatest(twins.LAG_EVENTS, "log", JOB), "{{log}}"),
                panel("Timers due", greatest(timers.DUE, "log", JOB), "{{log}}"),
                panel("Snapshots saved", per_second(log.SNAPSHOTS, "log", JOB), "{{log}}", "reqps"),
                panel("Unreadable streams", greatest(writer.UNREADABLE, "instance", JOB), "{{instance}}"),
            ],
        ),
        Row(
            "Process",
            [
                panel(
                    "Processor time",
                    per_second("process_cpu_seconds_total", "instance", JOB),
                    "{{instance}}",
                    "percentunit",
                ),
                panel("Memory", f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}", "bytes"),
                panel("Open files", f"process_open_fds{{{JOB}}}", "{{instance}}"),
                panel(
                    "Delay of the event loop, 99 %",
                    quantile(0.99, event_loop.LAG, "instance", JOB),
                    "{{instance}}",
                    "s",
                ),
                panel("Tasks", greatest(event_loop.TASKS, "instance", JOB), "{{instance}}"),
                panel(
                    "Connections",
                    greatest(pool.CONNECTIONS, "instance, state", JOB),
                    "{{instance}} {{state}}",
                ),
                panel(
                    "Leases", greatest(leases.HELD, "instance, lease", JOB), "{{instance}} {{lease}}", "bool"
                ),
                panel("Clock ahead", greatest(clocks.AHEAD, "instance", JOB), "{{instance}}", "s"),
                panel("Signals", greatest(problems.PROBLEM, "signal", JOB), "{{signal}}", "bool"),
            ],
        ),
    ],
    several_jobs=False,
)
