"""The results: one table for people, the same as JSON for the plot and for comparisons."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

_HEAD = ("", "median", "lowest – highest", "ratio", "to what", "target", "met")
_SIDES = "<>>><<^"


@dataclass
class Row:
    """One line of the table."""

    what: str
    unit: str
    base: str = ""
    """What the ratio is to, measured in the same run."""
    values: list[float] = field(default_factory=list)
    """One a round; the table shows the median."""
    ratios: list[float] = field(default_factory=list)
    """One a round, to the base's value of the same round. No row is without."""
    target: str = ""
    """What the ratio or the value should be."""
    met: bool | None = None

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    def add(self, value: float, to: float) -> Row:
        """The value of a round, and the base's of the same round."""
        self.values.append(value)
        self.ratios.append(value / to)
        return self

    def aim(self, *, value: float | None = None, ratio: float | None = None, most: bool = False) -> Row:
        """Sets the target: at least so much; at most, where ``most``."""
        wanted, reached, unit = (ratio, self.ratio, "×") if value is None else (value, self.value, self.unit)
        assert wanted is not None
        self.target = f"{'≤' if most else '≥'} {wanted:,.6g} {unit}"
        self.met = reached <= wanted if most else reached >= wanted
        return self


Sections = Mapping[str, Sequence[Row]]
"""The table's rows by title."""


def markdown(sections: Sections, notes: Sequence[str] = ()) -> str:
    """The table, how many targets are met, the notes."""
    lines: list[Sequence[str]] = []
    for title, rows in sections.items():
        lines += [(f"**{title}**", *[""] * (len(_HEAD) - 1)), *map(_line, rows)]
    aims = [row for rows in sections.values() for row in rows if row.target]
    return "\n".join([*table(_HEAD, _SIDES, lines), "", *(f"{line}\n" for line in (*_count(aims), *notes))])


def _line(row: Row) -> Sequence[str]:
    spread = f"{number(min(row.values))} – {number(max(row.values))}" if len(row.values) > 1 else ""
    ratio = f"{row.ratio:,.2f}" if row.ratio >= 0.1 else f"{row.ratio:.2g}"
    met = {True: "✓", False: "✗", None: ""}[row.met]
    return row.what, f"{number(row.value)} {row.unit}", spread, ratio, row.base, row.target, met


def _count(aims: Sequence[Row]) -> Iterable[str]:
    missed = [f"{row.what} ({row.target})" for row in aims if not row.met]
    if aims:
        yield f"{len(aims) - len(missed)} of {len(aims)} targets met" + (
            f"; missed: {', '.join(missed)}." if missed else "."
        )


def table(head: Sequence[str], sides: str, lines: Iterable[Sequence[str]]) -> list[str]:
    """In Markdown, padded for reading in a terminal. ``sides``: <, > or ^ a column, as in formats."""
    cells = [head, *lines]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    columns = list(zip(sides, widths, strict=True))
    rules = {"<": ":{}-", ">": "-{}:", "^": ":{}:"}
    rule = [rules[side].format("-" * (width - 2)) for side, width in columns]
    padded = [
        [f"{cell:{side}{width}}" for cell, (side, width) in zip(line, columns, strict=True)] for line in cells
    ]
    return [f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:])]


def write(folder: Path, name: str, sections: Sections, notes: Sequence[str]) -> str:
    """Writes ``<name>.md`` and ``.json``; gives the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(sections, [*notes, machine()])
    (folder / f"{name}.md").write_text(f"# {name.capitalize()}\n\n{text}")
    found = {title: [_as_json(row) for row in rows] for title, rows in sections.items()}
    content = {"machine": machine(), "sections": found}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return text


def _as_json(row: Row) -> dict[str, object]:
    return {**asdict(row), "value": row.value, "ratio": row.ratio}


def number(value: float) -> str:
    """To three digits, or to the whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    """Where and when; load above the number of cores means that others were at work too."""
    load = os.getloadavg()[2]
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load average {load:.1f}."
    )
