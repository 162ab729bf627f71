"""Alert rules: what calls for somebody, and where it is written what to do.

Each has a section of its name in docs/how-to/alerts.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from twinlog.observe.dashboards.promql import greatest, per_second, quantile
from twinlog.observe.metrics import (
    clocks,
    commands,
    consumers,
    event_loop,
    problems,
    sagas,
    scrape,
    timers,
    twins,
    writer,
)

PAGE = "how-to/alerts.html"
"""The page of the runbooks, on the site that ``make docs`` builds."""


class Alert(NamedTuple):
    """A rule: it fires while ``measured compared`` holds, once it has held for ``lasting``."""

    name: str
    measured: str
    compared: str
    """What is too much, such as ``> 30``."""
    lasting: str
    severity: Literal["critical", "warning"]
    summary: str
    """In a sentence, with the labels of what is measured."""

    @property
    def expression(self) -> str:
        return f"{self.measured} {self.compared}"

    @property
    def anchor(self) -> str:
        """Of its section on the page of the runbooks."""
        return self.name.lower()


ALERTS: Sequence[Alert] = (
    Alert(
        "TwinlogDown",
        f"(up and on (job, instance) count_over_time({scrape.UP.name}[1d]))",
        "== 0",
        "1m",
        "critical",
        "{{ $labels.job }} at {{ $labels.instance }} is down, or Prometheus does not reach it.",
    ),
    Alert(
        "TwinlogHangs",
        greatest(scrape.UP, "job, instance"),
        "== 0",
        "30s",
        "critical",
        "The event loop of {{ $labels.job }} at {{ $labels.instance }} does not answer.",
    ),
    Alert(
        "TwinlogNotServing",
        greatest(problems.SERVING, "job, instance"),
        "== 0",
        "1m",
        "critical",
        "{{ $labels.job }} at {{ $labels.instance }} is NOT_SERVING.",
    ),
    Alert(
        "TwinlogConsumerBehind",
        greatest(consumers.LAG_SECONDS, "job, consumer, log"),
        "> 30",
        "1m",
        "critical",
        "{{ $labels.consumer }} is {{ $value | humanizeDuration }} behind log {{ $labels.log }}.",
    ),
    Alert(
        "TwinlogConsumerStopped",
        greatest(consumers.PROBLEM, "job, consumer, log"),
        "== 1",
        "2m",
        "warning",
        "{{ $labels.consumer }} is held up by an outage or a fault.",
    ),
    Alert(
        "TwinlogRelayNotCopying",
        greatest(twins.LAG_SECONDS, "job, log"),
        "> 10",
        "30s",
        "critical",
        "Events of log {{ $labels.log }} have not been copied into its stream for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "TwinlogChainStopped",
        # The head is to stand still, too: an import is sealed in pieces.
        f"(({greatest(twins.LOG_POSITION, 'job, log')} - {greatest(twins.CHAIN_POSITION, 'job, log')}) "
        f"and on (job, log) (max by (job, log) (changes({twins.CHAIN_POSITION.name}[5m])) == 0))",
        "> 0",
        "10m",
        "warning",
        "The last {{ $value }} events of log {{ $labels.log }} are not in its chain.",
    ),
    Alert(
        "TwinlogEventsParked",
        greatest(consumers.DEAD_LETTERS, "job, consumer, log"),
        "> 0",
        "1m",
        "warning",
        "{{ $labels.consumer }} has set {{ $value }} events of log {{ $labels.log }} aside.",
    ),
    Alert(
        "TwinlogSagaNeedsAttention",
        greatest(sagas.SAGAS, "job, saga", 'status="NEEDS_ATTENTION"'),
        "> 0",
        "1m",
        "critical",
        "{{ $value }} sagas {{ $labels.saga }} wait for an operator.",
    ),
    Alert(
        "TwinlogAppendWaiting",
        greatest(writer.APPEND_AGE, "job, instance, log"),
        "> 2",
        "15s",
        "critical",
        "The oldest append to log {{ $labels.log }} has been waiting for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "TwinlogTimersLate",
        greatest(timers.OLDEST, "job, log"),
        "> 30",
        "1m",
        "critical",
        "The oldest timer of log {{ $labels.log }} has been due for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "TwinlogStreamUnreadable",
        greatest(writer.UNREADABLE, "job, instance, log"),
        "> 0",
        "5m",
        "warning",
        "{{ $labels.job }} cannot read {{ $value }} streams of log {{ $labels.log }}.",
    ),
    Alert(
        "TwinlogLeaseNotRenewed",
        greatest(problems.PROBLEM, "job, instance", 'signal="leases"'),
        "== 1",
        "1m",
        "critical",
        "A lease that {{ $labels.job }} waits for is neither renewed nor given up.",
    ),
    Alert(
        "TwinlogClockOff",
        f"abs({greatest(clocks.AHEAD, 'job, instance')})",
        "> 1",
        "2m",
        "warning",
        "The clock of {{ $labels.instance }} and its database's differ by {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "TwinlogOverloaded",
        per_second(commands.CALLS, "job", 'reason=~"OVERLOADED|TOO_MANY_.*"', over="5m"),
        "> 0",
        "5m",
        "warning",
        "{{ $labels.job }} refuses {{ $value | humanize }} calls a second, because more is asked for than it can do.",
    ),
    Alert(
        "TwinlogEventLoopSlow",
        quantile(0.99, event_loop.LAG, "job, instance", over="5m"),
        "> 0.25",
        "5m",
        "warning",
        "The event loop of {{ $labels.job }} at {{ $labels.instance }} is late by {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "TwinlogScrapeIncomplete",
        greatest(scrape.FAILURES, "job, instance, concern"),
        "== 1",
        "5m",
        "warning",
        "{{ $labels.job }} cannot tell its metrics of {{ $labels.concern }}.",
    ),
)


def rules(docs: str) -> str:
    """The rules in YAML. ``docs``: the address of the documentation's site, for the links to the runbooks."""
    lines = ["groups:", "  - name: twinlog", "    rules:"]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {_quoted(alert.expression)}",
            f"        for: {alert.lasting}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {_quoted(alert.summary)}",
            f"          runbook_url: {_quoted(runbook(alert, docs))}",
        ]
    return "\n".join(lines) + "\n"


def runbook(alert: Alert, docs: str) -> str:
    """Where it is written what to do."""
    base = f"{docs.rstrip('/')}/" if docs else ""
    return f"{base}{PAGE}#{alert.anchor}"


def _quoted(text: str) -> str:
    """In YAML's single quotes, in which nothing but they themselves is special."""
    return "'" + text.replace("'", "''") + "'"
