"""What times traces: its receiver takes what a service sends, and only one of its shops is told of it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from proof.bench import metered
from proof.bench.receiving import receiver

_MINE, _THEIRS = "TWINLOG_TEST_MINE", "TWINLOG_TEST_THEIRS"


def test_spans_that_are_sent_are_counted() -> None:
    with receiver() as received:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{received.url}/v1/traces")))
        for _ in range(3):
            provider.get_tracer("tests").start_span("span").end()
        provider.shutdown()
    assert received.spans == 3


@pytest.mark.parametrize("before", [{}, {_THEIRS: "as it was"}])
def test_the_environment_is_as_it_was(before: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (_MINE, _THEIRS):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ZeroDivisionError), metered._environment({_MINE: "1", _THEIRS: "2"}):
        assert (os.environ[_MINE], os.environ[_THEIRS]) == ("1", "2")
        raise ZeroDivisionError
    assert {name: os.environ[name] for name in (_MINE, _THEIRS) if name in os.environ} == before
