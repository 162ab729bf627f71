"""An audit as text of at most 100 columns, styled where it is printed on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.text import Text

from twinlog.audit.report import Report, Violation

WIDTH = 100
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


def _figures(audited: Report) -> Iterator[Text]:
    figures = audited.figures
    rows = {
        "events": figures.events,
        "stream lag": figures.twin_lag,
        "view lag": figures.view_lag,
        "consumer lag": figures.consumer_lag,
        **figures.domain,
        "besides": {**figures.domain.get("besides", {}), "aggregates": figures.streams},
        "parked": figures.parked,
        "compared": figures.checked,
    }
    for title, values in rows.items():
        if values:
            text = "   ".join(f"{name}{_NBSP}{count:,}" for name, count in values.items())
            yield from _wrapped(Text(f"{title:<14}", "dim"), text)


def _verdict(audited: Report) -> Text:
    """Whether the system is clean, and whether everything was settled."""
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
