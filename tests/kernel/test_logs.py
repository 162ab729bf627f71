from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from twinlog.service import logging as logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_json_with_the_correlation_id_of_its_call() -> None:
    out = io.StringIO()
    logs.configure_logging(stream=out)
    with bound_contextvars(correlation_id="abc"):
        structlog.get_logger(component="relay").warning("relay.behind", by=7)
    [line] = lines(out)

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "component": "relay",
        "by": 7,
        "event": "relay.behind",
        "level": "warning",
        "correlation_id": "abc",
    }


def test_a_terminal_gets_lines_for_eyes() -> None:
    out = Terminal()
    logs.configure_logging(stream=out)
    structlog.get_logger().info("serving", address="here")

    assert "serving" in out.getvalue()
    assert "\x1b[" in out.getvalue()
    with pytest.raises(json.JSONDecodeError):
        lines(out)


def test_pretty_without_a_terminal_has_no_colour() -> None:
    out = io.StringIO()
    logs.configure_logging(format="pretty", stream=out)
    structlog.get_logger().info("serving")

    assert "\x1b[" not in out.getvalue()


@pytest.mark.parametrize("format", ["pretty", "json"])
def test_a_traceback_shows_no_values_of_variables(format: logs.Format) -> None:
    out = io.StringIO()
    logs.configure_logging(format=format, stream=out)
    password = "hunter2"
    try:
        raise RuntimeError(f"{len(password)} letters")
    except RuntimeError:
        structlog.get_logger().exception("failed")

    assert "RuntimeError: 7 letters" in out.getvalue()
    assert "hunter2'" not in out.getvalue()


def test_what_is_below_the_level_is_not_logged() -> None:
    out = io.StringIO()
    logs.configure_logging("warning", stream=out)
    structlog.get_logger().info("chatter")
    structlog.get_logger().error("news")

    assert [line["event"] for line in lines(out)] == ["news"]


def test_libraries_log_in_the_same_form() -> None:
    out = io.StringIO()
    logs.configure_logging(stream=out)
    logging.getLogger("nats").info("chatter")
    logging.getLogger("nats").error("lost %s", "it")
    [line] = lines(out)

    assert (line["component"], line["level"], line["event"]) == ("nats", "error", "lost it")
