"""The results: one page for people, the same as JSON for the plot and for comparisons."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median


@dataclass
class Row:
    """One line of a table."""

    what: str
    unit: str
    values: list[float] = field(default_factory=list)
    """One a round; the table shows the median."""
    ratios: list[float] = field(default_factory=list)
    """To the floor's value of the same round."""
    target: str = ""
    """What the ratio or the value should be."""
    measured: str = ""
    """What the target is compared with."""
    met: bool | None = None

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def ratio(self) -> float | None:
        return median(self.ratios) if self.ratios else None

    def aim(self, *, value: float | None = None, ratio: float | None = None, most: bool = False) -> Row:
        """Sets the target: at least so much; at most, where ``most``."""
        wanted = ratio if value is None else value
        reached = self.ratio if value is None else self.value
        assert wanted is not None and reached is not None
        unit = "× floor" if value is None else self.unit
        self.target = f"{'≤' if most else '≥'} {wanted:,.6g} {unit}"
        self.measured = f"{_number(reached)} {unit}"
        self.met = reached <= wanted if most else reached >= wanted
        return self


Sections = Mapping[str, Sequence[Row]]
"""Tables by title."""


def markdown(sections: Sections, notes: Sequence[str] = ()) -> str:
    """The targets, then every table, then the notes."""
    aims = [row for rows in sections.values() for row in rows if row.target]
    targets = [f"| {row.what} | {row.target} | {row.measured} | {'✓' if row.met else '✗'} |" for row in aims]
    parts = []
    if targets:
        parts += ["## Targets", "", "| | target | measured | |", "| :-- | :-- | :-- | :-: |", *targets, ""]
    for title, rows in sections.items():
        parts += [f"## {title}", "", *_table(rows), ""]
    return "\n".join([*parts, *(f"{note}\n" for note in notes)])


def _table(rows: Sequence[Row]) -> list[str]:
    return ["| | median | lowest – highest | × floor |", "| :-- | --: | --: | --: |", *map(_line, rows)]


def _line(row: Row) -> str:
    if not row.values:
        return f"| {row.what} | not measured | | |"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    spread = f"{_number(min(row.values))} – {_number(max(row.values))}" if len(row.values) > 1 else ""
    return f"| {row.what} | {_number(row.value)} {row.unit} | {spread} | {ratio} |"


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
    return {**asdict(row), "value": row.value if row.values else None, "ratio": row.ratio}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> str:
    """Where and when; load above the number of cores means that others were at work too."""
    load = os.getloadavg()[2]
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load average {load:.1f}."
    )
