"""The plot as SVG, from the JSON of the results: every ratio as a bar from 1, and rates as lines along sizes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from proof.bench.report import number

_WIDTH, _ROW, _HIGH = 1200, 18, 220
_LEFT, _RIGHT = 390, 740
"""Where the bars' axis runs."""
_COLOURS = {"baseline": "#999999", "choreography": "#4477aa", "orchestration": "#ee6677", "": "#228833"}
_STYLE = (
    "text{font:12px sans-serif;fill:#222}.title{font-weight:bold;font-size:14px}"
    ".axis{fill:#888;font-size:11px}line{stroke:#ddd}.one{stroke:#888}"
)

Json = Mapping[str, Any]
Rows = Sequence[Json]
Line = list[tuple[float, float]]


def draw(folder: Path) -> None:
    """Writes ``results.svg`` from ``results.json`` and ``sizes.json``, as far as they are there."""
    sections = [*_sections(folder / "results.json"), *_sections(folder / "sizes.json")]
    parts: list[str] = []
    top = 0
    for title, rows in sections:
        if bars := _on_the_axis(rows):
            top = _place(parts, top, title, *_bars(bars))
        if lines := _by_system(rows):
            top = _place(parts, top, f"{title}, {rows[0]['unit']}", *_lines(lines))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}">'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    (folder / "results.svg").write_text(
        "\n".join([head, f"<style>{_STYLE}</style>", ground, *parts, "</svg>"]) + "\n"
    )


def _sections(path: Path) -> Iterator[tuple[str, Rows]]:
    if path.exists():
        yield from json.loads(path.read_text())["sections"].items()


def _on_the_axis(rows: Rows) -> Rows:
    """Those that get a bar. A logarithmic axis has no 0, which is what an idle process costs."""
    return [row for row in rows if not _size(row) and row["ratio"]]


def _place(parts: list[str], top: int, title: str, drawn: str, height: int) -> int:
    """Puts a chart under those before; gives where the next one starts."""
    parts.append(f'<text x="10" y="{top + 24}" class="title">{escape(title)}</text>')
    parts.append(f'<g transform="translate(0 {top + 32})">{drawn}</g>')
    return top + height + 44


def _size(row: Json) -> float:
    """The size in "… at 1,000 orders"; 0 where there is none."""
    found = row["what"].rpartition(" at ")[2].split()[0].replace(",", "")
    return float(found) if found.isdecimal() else 0


def _by_system(rows: Rows) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for row in rows:
        if _size(row):
            lines.setdefault(row["what"].rpartition(" at ")[0], []).append((_size(row), row["value"]))
    return lines


class _Axis:
    """Logarithmic, so that half as much is as far from 1 as twice as much."""

    def __init__(self, ratios: Sequence[float]) -> None:
        self._least = math.floor(math.log10(min([*ratios, 1])))
        self._most = max(math.ceil(math.log10(max([*ratios, 1]))), self._least + 1)
        self.marks = [10.0**exponent for exponent in range(self._least, self._most + 1)]

    def at(self, ratio: float) -> float:
        return _LEFT + (math.log10(ratio) - self._least) / (self._most - self._least) * (_RIGHT - _LEFT)


def _bars(rows: Rows) -> tuple[str, int]:
    axis, height = _Axis([row["ratio"] for row in rows]), len(rows) * _ROW
    parts = []
    for mark in axis.marks:
        x, kind = axis.at(mark), ' class="one"' if mark == 1 else ""
        parts.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height}"{kind}/>')
        parts.append(f'<text x="{x:.1f}" y="-8" text-anchor="middle" class="axis">{mark:g} ×</text>')
    for place, row in enumerate(rows):
        y = place * _ROW
        left, right = sorted((axis.at(1), axis.at(row["ratio"])))
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(row["what"])}</text>')
        parts.append(
            f'<rect x="{left - 1:.1f}" y="{y + 3}" width="{right - left + 2:.1f}" height="{_ROW - 6}" '
            f'fill="{_colour(row["what"])}"/>'
        )
        parts.append(f'<text x="{_RIGHT + 14}" y="{y + 13}">{escape(_said(row))}</text>')
    return "".join(parts), height


def _said(row: Json) -> str:
    met = f"   {'✓' if row['met'] else '✗'} {row['target']}" if row["target"] else ""
    return f"{number(row['value'])} {row['unit']}, {number(row['ratio'])} × {row['base']}{met}"


def _colour(what: str) -> str:
    return next(colour for name, colour in _COLOURS.items() if what.startswith(name))


def _lines(lines: Mapping[str, Line]) -> tuple[str, int]:
    """Along a logarithmic axis, since sizes go by powers of ten."""
    points = [point for line in lines.values() for point in line]
    exponents = [math.log10(x) for x, _ in points]
    least, span = min(exponents), (max(exponents) - min(exponents)) or 1.0
    most = max(y for _, y in points)

    def at(x: float, y: float) -> tuple[float, float]:
        return 80 + (math.log10(x) - least) / span * 560, _HIGH - y / most * (_HIGH - 20)

    parts = [f'<path d="M80 0V{_HIGH}H640" stroke="#888" fill="none"/>']
    parts.append(f'<text x="74" y="24" text-anchor="end">{most:,.0f}</text>')
    for x in sorted({x for x, _ in points}):
        parts.append(f'<text x="{at(x, 0)[0]:.1f}" y="{_HIGH + 16}" text-anchor="middle">{x:,.0f}</text>')
    for name, line in lines.items():
        colour = _colour(name)
        drawn = [at(*point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        parts.append(f'<polyline points="{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in drawn]
        parts.append(f'<text x="660" y="{drawn[-1][1] + 4:.1f}" style="fill:{colour}">{escape(name)}</text>')
    return "".join(parts), _HIGH + 24
