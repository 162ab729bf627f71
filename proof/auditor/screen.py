"""An audit for eyes: plain text of at most 100 columns, coloured on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime

from proof.auditor.report import Report, Violation

WIDTH = 100

_RED, _GREEN, _YELLOW, _DIM, _BOLD = "31", "32", "33", "2", "1"


class Screen:
    """Makes lines of reports."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def report(self, report: Report) -> Iterator[str]:
        """The whole report."""
        yield from self.figures(report)
        yield ""
        for violation in report.violations:
            yield from self.violation(violation)
        for check, count in report.counts.items():
            shown = sum(violation.check == check for violation in report.violations)
            if count > shown:
                yield f"… and {count - shown} more of: {check}"
        for note in report.notes:
            yield from _wrap(self._paint(_YELLOW, "· "), note, "  ")
        yield self.verdict(report)

    def figures(self, report: Report) -> Iterator[str]:
        """What there is."""
        figures = report.figures
        yield from self._row("events", figures.events)
        yield from self._row("stream lag", figures.twin_lag)
        yield from self._row("view lag", figures.view_lag)
        yield from self._row("consumer lag", figures.consumer_lag)
        yield from self._row("orders", figures.orders)
        yield from self._row("sagas", figures.sagas)
        yield from self._row(
            "besides",
            {"customers": figures.customers, "aggregates": figures.streams},
        )
        yield from self._row("parked", figures.parked)
        yield from self._row("compared", figures.checked)

    def violation(self, violation: Violation) -> Iterator[str]:
        """One violation with everything that is known of it."""
        yield from _wrap(self._paint(_RED, "✗ "), f"{violation.check}: {violation.says}", "  ")
        if violation.ids:
            yield from _wrap("  ids     ", ", ".join(violation.ids), " " * 10)
        if violation.events:
            yield from _wrap("  events  ", ", ".join(violation.events), " " * 10)
        # Not wrapped: it is there to be copied.
        yield f"  mend    {self._paint(_BOLD, violation.remedy)}"

    def verdict(self, report: Report) -> str:
        """One line: clean or not, settled or not."""
        total = sum(report.counts.values())
        word = "violation" if total == 1 else "violations"
        result = self._paint(_RED, f"✗ {total} {word}") if total else self._paint(_GREEN, "✓ no violation")
        took = f"{report.took.total_seconds():.1f} s"
        if report.settled:
            return f"{result} · settled: everything was checked · {took}"
        return f"{result} · in flight, and so not judged: {'; '.join(report.in_flight)} · {took}"

    def line(self, report: Report, now: datetime) -> str:
        """A round of the watch."""
        figures, total = report.figures, sum(report.counts.values())
        events = " ".join(f"{log} {count}" for log, count in figures.events.items())
        lags = [
            f"{name} {max(lag.values(), default=0)}"
            for name, lag in (
                ("streams", figures.twin_lag),
                ("views", figures.view_lag),
                ("consumers", figures.consumer_lag),
            )
        ]
        result = self._paint(_RED, f"✗ {total}") if total else self._paint(_GREEN, "✓")
        pending = figures.orders.get("pending", 0)
        return (
            f"{now:%H:%M:%S} {result}  {events} · lag: {' '.join(lags)} · pending {pending}"
            f" · {report.took.total_seconds():.2f} s"
        )

    def trouble(self, text: str) -> str:
        """Something that keeps an audit from going on."""
        return self._paint(_YELLOW, text)

    def _row(self, title: str, values: Mapping[str, int]) -> Iterator[str]:
        if values:
            text = "   ".join(f"{name}\u00a0{count:,}" for name, count in values.items())
            yield from _wrap(self._paint(_DIM, f"{title:<14}"), text, " " * 14)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _wrap(first: str, text: str, rest: str) -> Iterator[str]:
    lines = textwrap.wrap(text, WIDTH - len(rest), break_on_hyphens=False, drop_whitespace=True)
    for number, line in enumerate(lines):
        yield f"{rest if number else first}{line}".replace("\u00a0", " ")
