"""What a dashboard is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

_BY = re.compile(r"by \(([\w, ]+)\)")
Unit = Literal["short", "s", "reqps", "bytes", "percentunit", "bool"]


class Query(NamedTuple):
    """A line of a picture, or several."""

    expression: str
    legend: str
    """Names each line, such as ``{{job}}``."""


class Panel(NamedTuple):
    """A picture."""

    title: str
    queries: Sequence[Query]
    unit: Unit = "short"
    meaning: str = ""
    """What to make of it."""
    kind: Literal["timeseries", "stat"] = "timeseries"
    alarming: float | None = None
    """From this value on it is shown in red."""


class Row(NamedTuple):
    """Pictures under one heading."""

    title: str
    panels: Sequence[Panel]


class Dashboard(NamedTuple):
    """A page of Grafana."""

    uid: str
    title: str
    meaning: str
    rows: Sequence[Row]
    several_jobs: bool = True
    """Whether it shows several services at once."""


def panel(title: str, expression: str, unit: Unit = "short", *, legend: str = "", **how: object) -> Panel:
    """A picture of one expression; ``legend``: by default the labels that it keeps apart."""
    query = Query(expression, legend or _labels_kept(expression))
    return Panel(title, [query], unit, **how)  # type: ignore[arg-type]


def _labels_kept(expression: str) -> str:
    kept = _BY.search(expression)
    return " ".join(f"{{{{{label}}}}}" for label in kept[1].split(", ") if label != "le") if kept else ""
