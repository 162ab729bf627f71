"""The plot: bars and lines as SVG, from the JSON of the results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

_WIDTH, _ROW, _LABEL, _BAR = 900, 22, 330, 420
_HIGH = 220
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")

Bars = Sequence[tuple[str, float]]
Line = Sequence[tuple[float, float]]
Json = Mapping[str, Any]


def draw(folder: Path) -> None:
    """Writes ``results.svg`` from ``results.json`` and ``sizes.json``, as far as they are there."""
    parts: list[str] = []
    top = 0
    for title, content in _charts(folder):
        drawn, height = _lines(content) if isinstance(content, dict) else _bars(content)
        parts.append(f'<text x="10" y="{top + 24}" class="title">{escape(title)}</text>')
        parts.append(f'<g transform="translate(0 {top + 36})">{drawn}</g>')
        top += height + 50
    style = "text{font:13px sans-serif;fill:#222}.title{font-weight:bold;font-size:15px}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}">'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    (folder / "results.svg").write_text(
        "\n".join([head, f"<style>{style}</style>", ground, *parts, "</svg>"]) + "\n"
    )


def _charts(folder: Path) -> Iterator[tuple[str, Bars | dict[str, Line]]]:
    for title, rows in _sections(folder / "results.json"):
        for unit in dict.fromkeys(row["unit"] for row in rows):
            bars = [(row["what"], row["value"]) for row in rows if row["unit"] == unit and row["value"]]
            if bars:
                yield f"{title}, {unit}", bars
    for title, rows in _sections(folder / "sizes.json"):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            name, _, at = row["what"].rpartition(" at ")
            if name and row["value"]:
                lines.setdefault(name, []).append((float(at.split()[0].replace(",", "")), row["value"]))
        if lines:
            yield f"{title}, {rows[0]['unit']}", dict(lines)


def _sections(path: Path) -> Iterator[tuple[str, Sequence[Json]]]:
    if path.exists():
        yield from json.loads(path.read_text())["sections"].items()


def _bars(bars: Bars) -> tuple[str, int]:
    most = max(value for _, value in bars)
    parts = []
    for number, (label, value) in enumerate(bars):
        y = number * _ROW
        length = max(1.0, value / most * _BAR)
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
        parts.append(
            f'<rect x="{_LABEL}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 6}" fill="{colour}"/>'
        )
        parts.append(f'<text x="{_LABEL + length + 6:.1f}" y="{y + 15}">{value:,.4g}</text>')
    return "".join(parts), len(bars) * _ROW


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
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        parts.append(f'<polyline points="{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in (at(*p) for p in line)
        ]
        parts.append(f'<text x="660" y="{20 + number * 18}" style="fill:{colour}">{escape(name)}</text>')
    return "".join(parts), _HIGH + 24
