"""An audit of the shop as text; print the lines with stack.console."""

from __future__ import annotations

from datetime import datetime

from rich.text import Text

from twinlog.audit import Report, report_lines, violation_lines

report, violation = report_lines, violation_lines


def summary(audited: Report, now: datetime) -> Text:
    """One round of a watch, in one line."""
    figures, total = audited.figures, sum(audited.counts.values())
    events = " ".join(f"{log} {count}" for log, count in figures.events.items())
    lags = [
        f"{name} {max(lag.values(), default=0)}"
        for name, lag in (
            ("streams", figures.twin_lag),
            ("views", figures.view_lag),
            ("consumers", figures.consumer_lag),
        )
    ]
    pending = figures.domain["orders"].get("pending", 0)
    return Text.assemble(
        f"{now:%H:%M:%S} ",
        (f"✗ {total}", "red") if total else ("✓", "green"),
        f"  {events} · lag: {' '.join(lags)} · pending {pending} · {audited.took.total_seconds():.2f} s",
    )
