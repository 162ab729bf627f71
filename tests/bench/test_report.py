"""What the bench writes: the page, and the plot made from its JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import apart, plot, report
from bench.report import Row


def _rates() -> list[Row]:
    met = Row("fast: sagas", "sagas/s", [700, 800, 900], [0.7, 0.8, 0.9]).aim(ratio=0.6)
    missed = Row("slow: sagas", "sagas/s", [100], [0.1]).aim(ratio=0.4)
    return [met, missed, Row("free: sagas", "sagas/s", [1.5])]


def test_the_page_says_of_each_target_whether_it_is_met() -> None:
    page = report.markdown({"Rates": _rates()})
    assert "| fast: sagas | ≥ 0.6 × floor | 0.8 × floor | ✓ |" in page
    assert "| slow: sagas | ≥ 0.4 × floor | 0.1 × floor | ✗ |" in page
    assert "| fast: sagas | 800 sagas/s | 700 – 900 | 0.80 |" in page
    assert page.count("free: sagas") == 1


def test_a_target_may_be_the_most_that_something_takes() -> None:
    assert Row("wait", "ms", [100]).aim(value=100, most=True).met
    assert Row("wait", "ms", [101]).aim(value=100, most=True).met is False


def test_the_plot_shows_every_row_and_every_line(tmp_path: Path) -> None:
    report.write(tmp_path, "results", {"Rates & more": _rates()}, [])
    grown = [Row(f"shop at {count:,} orders", "sagas/s", [1e6 / count]) for count in (1_000, 10_000, 100_000)]
    report.write(tmp_path, "sizes", {"Orders": grown}, [])
    plot.draw(tmp_path)
    drawn = ElementTree.fromstring((tmp_path / "results.svg").read_text())
    kinds = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    texts = [element.text for element in drawn.iter() if element.tag.endswith("}text")]
    assert (kinds.count("rect"), kinds.count("polyline"), kinds.count("circle")) == (4, 1, 3)
    assert {"fast: sagas", "slow: sagas", "free: sagas", "shop", "100,000"} <= set(texts)


async def test_a_measurement_apart_gives_its_rows() -> None:
    rows = [{"what": "a", "unit": "ms", "values": [1.0]}]
    program = f"print('chatter'); print({json.dumps(rows)!r})"
    assert await apart.rows([sys.executable, "-c", program], {}) == [Row("a", "ms", [1.0])]


async def test_a_measurement_apart_that_ends_badly_says_why() -> None:
    with pytest.raises(apart.Failed, match="not today"):
        await apart.rows([sys.executable, "-c", "raise SystemExit('not today')"], {})
