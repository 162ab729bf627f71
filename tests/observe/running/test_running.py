"""What the four services of a running shop and its console tell Prometheus."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping

import grpc.aio
import pytest

from order_svc.app import SPEC
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from stack.shop import Shop
from tests.docs import metrics_page
from tests.e2e.client import Client
from tests.observe.running.conftest import scrape, scrape_all
from tests.observe.scraping import series
from tests.waiting import until
from twinlog.v1.inspection_pb2 import DescribeRequest
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="package")

CONSOLE = "twinlog.console"
SERVICES = ("order_svc", "customer_svc", "saga_orchestrator", "projector")
MOST_SERIES = 1_200
"""Of one process of the shop; an adopter's has more only by its own methods, consumers and types."""


async def test_every_metric_of_the_catalogue_is_told_by_some_service(shop: Shop) -> None:
    told = await scrape_all(shop)
    names = set().union(*(each.names for each in told.values()))
    missing = [metric.name for metric in metrics_page.ALL if not series(metric) <= names]
    assert not missing
    known = {name for metric in metrics_page.ALL for name in series(metric)}
    assert not {name for name in names if name.startswith("twinlog_")} - known


async def test_all_services_answer_and_serve(shop: Shop) -> None:
    told = await scrape_all(shop)
    assert tuple(told) == (*SERVICES, CONSOLE)
    for service in SERVICES:
        each = told[service]
        assert each.value("twinlog_up") == each.value("twinlog_serving") == 1
        assert each.sum("twinlog_info", name=service) == 1
        assert each.sum("twinlog_scrape_failures") == 0
        assert each.value("process_resident_memory_bytes") > 0

        async def is_in_time(service: str = service) -> bool:  # it is measured each minute
            return abs((await scrape(shop, service)).value("twinlog_clock_ahead_seconds")) < 1

        await until(is_in_time, seconds=180)


async def test_the_console_counts_its_pages(shop: Shop) -> None:
    told = await scrape(shop, CONSOLE)
    assert told.value("twinlog_up") == told.sum("twinlog_info", name="console") == 1
    assert told.value("twinlog_console_requests_total", page="/sagas", status="200") >= 1
    assert told.value("twinlog_console_request_duration_seconds_count", page="/sagas") >= 1  # 503 before
    assert told.value("twinlog_console_viewers") == told.value("twinlog_console_watched_urls") == 0


async def test_what_was_done_is_counted_where_it_was_done(shop: Shop) -> None:
    told = await scrape_all(shop)
    calls = {"method": "shop.orders.v1.OrderService/CreateOrder"}
    orders = told["order_svc"]
    assert orders.value("twinlog_rpc_calls_total", reason="OK", **calls) >= 4
    assert orders.value("twinlog_rpc_calls_total", reason="INVALID_ARGUMENT", **calls) >= 1
    created = orders.sum("twinlog_log_events_total", type="shop.orders.v1.OrderCreated")
    started = told["saga_orchestrator"].sum("twinlog_log_events_total", type="twinlog.v1.SagaStarted")
    assert created >= 4
    assert started >= 2
    for log, owner in (
        ("orders", "order_svc"),
        ("customers", "customer_svc"),
        ("sagas", "saga_orchestrator"),
    ):
        head = told[owner].value("twinlog_log_position_events", log=log)
        assert head == told[owner].sum("twinlog_log_events_total", log=log)
        assert {each.sum("twinlog_twin_position_events", log=log) for each in told.values()} <= {0, head}
        assert told[owner].value("twinlog_relay_copying", log=log) == 1


async def test_a_paused_service_is_silent_and_its_saga_shows(shop: Shop, client: Client) -> None:
    customer_id = await client.customer()
    await scrape_all(shop)
    os.kill(shop.supervisor.pid("customer_svc"), signal.SIGSTOP)
    try:
        await client.create(customer_id, mode=SAGA_MODE_ORCHESTRATION)
        running = {"saga": "credit", "status": "RUNNING"}

        async def shows() -> bool:
            told = await scrape(shop, "saga_orchestrator")
            oldest = told.value("twinlog_saga_oldest_seconds", **running)
            return told.value("twinlog_sagas", **running) == 1 and oldest > 0

        await until(shows)
    finally:
        os.kill(shop.supervisor.pid("customer_svc"), signal.SIGCONT)
    await scrape_all(shop)


async def test_no_id_is_in_a_label_and_series_stay_few(shop: Shop, client: Client) -> None:
    customer_id = await client.customer()
    order = await client.order(customer_id, "1", SAGA_MODE_ORCHESTRATION)
    before = {name: len(each.samples) for name, each in (await scrape_all(shop)).items()}
    for _ in range(5):
        await client.order(await client.customer(), "1", SAGA_MODE_ORCHESTRATION)
    told = await scrape_all(shop)
    for service, each in told.items():
        values = {value for _, labels in each.samples for _, value in labels}
        assert not {value for value in values if customer_id in value or order.order_id in value}
        assert len(each.samples) <= MOST_SERIES
        assert (
            len(each.samples) < before[service] + 5
        )  # an outage may have been counted, which has its reason


async def test_scrapes_at_once_are_all_answered(shop: Shop) -> None:
    told = await asyncio.gather(*(scrape(shop, service) for service in SERVICES * 5))
    assert all(each.value("twinlog_up") == 1 for each in told)


async def test_settings_show_where_metrics_are(shop: Shop) -> None:
    async with grpc.aio.insecure_channel(shop.orders) as channel:
        described = await InspectionServiceStub(channel).Describe(DescribeRequest())
    settings: Mapping[str, str] = {each.name: each.value for each in described.settings}
    assert settings["METRICS_ADDRESS"] == shop.metrics["order_svc"]
    assert settings["POSTGRES_DATABASE"] == SPEC.database, "what is in use, also where nobody has set it"
