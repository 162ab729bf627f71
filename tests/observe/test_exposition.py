"""What goes over HTTP: both formats, whatever labels hold, whoever asks, and however many do."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import urllib.request
from collections.abc import AsyncIterator, Sequence
from http.client import HTTPException
from math import inf, isnan, nan
from typing import Any
from urllib.error import HTTPError

import pytest
from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as of_text

from tests.observe.scraping import Scrape, scraped
from tests.waiting import until
from twinlog.observe.metrics import scrape
from twinlog.observe.metrics.event_loop import EventLoop
from twinlog.observe.metrics.exposition import text
from twinlog.observe.metrics.metric import Metric, Sample
from twinlog.observe.metrics.scrape import Exposition
from twinlog.observe.metrics.serving import serving, telling
from twinlog.observe.metrics.tallies import Histogram

OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
_CALLS = Metric("twinlog_calls_total", "counter", 'Calls, by "reason" \\ method.', ("method", "reason"))
_SECONDS = Metric("twinlog_seconds", "histogram", "Seconds.", ("method",))
_LEVEL = Metric("twinlog_level", "gauge", "Level.")
of_open_metrics: Any = text_string_to_metric_families  # which has no types
_HOSTILE = ['a"b', "a\\b", "a\nb", '"} 1\ntwinlog_forged 1', "", "ä€😀", "{}", "a\\n", 'x",reason="OK']


class Given:
    """A concern with these samples."""

    name = "given"
    metrics = (_CALLS, _SECONDS, _LEVEL)

    def __init__(self, *samples: Sample) -> None:
        self.of = samples
        self.asked = 0

    async def samples(self) -> Sequence[Sample]:
        self.asked += 1
        return self.of


@pytest.fixture
async def given() -> Given:
    return Given()


@pytest.fixture
async def url(given: Given) -> AsyncIterator[str]:
    exposition = Exposition([given], asyncio.get_running_loop())
    async with serving("127.0.0.1:0", exposition.page) as url:
        yield url


def _ask(url: str, **headers: str) -> tuple[str, bytes]:
    request = urllib.request.Request(
        url, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read()


@pytest.mark.parametrize("value", _HOSTILE)
@pytest.mark.parametrize("open_metrics", [False, True])
def test_a_label_comes_out_as_it_went_in(value: str, open_metrics: bool) -> None:
    sample = Sample(_CALLS, 3, ("Get", value))
    said = text([sample], open_metrics=open_metrics)
    families = [*(of_open_metrics(said + "# EOF\n") if open_metrics else of_text(said))]
    [family] = families
    [found] = family.samples
    assert (found.name, found.labels, found.value) == (
        "twinlog_calls_total",
        {"method": "Get", "reason": value},
        3,
    )
    assert (family.name, family.type, family.documentation) == ("twinlog_calls", "counter", _CALLS.help)


def test_numbers_that_are_none_are_written_as_prometheus_does() -> None:
    for value, written in ((inf, "+Inf"), (-inf, "-Inf"), (nan, "NaN"), (True, "1.0"), (10**17, "1e+17")):
        assert text([Sample(_LEVEL, value)]).endswith(f"\ntwinlog_level {written}\n")
        [family] = of_text(text([Sample(_LEVEL, value)]))
        read = family.samples[0].value
        assert read == value or (isnan(read) and isnan(value))


def test_samples_of_a_metric_stand_together_whoever_gave_them() -> None:
    said = text([Sample(_CALLS, 1, ("a", "x")), Sample(_LEVEL, 1), Sample(_CALLS, 2, ("b", "x"))])
    assert said.count("# TYPE") == 2
    assert said.index("twinlog_calls_total{") < said.index('method="b"') < said.index("twinlog_level ")


async def test_a_client_that_reads_open_metrics_is_given_them(given: Given, url: str) -> None:
    given.of = (Sample(_CALLS, 3, ("Get", "OK")), Sample(_SECONDS, Histogram(), ("Get",)))
    rooms = Counter("hotel_rooms_painted", "Rooms.")
    try:
        content_type, body = await asyncio.to_thread(_ask, url, Accept=OPEN_METRICS)
    finally:
        REGISTRY.unregister(rooms)
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in of_open_metrics(body.decode())}
    assert {"twinlog_calls", "twinlog_seconds", "twinlog_up", "hotel_rooms_painted"} <= families.keys()
    assert "process_cpu_seconds" in families


async def test_others_are_given_text_and_what_is_packed_is_the_same(given: Given, url: str) -> None:
    given.of = (Sample(_CALLS, 3, ("Get", "OK")),)
    content_type, body = await asyncio.to_thread(_ask, url)
    assert content_type.startswith("text/plain")
    _, packed = await asyncio.to_thread(_ask, url, Accept_Encoding="gzip")
    names = [{family.name for family in of_text(said.decode())} for said in (body, gzip.decompress(packed))]
    assert names[0] == names[1] >= {"twinlog_calls", "twinlog_up"}


async def test_a_name_that_is_no_unicode_takes_nothing_else_along(given: Given, url: str) -> None:
    given.of = (Sample(_CALLS, 3, ("Get", "\ud800")), Sample(_LEVEL, 1))
    assert Scrape(await scraped(url)).value("twinlog_level") == 1


async def test_a_metric_of_an_adopters_that_cannot_be_written_takes_none_of_ours(url: str) -> None:
    broken = Gauge("hotel_broken", "Broken.")
    broken.set_function(lambda: "many")  # type: ignore[arg-type, return-value]
    try:
        told = Scrape(await scraped(url))
    finally:
        REGISTRY.unregister(broken)
    assert told.value("twinlog_up") == 1
    assert told.value("process_open_fds") > 0


async def test_nobody_is_told_who_does_not_ask_for_metrics(given: Given, url: str) -> None:
    with pytest.raises(HTTPError, match="404"):
        await asyncio.to_thread(_ask, url.replace("/metrics", "/favicon.ico"))
    assert given.asked == 0


async def test_clients_that_hang_up_or_say_nothing_hold_nobody_up(
    url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    host, port = url.removeprefix("http://").removesuffix("/metrics").split(":")
    for said in (
        b"",
        b"GET /metrics HTTP/1.1\r\n",
        b"GET /metrics HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x00\xff\r\n",
    ):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(said)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not closed
    with socket.create_connection((host, int(port))):
        assert Scrape(await scraped(url)).value("twinlog_up") == 1
    assert capfd.readouterr().err == ""


async def test_a_silent_client_does_not_hold_up_the_end() -> None:
    page = Exposition([], asyncio.get_running_loop()).page
    async with asyncio.timeout(60):
        async with serving("127.0.0.1:0", page) as url:
            host, port = url.removeprefix("http://").removesuffix("/metrics").split(":")
            silent = socket.create_connection((host, int(port)))
        silent.close()


async def test_a_histograms_sum_is_that_of_its_count_however_much_is_counted_meanwhile(
    given: Given, url: str
) -> None:
    tally = Histogram()
    given.of = (Sample(_SECONDS, tally, ("Get",)),)
    done = asyncio.Event()

    async def count() -> None:
        while not done.is_set():
            tally.observe(1.0)
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for _ in range(10):
        told = Scrape(await scraped(url))
        number = told.value("twinlog_seconds_count", method="Get")
        assert told.value("twinlog_seconds_sum", method="Get") == number
        assert told.value("twinlog_seconds_bucket", method="Get", le="+Inf") == number
    done.set()
    await counting
    assert tally.count


class Clock:
    """Tells how often it was looked at, and when that was often enough."""

    def __init__(self, looks: int) -> None:
        self._turn = threading.Lock()
        self._looks, self._enough = 0, looks
        self.enough = threading.Event()

    def __call__(self) -> float:
        with self._turn:
            self._looks += 1
            if self._looks == self._enough:
                self.enough.set()
            return self._looks


def test_a_crowd_shares_what_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = 20
    clock = Clock(looks=crowd + 2)  # each one's as it comes, and the first one's as it begins
    monkeypatch.setattr(scrape, "monotonic", clock)
    shared = scrape._Shared()
    began = threading.Event()
    made: list[str] = []

    def make() -> str:
        began.set()
        assert clock.enough.wait(60)
        made.append("")
        return f"{len(made)}"

    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(shared.of(make))) for _ in range(crowd + 1)]
    threads[0].start()
    assert began.wait(60)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == ["1", *["2"] * crowd]
    assert shared.of(make) == "3", "a later one asks anew"


async def test_the_loop_is_measured_while_it_is_told_of() -> None:
    measured = EventLoop()
    with measured.measured():
        lag: Histogram = (await measured.samples())[0].value  # type: ignore[assignment]
        await until(lambda: lag.count > 1)
    count = lag.count
    assert lag.sum >= 0
    await asyncio.sleep(0.25)
    assert lag.count == count


async def test_the_service_comes_and_goes_under_scrapes() -> None:
    """Whoever asks while it starts or stops is answered or refused, and never left waiting."""
    stop = threading.Event()
    told: list[bytes] = []
    at: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            for url in at[-1:]:
                try:
                    told.append(_ask(url)[1])
                except (OSError, HTTPException):
                    continue

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(3):
            async with telling([Given(Sample(_LEVEL, 1))], "127.0.0.1:0") as url:
                at.append(url)
                number = len(told)
                await until(lambda number=number: len(told) > number)  # type: ignore[misc]
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, 60)
    assert not thread.is_alive()
    assert all(b"twinlog_level 1.0\n" in each or b"twinlog_up 0.0\n" in each for each in told)
