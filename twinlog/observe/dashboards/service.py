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
from twinlog.observe.metrics.metric import Metric


def _shares(title: str, histogram: Metric) -> Panel:
    shares = (0.5, 0.95, 0.99)
    return Panel(title, [Query(quantile(each, histogram, "job", JOB), f"{each:.0%}") for each in shares], "s")


SERVICE = Dashboard(
    "twinlog-service",
    "Twinlog: one service",
    "One service: its calls, its log, and what its processes are short of.",
    [
        Row(
            "Calls",
            [
                panel("By method", per_second(commands.CALLS, "method", JOB), "reqps"),
                panel(
                    "That failed", per_second(commands.CALLS, "method, reason", JOB, 'reason!="OK"'), "reqps"
                ),
                _shares("Time to the answer", commands.DURATION),
                panel(
                    "Open streams",
                    f"sum by (method) ({commands.OPEN.name}{{{JOB}}})",
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
                panel("Waiting units", greatest(writer.WAITING, "instance, origin", JOB)),
                panel(
                    "Refused for overload",
                    per_second(commands.CALLS, "reason", JOB, 'reason=~"OVERLOADED|TOO_MANY_.*"'),
                    "reqps",
                ),
            ],
        ),
        Row(
            "Log",
            [
                panel("Events by type", per_second(log.EVENTS, "type", JOB), "reqps"),
                _shares("Time of an append", log.APPEND_SECONDS),
                panel("Events in an append", average(log.APPEND_EVENTS, "job", JOB), legend="mean"),
                panel("Units in a batch", average(writer.BATCH, "job", JOB), legend="mean"),
                panel("Conflicts", per_second(log.CONFLICTS, "kind", JOB), "reqps"),
                panel("Appends without answer", per_second(log.APPEND_FAILURES, "reason", JOB), "reqps"),
                _shares("Time of a load", log.LOAD_SECONDS),
                panel(
                    "Streams loaded", per_second(log.LOADED_STREAMS, "job", JOB), "reqps", legend="streams"
                ),
                panel("Oldest append", greatest(writer.APPEND_AGE, "instance", JOB), "s"),
                panel("Not copied yet", greatest(twins.LAG_EVENTS, "log", JOB)),
                panel("Timers due", greatest(timers.DUE, "log", JOB)),
                panel("Snapshots saved", per_second(log.SNAPSHOTS, "log", JOB), "reqps"),
                panel("Unreadable streams", greatest(writer.UNREADABLE, "instance", JOB)),
            ],
        ),
        Row(
            "Process",
            [
                panel(
                    "Processor time", per_second("process_cpu_seconds_total", "instance", JOB), "percentunit"
                ),
                panel("Memory", f"process_resident_memory_bytes{{{JOB}}}", "bytes", legend="{{instance}}"),
                panel("Open files", f"process_open_fds{{{JOB}}}", legend="{{instance}}"),
                panel("Delay of the event loop, 99 %", quantile(0.99, event_loop.LAG, "instance", JOB), "s"),
                panel("Tasks", greatest(event_loop.TASKS, "instance", JOB)),
                panel("Connections", greatest(pool.CONNECTIONS, "instance, state", JOB)),
                panel("Leases", greatest(leases.HELD, "instance, lease", JOB), "bool"),
                panel("Clock ahead", greatest(clocks.AHEAD, "instance", JOB), "s"),
                panel("Signals", greatest(problems.PROBLEM, "signal", JOB), "bool"),
            ],
        ),
    ],
    several_jobs=False,
)
