"""The results: one table for people, the same as JSON for the plot and for comparisons."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median


@dataclass
class Row:
    """One line of the table."""

    what: str
    unit: str
    values: list[float] = field(default_factory=list)
    """One a round; the table shows the median."""
    ratios: list[float] = field(default_factory=list)
    """To the floor's value of the same round."""
    target: str = ""
    """What the ratio or the value should be."""
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
        sign, kind = "≤" if most else "≥", "× floor" if value is None else self.unit
        self.target = f"{sign} {wanted:,.6g} {kind}"
        self.met = reached <= wanted if most else reached >= wanted
        return self


def markdown(rows: Sequence[Row], note: str) -> str:
    """The table."""
    lines = [
        "| | median | lowest – highest | × floor | target | met |",
        "| :-- | --: | --: | --: | :-- | :-: |",
    ]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        spread = f"{_number(min(row.values))} – {_number(max(row.values))}" if len(row.values) > 1 else ""
        met = {None: "", True: "yes", False: "no"}[row.met]
        lines.append(
            f"| {row.what} | {_number(row.value)} {row.unit} | {spread} | {ratio} | {row.target} | {met} |"
        )
    return "\n".join([*lines, "", note])


def write(folder: Path, name: str, rows: Sequence[Row], note: str) -> str:
    """Writes ``<name>.md`` and ``.json``; gives the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(rows, f"{note} {_machine()}")
    (folder / f"{name}.md").write_text(f"# {name.capitalize()}\n\n{text}\n")
    found = [{**asdict(row), "value": row.value, "ratio": row.ratio} for row in rows]
    (folder / f"{name}.json").write_text(json.dumps({"machine": _machine(), "rows": found}, indent=1) + "\n")
    return text


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _machine() -> str:
    """Where and when; load above the number of cores means that others were at work too."""
    load = os.getloadavg()[2]
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load average {load:.1f}."
    )
