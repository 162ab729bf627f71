"""When traces are on, what is refused, and what a receiver that is away costs."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
from opentelemetry import trace
from structlog.testing import capture_logs

from stack.topology import ROOT
from tests.tracing.receiver import receiver
from tests.waiting import until
from twinlog import ConfigurationError
from twinlog.dev import free_port
from twinlog.model.trace import trace_fields
from twinlog.observe import tracing
from twinlog.observe.tracing import NO_TRACING, exporting, wanted
from twinlog.observe.tracing_spans import Spans, Tracer, current, ending, span_context
from twinlog.testing import ManualClock

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
URL = "http://127.0.0.1:4318"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STOPS_WITHIN_SECONDS = 60.0
_STARTS_AND_STOPS = """
import sys
from customer_svc.app import SPEC, CustomerSettings, wire
from twinlog import Shutdown, load, open_service, run

async def main(shutdown):
    async with open_service(SPEC, load(CustomerSettings), shutdown) as service:
        wire(service)
        print("started")

sys.exit(run(main))
"""


@pytest.fixture(autouse=True)
def no_provider_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's own provider can be set once only."""
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _provider: None)


@pytest.mark.parametrize(
    ("env", "on"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: URL}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/v1/traces"}, True),
        ({ENDPOINT: URL, "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_the_endpoint_switches_them_on(env: Mapping[str, str], on: bool) -> None:
    assert wanted(env) is on


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({ENDPOINT: "127.0.0.1:4318"}, f"{ENDPOINT} must be the URL of an OTLP receiver"),
        ({ENDPOINT: "ftp://127.0.0.1"}, f"{ENDPOINT} must be the URL of an OTLP receiver"),
        ({ENDPOINT: "http://[127"}, f"{ENDPOINT} must be the URL of an OTLP receiver"),
        (
            {ENDPOINT: URL, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc is not spoken; set it to http/protobuf",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(env: Mapping[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        wanted(env)


@pytest.mark.parametrize("missing", ["twinlog_lacks_this", "twinlog_lacks_this.and_this"])
def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _name: find_spec(missing))
    with pytest.raises(ConfigurationError, match=r"pip install 'twinlog\[otel\]'"):
        wanted({ENDPOINT: URL})


async def test_where_they_are_off_nothing_is_put_around_anything() -> None:
    async with exporting("tests", {}) as tracer:
        assert tracing.tracing(tracer, ManualClock()) is NO_TRACING


def test_a_service_without_traces_does_not_import_opentelemetry() -> None:
    program = "import sys, twinlog, twinlog.rpc; from twinlog import open_service, Service; "
    program += "print(any(name.partition('.')[0] == 'opentelemetry' for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=240, check=True
    )
    assert done.stdout == "False\n"


async def test_a_service_starts_without_the_extra(
    postgres_url: str, nats_url: str, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "opentelemetry.py").write_text('raise ImportError("it is not installed here")\n')
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _STARTS_AND_STOPS,
        env={
            **os.environ,
            "POSTGRES_URL": postgres_url,
            "NATS_URL": nats_url,
            "TWINLOG_NAMESPACE": namespace,
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await service.communicate()
    assert (said, service.returncode) == (b"started\n", 0)


def begin(tracer: Tracer, number: int = 1) -> None:
    """Begins and ends a call's spans."""
    spans = Spans(tracer, ManualClock())
    for _ in range(number):
        span = spans.call(TRACE, "tests.Service/Method", {})
        assert span is not None
        span.end()


def environment(monkeypatch: pytest.MonkeyPatch, url: str, **more: str) -> None:
    for name, value in {ENDPOINT: url, "OTEL_BSP_SCHEDULE_DELAY": "10", **more}.items():
        monkeypatch.setenv(name, value)


async def test_what_is_left_is_sent_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as traces:
        environment(monkeypatch, traces.url, OTEL_BSP_SCHEDULE_DELAY="60000")
        async with exporting("tests") as tracer:
            assert tracer
            begin(tracer, 3)
            assert not traces.spans
        assert [span.service for span in traces.spans] == ["tests"] * 3


async def test_spans_of_the_services_own_are_kept_within_those_of_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    providers: list[trace.TracerProvider] = []
    monkeypatch.setattr(trace, "set_tracer_provider", providers.append)
    with receiver() as traces:
        environment(monkeypatch, traces.url)
        async with exporting("tests") as tracer:
            assert tracer
            [provider] = providers
            with provider.get_tracer("own").start_as_current_span("alone") as alone:
                assert not alone.is_recording()
            call = Spans(tracer, ManualClock()).call(TRACE, "tests.Service/Method", {})
            assert call is not None
            with ending([call]), current(call), provider.get_tracer("own").start_as_current_span("within"):
                pass
        [root] = traces.roots(TRACE[3:35])
        assert list(root.drawn()) == ["tests: tests.Service/Method", "  tests: within"]


async def test_the_standard_names_of_a_service_win(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as traces:
        environment(monkeypatch, traces.url, OTEL_SERVICE_NAME="mine")
        async with exporting("tests") as tracer:
            assert tracer
            begin(tracer)
        assert [span.service for span in traces.spans] == ["mine"]


async def test_a_receiver_that_is_away_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment(
        monkeypatch,
        f"http://127.0.0.1:{free_port()}",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        OTEL_BSP_MAX_QUEUE_SIZE="600",
    )
    with capture_logs() as lines, caplog.at_level(logging.DEBUG):
        async with exporting("tests") as tracer:
            assert tracer
            begin(tracer, 2_000)
            await until(lambda: bool(lines))
            begin(tracer, 2_000)
            began = time.monotonic()
        assert time.monotonic() - began < STOPS_WITHIN_SECONDS
    assert [line["event"] for line in lines] == ["traces.dropping"]
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_a_receiver_that_is_back_gets_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as traces, capture_logs() as lines:
        traces.refuses = True
        environment(monkeypatch, traces.url, OTEL_EXPORTER_OTLP_TIMEOUT="1")
        async with exporting("tests") as tracer:
            assert tracer
            begin(tracer)
            await until(lambda: len(lines) == 1)
            traces.refuses = False

            def sending() -> bool:
                begin(tracer)  # what is sent on a machine that stands still is lost, too
                return bool(traces.spans) and len(lines) >= 2

            await until(sending)
    assert [line["event"] for line in lines][:2] == ["traces.dropping", "traces.sending"]


def test_a_broken_trace_context_is_none() -> None:
    for broken in ("", "nonsense", f"{TRACE}-more", TRACE[:-1]):
        assert not trace_fields(broken)
    assert trace_fields(TRACE) == {"trace_id": TRACE[3:35], "span_id": TRACE[36:52]}
    assert not span_context("00-zz").is_valid
    assert not span_context("z" * 55).is_valid
