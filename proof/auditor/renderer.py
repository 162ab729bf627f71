"""An audit as text of at most 100 columns, colored on a terminal; print the lines with stack.console."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime

from rich.text import Text

from proof.auditor.report import Report, Violation
from stack.console import WIDTH

_NBSP = "\u00a0"


def report(audited: Report) -> Iterator[Text]:
    """The whole report: figures, violations, notes and the verdict."""
    yield from _figures(audited)
    yield Text()
    for each in audited.violations:
        yield from violation(each)
    for check, count in audited.counts.items():
        shown = sum(each.check == check for each in audited.violations)
        if count > shown:
            yield Text(f"… and {count - shown} more of: {check}")
    for note in audited.notes:
        yield from _wrapped(Text("· ", "yellow"), note)
    yield _verdict(audited)


def violation(found: Violation) -> Iterator[Text]:
    """One violation, with everything that is known about it."""
    yield from _wrapped(Text("✗ ", "red"), f"{found.check}: {found.says}")
    if found.ids:
        yield from _wrapped(Text("  ids     "), ", ".join(found.ids))
    if found.events:
        yield from _wrapped(Text("  events  "), ", ".join(found.events))
    # In one line however long, to be copied.
    yield Text.assemble("  mend    ", (found.remedy, "bold"))


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
    pending = figures.orders.get("pending", 0)
    return Text.assemble(
        f"{now:%H:%M:%S} ",
        (f"✗ {total}", "red") if total else ("✓", "green"),
        f"  {events} · lag: {' '.join(lags)} · pending {pending} · {audited.took.total_seconds():.2f} s",
    )


def _figures(audited: Report) -> Iterator[Text]:
    figures = audited.figures
    rows = {
        "events": figures.events,
        "stream lag": figures.twin_lag,
        "view lag": figures.view_lag,
        "consumer lag": figures.consumer_lag,
        "orders": figures.orders,
        "sagas": figures.sagas,
        "besides": {"customers": figures.customers, "aggregates": figures.streams},
        "parked": figures.parked,
        "compared": figures.checked,
    }
    for title, values in rows.items():
        yield from _row(title, values)


def _row(title: str, values: Mapping[str, int]) -> Iterator[Text]:
    if values:
        text = "   ".join(f"{name}{_NBSP}{count:,}" for name, count in values.items())
        yield from _wrapped(Text(f"{title:<14}", "dim"), text)


def _verdict(audited: Report) -> Text:
    """Whether the shop is clean, and whether everything was settled."""
    total = sum(audited.counts.values())
    word = "violation" if total == 1 else "violations"
    state = "settled: everything was checked"
    if not audited.settled:
        state = f"in flight, and so not judged: {'; '.join(audited.in_flight)}"
    return Text.assemble(
        (f"✗ {total} {word}", "red") if total else ("✓ no violation", "green"),
        f" · {state} · {audited.took.total_seconds():.1f} s",
    )


def _wrapped(first: Text, text: str) -> Iterator[Text]:
    """The text after ``first``, with later lines indented as far."""
    rest = Text(" " * len(first))
    for number, line in enumerate(textwrap.wrap(text, WIDTH - len(first), break_on_hyphens=False)):
        yield Text.assemble(rest if number else first, line.replace(_NBSP, " "))
