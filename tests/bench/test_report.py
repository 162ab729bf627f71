"""What the bench writes: the page, and the plot made from its JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import StatisticsError
from xml.etree import ElementTree

import pytest

from proof.bench import apart, memory, plot, report
from proof.bench.report import Row


def _row(what: str, *rounds: tuple[float, float]) -> Row:
    row = Row(what, "sagas/s", "the baseline")
    for value, baseline in rounds:
        row.add(value, baseline)
    return row


def _rates() -> list[Row]:
    met = _row("fast: sagas", (700, 1_000), (800, 1_000), (900, 1_000)).aim(ratio=0.6)
    missed = _row("slow: sagas", (10.5, 1_000)).aim(value=400)
    return [met, missed, _row("free: sagas", (1.5, 0.5))]


def _cells(page: str, what: str) -> list[str]:
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {what} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_one_table_where_every_row_has_a_ratio() -> None:
    page = report.markdown({"Rates": _rates()})
    assert _cells(page, "fast: sagas")[1:] == [
        "800 sagas/s",
        "700 – 900",
        "0.80",
        "the baseline",
        "≥ 0.6 ×",
        "✓",
    ]
    assert _cells(page, "slow: sagas")[1:] == [
        "10.5 sagas/s",
        "",
        "0.011",
        "the baseline",
        "≥ 400 sagas/s",
        "✗",
    ]
    assert _cells(page, "free: sagas")[1:] == ["1.5 sagas/s", "", "3.00", "the baseline", "", ""]
    assert _cells(page, r"**Rates**") == ["**Rates**", *[""] * 6]
    assert len({len(line) for line in page.splitlines() if line.startswith("|")}) == 1


def test_a_row_without_a_ratio_is_refused() -> None:
    with pytest.raises(StatisticsError):
        report.markdown({"Rates": [Row("alone", "ms", values=[1.0])]})


def test_the_page_counts_the_targets_and_names_those_missed() -> None:
    assert "1 of 2 targets met; missed: slow: sagas (≥ 400 sagas/s)." in report.markdown({"": _rates()})
    assert "1 of 1 targets met.\n" in report.markdown({"": _rates()[:1]})
    assert "targets" not in report.markdown({"": _rates()[2:]})


def test_a_target_may_be_the_most_that_something_takes() -> None:
    assert Row("wait", "ms", values=[100]).aim(value=100, most=True).met
    assert Row("wait", "ms", values=[101]).aim(value=100, most=True).met is False
    assert Row("wait", "ms", ratios=[2.1]).aim(ratio=2, most=True).met is False


def test_memory_stands_beside_the_baseline_of_the_same_role_and_beside_itself_before() -> None:
    before = {"baseline view": 40 * 2**20, "projector": 80 * 2**20}
    after = {"baseline view": 50 * 2**20, "projector": 100 * 2**20}
    baseline, service = memory.sizes(before, after)
    assert (baseline.ratio, service.ratio, service.base, service.met) == (1, 2, "baseline view", True)
    baseline, service = memory.growth(before, after, 100)
    assert (service.what, service.value) == ("projector: RSS after 100 more sagas", 100)
    assert (baseline.met, service.ratio, service.met) == (None, 1.25, False)


def test_the_plot_shows_every_row_and_every_line(tmp_path: Path) -> None:
    idle = Row("idle", "µs", "the baseline").add(0, 1)
    report.write(tmp_path, "results", {"Rates & more": [*_rates(), idle], "Memory": _rates()[:1]}, [])
    grown = [_row(f"baseline at {count:,} orders", (1e6 / count, 1)) for count in (1_000, 10_000, 100_000)]
    beside = _row("baseline, two of each service", (9, 1))
    report.write(tmp_path, "sizes", {"Orders": grown, "Replicas": [beside], "Memory": _rates()[1:]}, [])
    plot.draw(tmp_path)
    drawn = ElementTree.fromstring((tmp_path / "results.svg").read_text())
    kinds = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    texts = [element.text for element in drawn.iter() if element.tag.endswith("}text")]
    ground = 1
    assert (kinds.count("rect"), kinds.count("polyline"), kinds.count("circle")) == (ground + 7, 1, 3)
    assert {
        "fast: sagas",
        "slow: sagas",
        "free: sagas",
        "baseline, two of each service",
        "baseline",
        "100,000",
    } <= {*texts}
    assert "800 sagas/s, 0.8 × the baseline   ✓ ≥ 0.6 ×" in texts


async def test_a_measurement_apart_gives_its_rows() -> None:
    rows = [{"what": "a", "unit": "ms", "values": [1.0]}]
    program = f"print('chatter'); print({json.dumps(rows)!r})"
    assert await apart.rows([sys.executable, "-c", program], {}) == [Row("a", "ms", values=[1.0])]


async def test_a_measurement_apart_that_ends_badly_says_why() -> None:
    with pytest.raises(apart.Failed, match="not today"):
        await apart.rows([sys.executable, "-c", "raise SystemExit('not today')"], {})
