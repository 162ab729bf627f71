"""A scrape over HTTP: it never hangs, says what it could not find out, and is off unless somebody asks for it."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from math import inf
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
from prometheus_client import REGISTRY, Counter

from stack.topology import ROOT
from tests.docs import metrics_page
from tests.memory_shop import MemoryShop
from tests.observe.scraping import Scrape, get, scraped
from tests.waiting import until
from twinlog import Service, Settings
from twinlog.model.errors import ConfigurationError, Unavailable
from twinlog.observe.metrics import scrape
from twinlog.observe.metrics import serving as metrics_serving
from twinlog.observe.metrics.exposition import text
from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.observe.metrics.scrape import Exposition
from twinlog.observe.metrics.serving import serving
from twinlog.observe.metrics.tallies import Histogram
from twinlog.service.environment import Observed
from twinlog.service.settings import load

_ONE = Metric("twinlog_one", "gauge", "One.")


class Given:
    """A concern that tells one number, or fails, or never answers."""

    metrics = (_ONE,)

    def __init__(self, name: str, answer: Any) -> None:
        self.name = name
        self._answer = answer

    async def samples(self) -> Sequence[Sample]:
        if isinstance(self._answer, Exception):
            raise self._answer
        if self._answer is None:
            await asyncio.Event().wait()
        return [Sample(_ONE, self._answer)]


async def test_metrics_of_a_service_are_served_over_http() -> None:
    async with MemoryShop(measured=True) as shop:
        assert shop.order_svc.metrics
        async with shop.order_svc.metrics.served(shop.order_svc, "127.0.0.1:0") as url:
            told = Scrape(await scraped(url))
    assert told.value("twinlog_up") == 1
    assert told.value("twinlog_serving") == 1
    assert told.value("process_open_fds") > 0
    assert told.sum("twinlog_info", name="order_svc") == 1
    assert not any(value for (name, _), value in told.samples.items() if name == "twinlog_scrape_failures")
    with pytest.raises(URLError):
        await scraped(url)


async def test_what_does_not_answer_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "CONCERN_SECONDS", 0.05)
    concerns = [
        Given("fine", 1),
        Given("away", Unavailable()),
        Given("silent", None),
        Given("defect", KeyError("x")),
    ]
    async with serving("127.0.0.1:0", Exposition(concerns, asyncio.get_running_loop()).page) as url:
        told = Scrape(await scraped(url))
    failed = {
        name: told.value("twinlog_scrape_failures", concern=name)
        for name in ("fine", "away", "silent", "defect")
    }
    assert failed == {"fine": 0, "away": 1, "silent": 1, "defect": 1}
    assert (told.value("twinlog_up"), told.value("twinlog_one")) == (1, 1)


async def test_a_loop_that_hangs_is_said_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str] = []
    async with serving("127.0.0.1:0", Exposition([Given("fine", 1)], asyncio.get_running_loop()).page) as url:
        with monkeypatch.context() as patched:
            patched.setattr(scrape, "LOOP_SECONDS", 0.05)
            scraping = threading.Thread(target=lambda: answers.append(get(url)))
            scraping.start()
            scraping.join(120)  # the loop does nothing else meanwhile
        [told] = map(Scrape, answers)
        assert told.value("twinlog_up") == 0
        assert "twinlog_one" not in told.names
        assert told.value("process_cpu_seconds_total") > 0
        assert Scrape(await scraped(url)).value("twinlog_one") == 1


async def test_metrics_of_an_adopters_own_are_told_beside() -> None:
    class Defect:
        """Describes nothing and tells nothing."""

        def collect(self) -> Any:
            raise ZeroDivisionError

    rooms = Counter("hotel_rooms_cleaned", "Rooms.")
    rooms.inc(3)
    try:
        async with serving("127.0.0.1:0", Exposition([], asyncio.get_running_loop()).page) as url:
            said = await scraped(url)
            told = Scrape(said)
            assert told.value("hotel_rooms_cleaned_total") == 3
            assert "python_info" in told.families
            assert said.count("# TYPE process_open_fds ") == 1
            defect: Any = Defect()
            REGISTRY._collector_to_names[defect] = []
            try:
                assert Scrape(await scraped(url)).value("twinlog_up") == 1
            finally:
                REGISTRY.unregister(defect)
    finally:
        REGISTRY.unregister(rooms)


async def test_those_who_connect_and_say_nothing_take_few_threads_and_no_scrape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_serving, "_MOST_CLIENTS", 4)
    monkeypatch.setattr(metrics_serving._Handler, "timeout", 600.0)

    def few_threads() -> bool:
        return sum("process_request" in thread.name for thread in threading.enumerate()) <= 4

    async with serving("127.0.0.1:0", Exposition([], asyncio.get_running_loop()).page) as url:
        host, _, port = url.removeprefix("http://").removesuffix("/metrics").rpartition(":")
        silent = [await asyncio.to_thread(socket.create_connection, (host, int(port))) for _ in range(40)]
        assert Scrape(await scraped(url)).value("twinlog_up") == 1
        silent[0].settimeout(60)
        assert await asyncio.to_thread(silent[0].recv, 1) == b""
        await until(few_threads)
        for each in silent:
            each.close()


async def test_a_loop_that_is_closed_is_said() -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    async with serving("127.0.0.1:0", Exposition([Given("fine", 1)], closed).page) as url:
        assert Scrape(await scraped(url)).value("twinlog_up") == 0


async def test_an_address_that_is_taken_is_refused_by_name() -> None:
    empty = Exposition([], asyncio.get_running_loop()).page
    async with serving("127.0.0.1:0", empty) as url:
        address = url.removeprefix("http://").removesuffix("/metrics")
        with pytest.raises(
            ConfigurationError, match=rf"METRICS_ADDRESS: cannot listen on {re.escape(address)}"
        ):
            async with serving(address, empty):
                pass
    with pytest.raises(ConfigurationError) as refused:  # the host's errors have numbers of their own
        async with serving("[::zz]:0", empty):
            pass
    assert "Unknown error" not in str(refused.value)


@pytest.mark.parametrize("wrong", ["9461", "localhost", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused_at_start(wrong: str) -> None:
    known = {"postgres_url": "postgresql://x", "nats_url": "nats://x"}
    with pytest.raises(ConfigurationError, match="METRICS_ADDRESS"):
        load(Settings, **known, metrics_address=wrong)


def test_it_is_off_by_default_and_then_nothing_is_wrapped_or_loaded() -> None:
    assert Settings.model_fields["metrics_address"].default == ""
    log: Any = SimpleNamespace(name="orders")
    off = Observed()
    assert off.log(log) is log
    assert (off.calls, off.consumers) == ((), ())
    program = "import sys, order_svc.app, twinlog.service.process; print('prometheus_client' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert said.stdout == "False\n"


async def test_a_service_without_metrics_has_its_own_parts_as_they_are() -> None:
    threads = threading.active_count()
    async with MemoryShop() as shop:
        service: Service = shop.order_svc
        assert shop.order_svc.metrics is None
        writer: Any = service.writer
        assert writer._log is service.log
        assert threading.active_count() == threads


def test_a_histogram_counts_up_to_and_including_a_bound() -> None:
    tally = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 7.0):
        tally.observe(value)
    assert (tally.counts, tally.count, tally.sum) == ([2, 2, 1], 5, 12.0)
    metric = Metric("twinlog_h_seconds", "histogram", "H.")
    told = Scrape(text([Sample(metric, tally)]))
    upto = {le: told.value("twinlog_h_seconds_bucket", le=le) for le in ("1.0", "2.0", "+Inf")}
    assert upto == {"1.0": 2, "2.0": 4, "+Inf": 5}


async def test_all_metrics_of_all_services_are_in_the_catalogue_and_keep_to_its_labels() -> None:
    known = {metric.name: metric for metric in metrics_page.ALL}
    assert len(known) == len(metrics_page.ALL)
    told: set[str] = set()
    async with MemoryShop(measured=True) as shop:
        for node in shop.nodes:
            assert node.metrics
            for concern in node.metrics.concerns(node):
                for sample in await concern.samples():
                    assert sample.metric is known[sample.metric.name]
                    assert sample.metric in metrics_page.metrics_of(sys.modules[type(concern).__module__])
                    assert len(sample.labels) == len(sample.metric.labels)
                    told.add(sample.metric.name)
    assert {"twinlog_log_append_events", "twinlog_consumer_lag_seconds", "twinlog_lease_held"} <= told


def test_names_follow_the_conventions() -> None:
    assert metrics_page.ALL
    for metric in metrics_page.ALL:
        assert re.fullmatch(r"twinlog_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") is (metric.kind == "counter"), metric
        assert metric.help.endswith("."), metric
        assert "|" not in metric.help, metric
        assert not {"le", "job", "instance", "service"} & {*metric.labels}, f"others put those on: {metric}"
        assert not any(label.endswith("id") for label in metric.labels), metric
        if metric.kind == "histogram":
            assert metric.name.endswith(("_seconds", "_events", "_units")), metric


def test_numbers_are_told_as_prometheus_reads_them() -> None:
    histogram = Metric("twinlog_h_seconds", "histogram", "H.", ("log",))
    tally = Histogram((0.5,))
    tally.observe(0.1)
    told = Scrape(text([Sample(histogram, tally, ("orders",)), Sample(_ONE, True)]))
    assert told.value("twinlog_h_seconds_bucket", le="0.5", log="orders") == 1
    assert told.value("twinlog_h_seconds_bucket", le="+Inf", log="orders") == 1
    assert told.value("twinlog_one") == 1
    assert inf not in told.samples.values()
