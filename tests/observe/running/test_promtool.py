"""Prometheus itself reads what a running shop tells, and evaluates every expression over it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stack.shop import Shop
from stack.topology import ROOT
from tests.observe.alert_cases import CASES, Case
from tests.observe.running.conftest import scrape_all
from tests.observe.scraping import Scrape, scraped
from twinlog.observe.dashboards.alerts import ALERTS, rules, runbook
from twinlog.observe.dashboards.grafana import DASHBOARDS, RULES, written
from twinlog.observe.dashboards.promql import JOB, RATE

pytestmark = pytest.mark.asyncio(loop_scope="package")

DOCS = "https://docs.example.org"
STEP_SECONDS = 15
_AT = "20m"


async def promtool(*arguments: str | Path, stdin: str = "") -> str:
    """What promtool says; the test fails with it where it finds something."""
    process = await asyncio.create_subprocess_exec(
        "promtool",
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate(stdin.encode())
    said = output.decode()
    assert process.returncode == 0, said
    return said


async def test_every_scrape_keeps_to_the_conventions(shop: Shop) -> None:
    for address in shop.metrics.values():
        assert await promtool("check", "metrics", stdin=await scraped(f"http://{address}/metrics")) == ""


async def test_the_rules_are_rules(tmp_path: Path) -> None:
    written(tmp_path, DOCS)
    assert f"{len(ALERTS)} rules found" in await promtool("check", "rules", tmp_path / RULES)


async def test_the_configuration_on_the_page_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "metrics.md").read_text()
    [configuration] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    written(tmp_path, DOCS)
    (tmp_path / "prometheus.yml").write_text(configuration)
    assert f"{len(ALERTS)} rules found" in await promtool("check", "config", tmp_path / "prometheus.yml")


async def test_every_expression_finds_something_in_what_a_shop_tells(shop: Shop, tmp_path: Path) -> None:
    """Each query of a dashboard, and what each alert measures, over the series of all services."""
    told = await scrape_all(shop)
    evaluated = [found_in(expression) for expression in dict.fromkeys(expressions())]
    assert len(evaluated) > 60
    test = {
        "interval": f"{STEP_SECONDS}s",
        "input_series": [*input_series(told)],
        "promql_expr_test": evaluated,
    }
    await run_tests(tmp_path, [test])


async def test_an_expression_that_finds_nothing_is_noticed(tmp_path: Path) -> None:
    test = {
        "interval": f"{STEP_SECONDS}s",
        "input_series": [_series("twinlog_up", {"job": "order_svc"}, 1)],
        "promql_expr_test": [found_in("sum by (job) (twinlog_upp)")],
    }
    with pytest.raises(AssertionError, match="FAILED"):
        await run_tests(tmp_path, [test])


async def test_a_healthy_shop_sets_off_no_alert(shop: Shop, tmp_path: Path) -> None:
    told = await scrape_all(shop)
    silent = [{"eval_time": _AT, "alertname": alert.name, "exp_alerts": []} for alert in ALERTS]
    test = {
        "interval": f"{STEP_SECONDS}s",
        "input_series": [*input_series(told)],
        "alert_rule_test": silent,
    }
    await run_tests(tmp_path, [test])


async def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    assert [case.alert for case in CASES] == [alert.name for alert in ALERTS]
    tests = [test for case in CASES for test in (fires(case), stays_quiet(case))]
    await run_tests(tmp_path, tests)


def found_in(expression: str) -> Mapping[str, Any]:
    """That it finds any series."""
    some = [{"labels": "{}", "value": 1}]
    return {"expr": f"count({expression}) > bool 0", "eval_time": _AT, "exp_samples": some}


def fires(case: Case) -> Mapping[str, Any]:
    alert = next(each for each in ALERTS if each.name == case.alert)
    expected = {
        "exp_labels": {**case.labels, "severity": alert.severity},
        "exp_annotations": {"summary": case.summary, "runbook_url": runbook(alert, DOCS)},
    }
    return _case(case.firing, case.alert, [expected])


def stays_quiet(case: Case) -> Mapping[str, Any]:
    return _case(case.quiet, case.alert, [])


def _case(series: Mapping[str, str], alert: str, expected: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {
        "interval": f"{STEP_SECONDS}s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": _AT, "alertname": alert, "exp_alerts": expected}],
    }


async def run_tests(folder: Path, tests: Sequence[Mapping[str, Any]]) -> None:
    """Has promtool run tests of the rules, which are evaluated every minute, as by default; JSON is YAML."""
    (folder / RULES).write_text(rules(DOCS))
    (folder / "tests.yml").write_text(
        json.dumps({"rule_files": [RULES], "evaluation_interval": "1m", "tests": tests})
    )
    await promtool("test", "rules", folder / "tests.yml")


def expressions() -> Iterator[str]:
    for dashboard in DASHBOARDS:
        for row in dashboard.rows:
            for panel in row.panels:
                for query in panel.queries:
                    yield query.expression.replace(JOB, 'job=~".*"').replace(RATE, "1m")
    for alert in ALERTS:
        yield alert.measured


def input_series(told: Mapping[str, Scrape]) -> Iterator[Mapping[str, str]]:
    """What services told, as it stands for half an hour; and what Prometheus says of them itself."""
    for service, each in told.items():
        at = {"job": service, "instance": "127.0.0.1:1"}
        yield _series("up", at, 1)
        for (name, labels), value in each.samples.items():
            yield _series(name, {**dict(labels), **at}, value)


def _series(name: str, labels: Mapping[str, str], value: float) -> Mapping[str, str]:
    inside = ", ".join(f"{label}={json.dumps(text)}" for label, text in labels.items())
    return {"series": f"{name}{{{inside}}}", "values": f"{value:.9f}x120"}
