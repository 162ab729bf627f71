"""Dashboards as Grafana reads them: JSON to import, or to provision from a folder; and the files, with the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from twinlog.observe.dashboards.alerts import rules
from twinlog.observe.dashboards.consumers import CONSUMERS
from twinlog.observe.dashboards.overview import OVERVIEW
from twinlog.observe.dashboards.panels import Dashboard, Panel, Query
from twinlog.observe.dashboards.sagas import SAGAS
from twinlog.observe.dashboards.service import SERVICE
from twinlog.observe.metrics.scrape import UP

DASHBOARDS: Sequence[Dashboard] = (OVERVIEW, SERVICE, SAGAS, CONSUMERS)
RULES = "twinlog.rules.yml"

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_SCHEMA = 39
"""Of Grafana 10; newer ones take it."""
_COLUMNS, _ACROSS, _HEIGHT = 24, 3, 8


def rendered(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as JSON has it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.meaning,
        "tags": ["twinlog"],
        "editable": True,
        "schemaVersion": _SCHEMA,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "templating": {"list": [*_variables(dashboard)]},
        "links": [
            {
                "type": "dashboards",
                "title": "Twinlog",
                "tags": ["twinlog"],
                "asDropdown": True,
                "keepTime": True,
            }
        ],
        "panels": [*_panels(dashboard)],
    }


def _variables(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    query = f"label_values({UP.name}, job)"
    several = dashboard.several_jobs
    yield {
        "name": "job",
        "label": "Service",
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "jobs"},
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if several else {}),
    }


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    width = _COLUMNS // _ACROSS
    for row in dashboard.rows:
        number += 1
        place = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        y += 1
        for index, each in enumerate(row.panels):
            number += 1
            down, across = divmod(index, _ACROSS)
            place = {"x": across * width, "y": y + down * _HEIGHT, "w": width, "h": _HEIGHT}
            yield {"id": number, "gridPos": place, **_panel(each)}
        y += -(-len(row.panels) // _ACROSS) * _HEIGHT


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.alarming is not None:
        steps.append({"color": "red", "value": panel.alarming})
    defaults = {
        "unit": panel.unit,
        "custom": {"axisSoftMin": 0},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _SOURCE,
        "targets": [_target(query, number) for number, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _OPTIONS[panel.kind],
    }


def _target(query: Query, number: int) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + number),
        "datasource": _SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
        "range": True,
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "textMode": "auto"},
}


def written(folder: Path, docs: str = "") -> Sequence[Path]:
    """Writes dashboards and alert rules into a folder, which is made if it is missing; gives the files.

    ``docs``: the address of the documentation's site, which alerts link to; empty: the links are relative.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"{each.uid}.json": json.dumps(rendered(each), indent=2) + "\n" for each in DASHBOARDS}
    files[RULES] = rules(docs)
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]
