"""Dashboards and alert rules as files, and what is said of them in the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stack.topology import ROOT
from tests.docs import metrics_page
from tests.observe.scraping import series
from twinlog.cli.command import main
from twinlog.observe.dashboards.alerts import ALERTS, PAGE, Alert, rules, runbook
from twinlog.observe.dashboards.grafana import DASHBOARDS, rendered, written
from twinlog.observe.dashboards.panels import Dashboard

_RUNBOOKS = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
_OF_OTHERS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
"""Metrics of Prometheus itself and of every client."""
_OF_GRAFANA = {"row", "timeseries", "stat"}
"""Types of panels; what a dashboard may hold is in grafana.com/docs/grafana/latest/dashboards (JSON model)."""
_VARIABLE = re.compile(r"\$(?:\{(\w+)[^}]*\}|(\w+))")
_MOST_UID = 40
_WORD = re.compile(r"(?<![\w\"$])(up|(?:twinlog|process)_\w+)(?![\w\"])")


def names_in(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    return set(_WORD.findall(re.sub(r'"[^"]*"', '""', expression)))


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.uid)
def test_a_dashboard_has_what_grafana_needs(dashboard: Dashboard) -> None:
    made: dict[str, Any] = json.loads(json.dumps(rendered(dashboard)))
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [each["name"] for each in made["templating"]["list"]] == ["datasource", "job"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    for panel in panels:
        assert panel["title"]
        for target in panel.get("targets", []):
            assert target["expr"]
            assert re.fullmatch(r"[\w% ]+|.*\{\{\w+\}\}.*", target["legendFormat"])
        references = [each["refId"] for each in panel.get("targets", [])]
        assert len(set(references)) == len(references)
    assert all(panel.get("targets") for panel in panels if panel["type"] != "row")
    assert {panel["type"] for panel in panels} <= _OF_GRAFANA
    named = {name for pair in _VARIABLE.findall(json.dumps(made)) for name in pair if name}
    assert {name for name in named if not name.startswith("__")} == {"datasource", "job"}
    assert named <= {"datasource", "job", "__all", "__rate_interval", "__interval", "__range"}
    assert len(made["uid"]) <= _MOST_UID
    assert len({each.uid for each in DASHBOARDS}) == len(DASHBOARDS)


def test_dashboards_and_alerts_ask_for_what_there_is() -> None:
    known = {name for metric in metrics_page.ALL for name in series(metric)} | _OF_OTHERS
    queries = [
        query for each in DASHBOARDS for row in each.rows for panel in row.panels for query in panel.queries
    ]
    asked = set[str]().union(*(names_in(query.expression) for query in queries))
    asked |= set[str]().union(*(names_in(alert.expression) for alert in ALERTS))
    assert not asked - known
    unseen = {metric.name for metric in metrics_page.ALL if not series(metric) & asked}
    assert unseen <= {
        "twinlog_info",
        "twinlog_log_exclusive_appends_total",
        "twinlog_log_loaded_events_total",
        "twinlog_writer_cached_streams",
        "twinlog_snapshots_ignored_total",
        "twinlog_log_position_events",
        "twinlog_chain_position_events",
        "twinlog_chain_hash_number",
        "twinlog_twin_position_events",
        "twinlog_twin_missing_events",
        "twinlog_relay_copying",
        "twinlog_timers_stuck",
        "twinlog_pool_connections_made_total",
        "twinlog_consumer_last_failure_timestamp_seconds",
    }


def test_the_labels_of_a_legend_are_among_those_that_its_query_keeps() -> None:
    for dashboard in DASHBOARDS:
        for row in dashboard.rows:
            for panel in row.panels:
                for expression, legend in panel.queries:
                    kept = {
                        word for by in re.findall(r"by \(([\w, ]+)\)", expression) for word in by.split(", ")
                    }
                    wanted = set(re.findall(r"\{\{(\w+)\}\}", legend))
                    assert wanted <= (kept or {"instance"}), (panel.title, expression)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda each: each.name)
def test_an_alert_has_a_runbook(alert: Alert) -> None:
    assert f"\n## {alert.name}\n" in _RUNBOOKS
    [section] = re.findall(rf"\n## {alert.name}\n\n(\w+), after ", _RUNBOOKS)
    assert section.lower() == alert.severity
    assert (ROOT / "docs" / PAGE.replace(".html", ".md")).exists()
    assert (
        runbook(alert, "https://docs.example.org/") == f"https://docs.example.org/{PAGE}#{alert.name.lower()}"
    )
    assert runbook(alert, "") == f"{PAGE}#{alert.name.lower()}"
    kept = {word for by in re.findall(r"(?:by|on) \(([\w, ]+)\)", alert.measured) for word in by.split(", ")}
    assert set(re.findall(r"\$labels\.(\w+)", alert.summary)) <= kept


def test_no_runbook_is_left_over() -> None:
    assert set(re.findall(r"^## (Twinlog\w+)$", _RUNBOOKS, re.MULTILINE)) == {alert.name for alert in ALERTS}


def test_the_command_writes_all_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "folder"
    assert main(["dashboards", str(folder), "--docs", "https://docs.example.org"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert sorted(said) == sorted(map(str, folder.iterdir()))
    assert len(said) == len(DASHBOARDS) + 1
    assert (folder / "twinlog.rules.yml").read_text() == rules("https://docs.example.org")
    assert all(f"`{Path(name).name}`" in (ROOT / "docs/how-to/metrics.md").read_text() for name in said)


def test_a_folder_that_cannot_be_written_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["dashboards", str(tmp_path / "file")]) == 2
    assert "name a folder that can be written" in capsys.readouterr().err


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    first = {path: path.read_text() for path in written(tmp_path)}
    assert {path: path.read_text() for path in written(tmp_path)} == first
